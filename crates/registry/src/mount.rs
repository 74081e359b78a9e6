//! Finding a place for a blob: it may be here, come from another repository, or want an upload.

use ferry_oci::{Digest, Name};
use ferry_store::{Begun, Expect, Kind, Mount, Result};
use http::header::LOCATION;
use http::{Method, StatusCode};
use url::Url;

use crate::access::Access;
use crate::error::{Failure, Tried, What};
use crate::habit::Habit;
use crate::host::MAX_RECEIPT;
use crate::read::RemoteRepository;
use crate::request::{Answer, Request, text};
use crate::retry::Retry;
use crate::session::Session;
use crate::upload::RemoteUpload;

/// What came of asking for a mount.
enum Asked {
    /// The blob is in the repository.
    Here,
    /// It is not; an upload was opened in the same breath.
    Session(Url),
    /// The registry does not do this.
    Refused,
}

impl RemoteRepository {
    /// Asks and opens in one request where the registry allows (distribution-spec, "Mounting a blob").
    pub(crate) async fn open_upload(&self, expect: Expect) -> Result<Begun> {
        let subject = expect.digest.map_or_else(|| "a blob".to_owned(), |digest| digest.to_string());
        let what = self.what("upload blob", subject);
        let place = self.host.upload_place(&what).await?;
        let mut session = None;
        if let Some(digest) = expect.digest {
            // The session of the last question is kept for the upload; the others expire.
            for from in sources(&expect.mount) {
                match self.mount(&what, &digest, from, &expect.mount).await? {
                    Asked::Here if from == Some(&self.name) => return Ok(Begun::Exists),
                    Asked::Here => return Ok(Begun::Mounted),
                    Asked::Session(url) => session = Some(url),
                    Asked::Refused => {}
                }
            }
        }
        let session = match session {
            Some(session) => session,
            None => self.session(&what).await?,
        };
        let session = Session { location: session, promise: expect.digest.zip(expect.size), confirmed: 0 };
        Ok(Begun::Upload(Box::new(RemoteUpload::new(self.clone(), what, session, place))))
    }

    /// Goes on with an upload where the registry has got to; `None` if it does not know it any more.
    pub(crate) async fn resume_upload(&self, mut session: Session) -> Tried<Option<RemoteUpload>> {
        let subject =
            session.promise.map_or_else(|| "of a blob".to_owned(), |(digest, _)| digest.to_string());
        let what = self.what("resume upload", subject);
        let place = self.host.upload_place(&what).await?;
        let way = self.host.ways.way(session.promise.map(|(_, size)| size));
        let own_count = session.promise.is_some() && matches!(way.habit, Habit::Chunks(_));
        if way.habit == Habit::Whole || way.single {
            return Ok(None);
        }
        if !own_count {
            let request = Request::new(what.clone(), Method::GET, session.location.clone(), self.access());
            let answer = match self.host.call(&request, MAX_RECEIPT).await {
                Ok(answer) => answer,
                Err(failure) if failure.error.kind().is_transient() => return Err(failure),
                Err(_) => return Ok(None),
            };
            let told = session.told(&answer.headers);
            if !self.host.ways.believes(told, session.confirmed) {
                return Ok(None);
            }
            session.confirmed = told;
            session.location = location(&what, &answer).unwrap_or(session.location);
        }
        // No blob is larger than what a file can be.
        let most = session.promise.map_or(i64::MAX as u64, |(_, size)| size);
        let too_much = session.confirmed > most;
        Ok((!too_much).then(|| RemoteUpload::new(self.clone(), what, session, place)))
    }

    async fn mount(&self, what: &What, digest: &Digest, from: Option<&Name>, mount: &Mount) -> Tried<Asked> {
        let mut url = self.url("blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", &digest.to_string());
        if let Some(from) = from {
            url.query_pairs_mut().append_pair("from", from.as_str());
        }
        // One token reads from all of them.
        let access = sources(mount).into_iter().flatten().fold(self.access(), Access::and_pull);
        let request = Request::new(what.clone(), Method::POST, url, access).retry(Retry::Unanswered);
        match self.host.call(&request, MAX_RECEIPT).await {
            Ok(answer) if answer.status == StatusCode::CREATED => Ok(Asked::Here),
            Ok(answer) => Ok(Asked::Session(self.opened(what, &answer)?)),
            Err(failure) if is_refusal(&failure) => Ok(Asked::Refused),
            Err(failure) => Err(failure),
        }
    }

    async fn session(&self, what: &What) -> Tried<Url> {
        let url = self.url("blobs/uploads/");
        let request = Request::new(what.clone(), Method::POST, url, self.access());
        let answer = self.host.call(&request, MAX_RECEIPT).await?;
        self.opened(what, &answer)
    }

    fn opened(&self, what: &What, answer: &Answer) -> Tried<Url> {
        self.host.ways.note_least(&answer.headers);
        location(what, answer)
    }
}

fn sources(mount: &Mount) -> Vec<Option<&Name>> {
    match mount {
        Mount::No => Vec::new(),
        Mount::From(names) => names.iter().map(Some).collect(),
        Mount::Anywhere => vec![None],
    }
}

/// Registries that do not mount answer with almost anything; the plain request that follows tells what is really wrong.
fn is_refusal(failure: &Failure) -> bool {
    failure.status.is_some() && !matches!(failure.error.kind(), Kind::RateLimited { .. })
}

/// Where an upload goes on: always as the newest answer says, relative to where it came from.
pub(crate) fn location(what: &What, answer: &Answer) -> Tried<Url> {
    let missing = || what.failure(Kind::Invalid, "the registry does not say where to upload to");
    let location = text(&answer.headers, LOCATION).ok_or_else(missing)?;
    let url = answer.url.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(missing)
}
