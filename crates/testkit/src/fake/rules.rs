use std::time::Duration;

/// One way to misbehave. The request is carried out unless said otherwise; only its answer suffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is not carried out, the answer is this.
    Status {
        /// The status code.
        status: u16,
        /// The value of a `Retry-After` header.
        retry_after: Option<String>,
        /// The body, sent as JSON.
        body: String,
    },
    /// The connection is closed after so many bytes of the body, with more promised by `Content-Length`; a body that
    /// is not longer arrives whole. With 0 there is no answer at all.
    Truncate {
        /// Bytes of the body that arrive.
        after: u64,
    },
    /// As [`Fault::Truncate`], but with a TCP reset.
    Reset {
        /// Bytes of the body that arrive.
        after: u64,
    },
    /// The connection is reset after about so many further bytes of the *request*: what was read along with its head
    /// comes on top.
    CutRequest {
        /// Bytes of the request that are still read.
        after: u64,
    },
    /// One byte of the body is another.
    Corrupt {
        /// Which byte.
        at: u64,
    },
    /// The request is not carried out: it is sent to the same path elsewhere, with 307.
    Redirect {
        /// Scheme, host and port.
        to: String,
    },
    /// After so many bytes of the body nothing more comes, with the connection open.
    Stall {
        /// Bytes of the body that arrive.
        after: u64,
    },
    /// The body comes in small pieces.
    Trickle {
        /// Size of a piece in bytes, at least 1.
        chunk: usize,
        /// The wait before each piece.
        pause: Duration,
    },
    /// `Range` is ignored: 200 with everything.
    IgnoreRange,
    /// `Docker-Content-Digest` names something else.
    WrongDigest,
    /// The request is not carried out: 404 `BLOB_UPLOAD_UNKNOWN`.
    StaleUpload,
}

impl Fault {
    /// A [`Fault::Status`] without `Retry-After` and with an error body that says nothing.
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None, body: r#"{"errors":[]}"#.to_owned() }
    }
}

/// A fault, and which requests it befalls: by default the next one, whatever it is.
#[derive(Debug, Clone)]
pub struct FaultRule {
    fault: Fault,
    method: Option<String>,
    part: String,
    skip: usize,
    left: usize,
}

impl FaultRule {
    /// The next request suffers `fault`.
    pub fn new(fault: Fault) -> Self {
        Self { fault, method: None, part: String::new(), skip: 0, left: 1 }
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests with this text in their path and query.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        part.clone_into(&mut self.part);
        self
    }

    /// Not the first `skip` of them.
    #[must_use]
    pub fn skip(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// So many of them.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.left = times;
        self
    }

    /// All of them.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// The fault, if it befalls this request; then one time less is left.
    pub(super) fn strike(&mut self, method: &str, path: &str) -> Option<Fault> {
        let matches = self.method.as_ref().is_none_or(|wanted| wanted == method) && path.contains(&self.part);
        if !matches || self.left == 0 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.left -= 1;
        Some(self.fault.clone())
    }
}
