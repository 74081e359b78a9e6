//! Reads method, path and query of a request once into a [`Call`]: first the path, which names a repository, and once it is
//! known whose that is, the rest.

use ferry_oci::{Digest, ErrorCode, Malformed, Name, Reference, Tag};
use ferry_policy::access::Action;
use ferry_store::{Cursor, PageRequest, UploadToken};
use http::Method;

use crate::error::Failure;
use crate::query::{Query, decode};

/// The most tags or repositories on a page.
const MAX_NAMES: usize = 10_000;
/// The most referrers on a page; each may carry annotations of any size.
const MAX_REFERRERS: usize = 500;
/// The most tags that one push by digest may set.
const MAX_TAGS: usize = 32;

/// What a request asks for in a repository. The endpoints are those of the distribution specification, "Endpoints".
#[derive(Debug, PartialEq)]
pub(crate) enum Call {
    /// end-8
    Tags { name: Name, page: PageRequest },
    /// end-12
    Referrers { name: Name, subject: Digest, artifact_type: Option<String>, page: PageRequest },
    /// end-3
    ReadManifest { name: Name, reference: Reference },
    /// end-7; the tags are those of a push by digest (`?tag=`).
    PutManifest { name: Name, reference: Reference, tags: Vec<Tag> },
    /// end-9
    DeleteManifest { name: Name, reference: Reference },
    /// end-2
    ReadBlob { name: Name, digest: Digest },
    /// end-10
    DeleteBlob { name: Name, digest: Digest },
    /// end-4, end-11
    Begin { name: Name, begin: Begin },
    /// end-13
    UploadStatus { name: Name, token: UploadToken },
    /// end-5
    Append { name: Name, token: UploadToken },
    /// end-6
    Commit { name: Name, token: UploadToken, digest: Digest },
    /// end-14 of the next version
    Cancel { name: Name, token: UploadToken },
}

/// How an upload begins.
#[derive(Debug, PartialEq)]
pub(crate) enum Begin {
    /// With a session that the bytes are sent to later.
    Session,
    /// With all the bytes in the same request.
    Whole(Digest),
    /// With the wish to take the blob from another repository, or from wherever it is.
    Mount { digest: Digest, from: Option<Name> },
}

/// A path of the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    /// What stands before `/v2`, as it is written.
    pub(crate) base: &'a str,
    pub(crate) to: To<'a>,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To<'a> {
    /// end-1
    Ping,
    /// Not in the specification, but every registry has it.
    Catalog,
    Repository(Spot<'a>),
}

/// Content of a repository, by the text that stands where its name does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) name: &'a str,
    part: Part,
    rest: &'a str,
}

impl<'a> Path<'a> {
    /// Reads a path; whose repository it names is not decided here.
    pub(crate) fn parse(path: &'a str) -> Result<Self, Failure> {
        const ROOT: &str = "/v2";
        let at = path.find("/v2/").or_else(|| path.strip_suffix(ROOT).map(str::len));
        let (base, rest) = path.split_at(at.ok_or(Failure::NoSuchPath)?);
        let to = match &rest[ROOT.len()..] {
            "" | "/" => To::Ping,
            "/_catalog" => To::Catalog,
            rest => {
                let (name, part, rest) = split(rest).ok_or(Failure::NoSuchPath)?;
                To::Repository(Spot { name: name.strip_prefix('/').unwrap_or(name), part, rest })
            }
        };
        Ok(Self { base, to })
    }
}

impl Spot<'_> {
    /// The name, where nobody but this registry is meant.
    pub(crate) fn own_name(&self) -> Result<Name, Failure> {
        self.name.parse().map_err(|e| Failure::Malformed(ErrorCode::NameInvalid, e))
    }
}

/// Which page of the catalogue is wanted.
pub(crate) fn catalog(method: &Method, query: &Query) -> Result<PageRequest, Failure> {
    read_only(method).and(page(query, MAX_NAMES))
}

impl Call {
    /// Reads a request for content of `spot`, where `name` is the repository that is meant.
    pub(crate) fn parse(
        method: &Method,
        spot: &Spot<'_>,
        name: Name,
        query: &Query,
    ) -> Result<Self, Failure> {
        let rest = spot.rest;
        match spot.part {
            Part::Tags => read_only(method).and(page(query, MAX_NAMES)).map(|page| Self::Tags { name, page }),
            Part::Referrers => referrers(method, name, rest, query),
            Part::Manifests => manifest(method, name, rest, query),
            Part::Blobs => match rest.strip_prefix("uploads") {
                Some("" | "/") => begin(method, name, query),
                Some(token) if token.starts_with('/') => upload(method, name, &token[1..], query),
                _ => blob(method, name, rest),
            },
        }
    }
}

impl Call {
    /// What it does to the repository.
    pub(crate) fn action(&self) -> Action {
        match self {
            Self::Tags { .. } => Action::List,
            Self::Referrers { .. } | Self::ReadManifest { .. } | Self::ReadBlob { .. } => Action::Pull,
            Self::PutManifest { .. }
            | Self::Begin { .. }
            | Self::UploadStatus { .. }
            | Self::Append { .. }
            | Self::Commit { .. }
            | Self::Cancel { .. } => Action::Push,
            Self::DeleteManifest { .. } | Self::DeleteBlob { .. } => Action::Delete,
        }
    }

