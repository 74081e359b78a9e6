use super::LinkRequest;

/// A head larger than this is none.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// Finds the requests in the bytes that a client sends over one connection (RFC 9112).
#[derive(Debug, Default)]
pub(super) struct Follower {
    state: Reading,
    pending: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Reading {
    #[default]
    Head,
    Body {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailer,
    /// Not HTTP/1.1.
    Unknown,
}

impl Follower {
    /// The requests whose heads are complete with these further bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<LinkRequest> {
        let joined = [&std::mem::take(&mut self.pending), bytes].concat();
        let mut rest = &joined[..];
        let mut found = Vec::new();
        while let Some(used) = self.step(rest, &mut found) {
            rest = &rest[used..];
        }
        self.pending = rest.to_vec();
        found
    }

    /// Moves on by as many bytes as returned; `None` if more are needed.
    fn step(&mut self, rest: &[u8], found: &mut Vec<LinkRequest>) -> Option<usize> {
        if rest.is_empty() {
            return None;
        }
        match self.state {
            Reading::Head => self.head(rest, found),
            Reading::Body { left, chunked } => {
                let used = left.min(rest.len() as u64);
                self.state = match (left - used, chunked) {
                    (0, true) => Reading::ChunkSize,
                    (0, false) => Reading::Head,
                    (left, _) => Reading::Body { left, chunked },
                };
                Some(used as usize)
            }
            Reading::ChunkSize => match httparse::parse_chunk_size(rest) {
                Ok(httparse::Status::Complete((used, size))) => {
                    self.state = match size {
                        0 => Reading::Trailer,
                        // The line break after the data belongs to it here.
                        size => Reading::Body { left: size.saturating_add(2), chunked: true },
                    };
                    Some(used)
                }
                Ok(httparse::Status::Partial) => None,
                Err(_) => self.give_up(rest),
            },
            Reading::Trailer => {
                let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
                if end == 0 {
                    self.state = Reading::Head;
                }
                Some(end + 2)
            }
            Reading::Unknown => Some(rest.len()),
        }
    }

    fn head(&mut self, rest: &[u8], found: &mut Vec<LinkRequest>) -> Option<usize> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let used = match request.parse(rest) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if rest.len() <= MAX_HEAD => return None,
            Ok(httparse::Status::Partial) | Err(_) => return self.give_up(rest),
        };
        let header = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        self.state = if header("transfer-encoding").is_some() {
            Reading::ChunkSize
        } else {
            match header("content-length").map_or(Ok(0), str::parse) {
                Ok(0) => Reading::Head,
                Ok(left) => Reading::Body { left, chunked: false },
                Err(_) => Reading::Unknown,
            }
        };
        found.push(LinkRequest {
            method: request.method.unwrap_or_default().to_owned(),
            path: request.path.unwrap_or_default().to_owned(),
        });
        Some(used)
    }

    fn give_up(&mut self, rest: &[u8]) -> Option<usize> {
        self.state = Reading::Unknown;
        Some(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n\
        PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nGET /\r\n0\r\nTrailer: t\r\n\r\n\
        PUT /v2/a/manifests/t?x=1 HTTP/1.1\r\ncontent-length: 16\r\n\r\nGET / HTTP/1.1\r\n\
        HEAD /v2/a/manifests/t HTTP/1.1\r\n\r\n";

    #[test]
    fn bodies_are_not_requests_however_the_bytes_arrive() {
        for size in [1, 2, 3, 7, 50, 1000] {
            let mut follower = Follower::default();
            let found: Vec<String> = SESSION
                .chunks(size)
                .flat_map(|part| follower.feed(part))
                .map(|request| format!("{} {}", request.method, request.path))
                .collect();
            let expected = [
                "GET /v2/",
                "PATCH /v2/a/blobs/uploads/1",
                "PUT /v2/a/manifests/t?x=1",
                "HEAD /v2/a/manifests/t",
            ];
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_not_http_is_let_through() {
        let mut follower = Follower::default();
        assert!(follower.feed(b"\x16\x03\x01\x02\x00").is_empty());
        assert!(follower.feed(b"GET / HTTP/1.1\r\n\r\n").is_empty());
    }
}
