//! Uploads that go their own way. They are kept here, so that nothing of them depends on how `ferry-serve` keeps them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferry_oci::{Digest, Name};
use ferry_serve::ResponseBody;
use ferry_store::{Begun, Expect, Mount};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderName, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use url::form_urlencoded;

use super::answers::{drain, error, nothing, with};
use super::{Particular, lock};
use crate::fake::connection::Wire;
use crate::quirks::{Location, MountAnswer, Mounts, Patches, Progress, Quirks, Stale, Uploads, Whole};

type Answer = Response<ResponseBody>;

/// The uploads that are open.
#[derive(Default)]
pub(super) struct Sessions {
    begun: u64,
    open: HashMap<String, Session>,
}

#[derive(Default)]
struct Session {
    bytes: Vec<u8>,
    /// How many `PATCH`es there were, the last of them counted even if it broke off.
    patches: usize,
    /// The end of the first chunk.
    first: usize,
    /// A chunk shorter than the least there may be, which can only be the last.
    short: bool,
}

/// Which upload a request means, as its path and query say.
struct Named {
    id: String,
    state: Option<u64>,
    digest: Option<Digest>,
}

fn query(parts: &Parts, wanted: &str) -> Option<String> {
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).find(|(key, _)| key == wanted).map(|(_, value)| value.into_owned())
}

impl Named {
    fn of(parts: &Parts) -> Self {
        let id = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let state = query(parts, "_state").and_then(|text| text.strip_prefix("at ")?.parse().ok());
        Self { id, state, digest: query(parts, "digest").and_then(|text| text.parse().ok()) }
    }
}

/// The place of a chunk, end exclusive.
fn chunk(parts: &Parts) -> Option<(u64, u64)> {
    let (first, last) = parts.headers.get(CONTENT_RANGE)?.to_str().ok()?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()? + 1))
}