    /// The manifest or the blob that it is about.
    pub(crate) fn reference(&self) -> Option<Reference> {
        match self {
            Self::ReadManifest { reference, .. }
            | Self::PutManifest { reference, .. }
            | Self::DeleteManifest { reference, .. } => Some(reference.clone()),
            Self::ReadBlob { digest, .. } | Self::DeleteBlob { digest, .. } => {
                Some(Reference::Digest(*digest))
            }
            Self::Referrers { subject, .. } => Some(Reference::Digest(*subject)),
            Self::Tags { .. }
            | Self::Begin { .. }
            | Self::UploadStatus { .. }
            | Self::Append { .. }
            | Self::Commit { .. }
            | Self::Cancel { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Tags,
    Referrers,
    Manifests,
    Blobs,
}

/// Splits a path into repository name, kind of content and the rest. A name may itself contain such words, so the
/// last one counts.
fn split(path: &str) -> Option<(&str, Part, &str)> {
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Some((name, Part::Tags, ""));
    }
    let parts =
        [("/referrers/", Part::Referrers), ("/manifests/", Part::Manifests), ("/blobs/", Part::Blobs)];
    let found = parts.into_iter().filter_map(|(word, part)| Some((path.rfind(word)?, word, part)));
    let (at, word, part) = found.max_by_key(|(at, ..)| *at)?;
    Some((&path[..at], part, &path[at + word.len()..]))
}

pub(crate) fn read_only(method: &Method) -> Result<(), Failure> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Failure::Method { allow: "GET, HEAD" }),
    }
}

fn page(query: &Query, most: usize) -> Result<PageRequest, Failure> {
    let limit = match query.get("n") {
        None => most,
        Some(n) => n.parse::<usize>().map_err(|_| Failure::PageSize)?.min(most),
    };
    Ok(PageRequest { after: query.get("last").map(Cursor::after), limit: Some(limit) })
}

fn digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(bad_digest)
}

fn bad_digest(malformed: Malformed) -> Failure {
    Failure::Malformed(ErrorCode::DigestInvalid, malformed)
}

fn tag(text: &str) -> Result<Tag, Failure> {
    text.parse().map_err(|e| Failure::Malformed(ErrorCode::TagInvalid, e))
}

fn referrers(method: &Method, name: Name, rest: &str, query: &Query) -> Result<Call, Failure> {
    read_only(method)?;
    Ok(Call::Referrers {
        name,
        subject: digest(&decode(rest))?,
        artifact_type: query.get("artifactType").map(str::to_owned),
        page: page(query, MAX_REFERRERS)?,
    })
}

fn manifest(method: &Method, name: Name, rest: &str, query: &Query) -> Result<Call, Failure> {
    let text = decode(rest);
    // What has a colon is a digest or nothing, never a tag.
    let code = if text.contains(':') { ErrorCode::DigestInvalid } else { ErrorCode::TagInvalid };
    let reference: Reference = text.parse().map_err(|e| Failure::Malformed(code, e))?;
    match *method {
        Method::GET | Method::HEAD => Ok(Call::ReadManifest { name, reference }),
        Method::PUT => {
            let tags = query.all("tag").map(tag).collect::<Result<Vec<_>, _>>()?;
            if tags.len() > MAX_TAGS {
                return Err(Failure::TooManyTags { most: MAX_TAGS });
            }
            Ok(Call::PutManifest { name, reference, tags })
        }
        Method::DELETE => Ok(Call::DeleteManifest { name, reference }),
        _ => Err(Failure::Method { allow: "GET, HEAD, PUT, DELETE" }),
    }
}

fn blob(method: &Method, name: Name, rest: &str) -> Result<Call, Failure> {
    let digest = digest(&decode(rest))?;
    match *method {
        Method::GET | Method::HEAD => Ok(Call::ReadBlob { name, digest }),
        Method::DELETE => Ok(Call::DeleteBlob { name, digest }),
        _ => Err(Failure::Method { allow: "GET, HEAD, DELETE" }),
    }
}

fn begin(method: &Method, name: Name, query: &Query) -> Result<Call, Failure> {
    if *method != Method::POST {
        return Err(Failure::Method { allow: "POST" });
    }
    let begin = match (query.get("mount"), query.get("digest")) {
        (Some(mount), _) => {
            let from = query.get("from").map(str::parse).transpose();
            let from = from.map_err(|e| Failure::Malformed(ErrorCode::NameInvalid, e))?;
            Begin::Mount { digest: digest(mount)?, from }
        }
        (None, Some(whole)) => Begin::Whole(digest(whole)?),
        (None, None) => Begin::Session,
    };
    Ok(Call::Begin { name, begin })
}

fn upload(method: &Method, name: Name, rest: &str, query: &Query) -> Result<Call, Failure> {
    let token = UploadToken::new(decode(rest));
    match *method {
        // A HEAD without the headers of an upload's status would serve nobody, so it is the same.
        Method::GET | Method::HEAD => Ok(Call::UploadStatus { name, token }),
        Method::PATCH => Ok(Call::Append { name, token }),
        Method::PUT => {
            let digest = query.get("digest").unwrap_or_default().parse().map_err(bad_digest)?;
            Ok(Call::Commit { name, token, digest })
        }
        Method::DELETE => Ok(Call::Cancel { name, token }),
        _ => Err(Failure::Method { allow: "GET, HEAD, PATCH, PUT, DELETE" }),
    }
}

#[cfg(test)]
mod tests;