fn length(parts: &Parts) -> Option<u64> {
    parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn unknown() -> Answer {
    error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

impl Particular {
    /// Answers the question for a mount, or opens an upload.
    pub(super) async fn begin_upload(
        &self,
        quirks: &Quirks,
        name: &Name,
        request: Request<Incoming>,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        drain(body).await;
        if let Some(digest) = query(&parts, "mount").and_then(|text| text.parse().ok())
            && let Some(answer) = self.mount(&quirks.mounts, name, &digest, query(&parts, "from")).await
        {
            return answer;
        }
        let id = {
            let mut sessions = lock(&self.state.memory.uploads);
            sessions.begun += 1;
            let id = format!("u{}", sessions.begun);
            sessions.open.insert(id.clone(), Session::default());
            id
        };
        let answer = self.located(&quirks.uploads, nothing(202), name, &id);
        let range = if quirks.uploads.progress == Progress::Quay { "bytes=0--1" } else { "0-0" };
        let answer = with(answer, RANGE, range);
        match quirks.uploads.min_chunk {
            Some(least) => with(answer, HeaderName::from_static("oci-chunk-min-length"), least.to_string()),
            None => answer,
        }
    }

    /// The answer to the question for a mount; `None` for an upload.
    async fn mount(
        &self,
        quirks: &Mounts,
        name: &Name,
        digest: &Digest,
        from: Option<String>,
    ) -> Option<Answer> {
        if quirks.two_parts && from.as_ref().is_some_and(|from| !from.contains('/')) {
            return Some(error(400, "NAME_INVALID", "from is to be a project and a repository"));
        }
        match quirks.answer {
            MountAnswer::Upload => return None,
            MountAnswer::Status(status) => return Some(error(status, "UNSUPPORTED", "no mounts here")),
            MountAnswer::Blob => {}
        }
        let from: Option<Name> = from.and_then(|from| from.parse().ok());
        if quirks.committed && !self.is_committed(from.as_ref()?, digest).await {
            return None;
        }
        let mount = from.map_or(Mount::Anywhere, |from| Mount::From(vec![from]));
        let expect = Expect { digest: Some(*digest), size: None, mount };
        match self.writer(name)?.begin(expect).await.ok()? {
            Begun::Exists | Begun::Mounted => {
                Some(with(nothing(201), LOCATION, format!("/v2/{name}/blobs/{digest}")))
            }
            Begun::Upload(_) => None,
        }
    }

    /// Whether a manifest under a tag of the repository names the blob, by way of an index or not.
    async fn is_committed(&self, from: &Name, digest: &Digest) -> bool {
        let reader = self.reader(from);
        let Ok(tags) = reader.tags(ferry_store::PageRequest::default()).await else { return false };
        for entry in tags.items {
            let reference = ferry_oci::Reference::Tag(entry.tag);
            let found = crate::images::verify(&*reader, &reference).await;
            if found.is_ok_and(|found| found.blobs.contains_key(digest)) {
                return true;
            }
        }
        false
    }

    fn located(&self, quirks: &Uploads, answer: Answer, name: &Name, id: &str) -> Answer {
        let at = lock(&self.state.memory.uploads).open.get(id).map_or(0, |session| session.bytes.len());
        let path = format!("/v2/{name}/blobs/uploads/{id}?_state=at%20{at}&x==");
        match quirks.location {
            Location::Relative => with(answer, LOCATION, path),
            Location::Absolute => with(answer, LOCATION, format!("http://{}{path}", self.address)),
        }
    }

    /// Answers a request to an upload that is open.
    pub(super) async fn go_on(
        &self,
        quirks: &Uploads,
        name: &Name,
        request: Request<Incoming>,
        wire: &Arc<Wire>,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let named = Named::of(&parts);
        let refusal =
            self.check_state(quirks, &named, &parts.method).or_else(|| self.check(quirks, &named, &parts));
        if let Some(refusal) = refusal {
            drain(body).await;
            return refusal;
        }
        match parts.method {
            Method::PATCH => self.append(quirks, name, (&parts, body), &named).await,
            Method::PUT => self.commit(quirks, name, (&parts, body), (&named, wire)).await,
            Method::DELETE => {
                lock(&self.state.memory.uploads).open.remove(&named.id);
                nothing(204)
            }
            _ => self.status(quirks, name, &named.id),
        }
    }

    /// Why a request to this location is refused.
    fn check_state(&self, quirks: &Uploads, named: &Named, method: &Method) -> Option<Answer> {
        let mut sessions = lock(&self.state.memory.uploads);
        let Some(session) = sessions.open.get(&named.id) else { return Some(unknown()) };
        if named.state == Some(session.bytes.len() as u64) {
            return None;
        }
        match quirks.stale {
            Stale::Cancels => {
                sessions.open.remove(&named.id);
                Some(error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid"))
            }
            _ if named.state.is_none() => Some(error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid")),
            Stale::Refused if matches!(*method, Method::PATCH | Method::PUT) => {
                Some(error(416, "RANGE_INVALID", "the upload has moved on"))
            }
            _ => None,
        }
    }

    /// Why a chunk is refused.
    fn check(&self, quirks: &Uploads, named: &Named, parts: &Parts) -> Option<Answer> {
        let sessions = lock(&self.state.memory.uploads);
        let session = sessions.open.get(&named.id)?;
        let chunk = chunk(parts);
        if parts.method == Method::PATCH
            && quirks.patches == Patches::Once
            && (session.patches > 0 || chunk.is_some())
        {
            return Some(error(400, "UNSUPPORTED", "chunked uploads are not supported"));
        }
        let (from, to) = chunk?;
        let long = to.saturating_sub(from);
        if quirks.ranged_limit.is_some_and(|limit| long > limit) {
            return Some(error(416, "RANGE_INVALID", "request body is too large"));
        }
        if quirks.max_chunk.is_some_and(|limit| long > limit) {
            return Some(error(400, "BLOB_UPLOAD_INVALID", "the part is too large"));
        }
        let misplaced = from != session.bytes.len() as u64 && quirks.patches == Patches::Append;
        (misplaced || session.short).then(|| error(416, "RANGE_INVALID", "not where the upload ends"))
    }

    async fn append(
        &self,
        quirks: &Uploads,
        name: &Name,
        (parts, mut body): (&Parts, Incoming),
        named: &Named,
    ) -> Answer {
        if let Some(session) = lock(&self.state.memory.uploads).open.get_mut(&named.id) {
            session.patches += 1;
            if quirks.patches == Patches::Overwrite {
                session.bytes.clear();
            }
        }
        let received = self.receive(&named.id, &mut body).await;
        let Some(received) = received else {
            // A chunk counts as a whole or not at all; of a stream all counts that arrived.
            if let Some((from, _)) = chunk(parts) {
                self.cut_to(&named.id, from);
            }
            return error(400, "BLOB_UPLOAD_INVALID", "the body breaks off");
        };
        {
            let mut sessions = lock(&self.state.memory.uploads);
            let Some(session) = sessions.open.get_mut(&named.id) else { return unknown() };
            session.short = chunk(parts).is_some() && quirks.min_chunk.is_some_and(|least| received < least);
            if session.first == 0 {
                session.first = session.bytes.len();
            }
        }
        let answer = nothing(if quirks.patch_created { 201 } else { 202 });
        let answer = self.located(quirks, answer, name, &named.id);
        self.with_progress(quirks, answer, &named.id, false)
    }

    fn cut_to(&self, id: &str, length: u64) {
        if let Some(session) = lock(&self.state.memory.uploads).open.get_mut(id) {
            session.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        }
    }

    /// Appends a body; `None` if it breaks off.
    async fn receive(&self, id: &str, body: &mut Incoming) -> Option<u64> {
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            received += data.len() as u64;
            lock(&self.state.memory.uploads).open.get_mut(id)?.bytes.extend_from_slice(&data);
        }
        Some(received)
    }

    async fn commit(
        &self,
        quirks: &Uploads,
        name: &Name,
        (parts, mut body): (&Parts, Incoming),
        (named, wire): (&Named, &Arc<Wire>),
    ) -> Answer {
        let long = length(parts).unwrap_or(u64::MAX);
        let refusal = match quirks.whole {
            Whole::Refused(status) if long > 0 => Some(error(status, "UNSUPPORTED", "use PATCH")),
            Whole::TooLargeAbove(most) if long > most => Some(error(413, "SIZE_INVALID", "too large")),
            _ => None,
        };
        if let Some(refusal) = refusal {
            drain(body).await;
            return refusal;
        }
        match quirks.whole {
            Whole::Ignored => drain(body).await,
            whole => {
                if let Whole::ResetAfter(most) = whole
                    && long > most
                {
                    wire.read_left.store(most, Ordering::SeqCst);
                }
                if self.receive(&named.id, &mut body).await.is_none() {
                    return error(400, "BLOB_UPLOAD_INVALID", "the body breaks off");
                }
            }
        }
        self.store_blob(name, named).await
    }

    async fn store_blob(&self, name: &Name, named: &Named) -> Answer {
        let session = lock(&self.state.memory.uploads).open.remove(&named.id);
        let (Some(session), Some(digest)) = (session, named.digest) else { return unknown() };
        let bytes = Bytes::from(session.bytes);
        if Digest::of(digest.algorithm(), &bytes) != digest {
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        match self.keep(name, &digest, bytes).await {
            Some(()) => {
                let answer = with(nothing(201), LOCATION, format!("/v2/{name}/blobs/{digest}"));
                with(answer, HeaderName::from_static("docker-content-digest"), digest.to_string())
            }
            None => error(500, "UNKNOWN", "the store failed"),
        }
    }

    async fn keep(&self, name: &Name, digest: &Digest, bytes: Bytes) -> Option<()> {
        let expect = Expect { digest: Some(*digest), size: Some(bytes.len() as u64), mount: Mount::No };
        if let Begun::Upload(mut upload) = self.writer(name)?.begin(expect).await.ok()? {
            upload.write(bytes).await.ok()?;
            upload.commit(digest).await.ok()?;
        }
        Some(())
    }

    fn status(&self, quirks: &Uploads, name: &Name, id: &str) -> Answer {
        if quirks.no_status {
            return unknown();
        }
        let answer = match quirks.progress {
            Progress::Quay => nothing(204),
            _ => self.located(quirks, nothing(204), name, id),
        };
        self.with_progress(quirks, answer, id, true)
    }

    fn with_progress(&self, quirks: &Uploads, answer: Answer, id: &str, status: bool) -> Answer {
        let (count, first) = match lock(&self.state.memory.uploads).open.get(id) {
            Some(session) => (session.bytes.len(), session.first),
            None => (0, 0),
        };
        let range = match quirks.progress {
            Progress::Quay if status => format!("bytes=0-{count}"),
            Progress::Exact | Progress::Quay => format!("0-{}", count.saturating_sub(1)),
            Progress::FirstChunk => format!("0-{}", first.saturating_sub(1)),
            Progress::Short => format!("0-{}", count.saturating_sub(2)),
        };
        with(answer, RANGE, range)
    }
}
