//! Manifests: distribution-spec, "Pulling manifests", "Pushing Manifests", "Deleting tags" and "Deleting Manifests".

use ferry_oci::{Algorithm, Descriptor, Digest, ErrorCode, Manifest, Name, Reference, Tag};
use ferry_store::{Removed, Repository, RepositoryMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::answer::{Answer, Headers, answer, created, has_already, header, not_modified, nothing};
use crate::body::{ResponseBody, empty, full};
use crate::error::{Failure, Thing};
use crate::request::RequestBody;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// The stored type is sent whatever `Accept` says: no registry converts, and a client can tell by the type.
pub(crate) async fn read(repository: &dyn Repository, reference: &Reference, parts: &Parts) -> Answer {
    if parts.method == Method::HEAD || parts.headers.contains_key(IF_NONE_MATCH) {
        let resolved = repository.resolve(reference).await.map_err(Failure::of(Thing::Manifest))?;
        if let Some(response) = without_body(&resolved.descriptor, parts) {
            return Ok(response);
        }
    }
    whole(repository, reference).await
}

/// The answer to who has the manifest already, or only wants to know of it.
pub(crate) fn without_body(found: &Descriptor, parts: &Parts) -> Option<Response<ResponseBody>> {
    if has_already(parts, &found.digest) {
        return Some(not_modified(&found.digest));
    }
    (parts.method == Method::HEAD).then(|| {
        answer(StatusCode::OK, empty())
            .named(&found.digest)
            .with(CONTENT_TYPE, &found.media_type)
            .with(CONTENT_LENGTH, found.size)
    })
}

/// The answer with the manifest, which also stands in its extensions.
pub(crate) async fn whole(repository: &dyn Repository, reference: &Reference) -> Answer {
    let manifest = repository.manifest(reference).await.map_err(Failure::of(Thing::Manifest))?;
    let mut response = answer(StatusCode::OK, full(manifest.bytes().clone()))
        .named(&manifest.digest())
        .with(CONTENT_TYPE, manifest.media_type());
    response.extensions_mut().insert(manifest);
    Ok(response)
}

/// A manifest that is pushed.
pub(crate) struct Push {
    pub(crate) name: Name,
    pub(crate) reference: Reference,
    /// Set as well, in a push by digest.
    pub(crate) tags: Vec<Tag>,
}

pub(crate) async fn put(
    repository: &dyn RepositoryMut,
    push: Push,
    parts: &Parts,
    body: &mut RequestBody,
) -> Answer {
    let bytes = body.manifest().await?;
    let algorithm = match &push.reference {
        Reference::Digest(digest) => digest.algorithm(),
        Reference::Tag(_) => Algorithm::Sha256,
    };
    let manifest = Manifest::parse_as(algorithm, header(parts, CONTENT_TYPE), bytes)
        .map_err(|e| Failure::Malformed(ErrorCode::ManifestInvalid, e))?;
    let tags = match push.reference {
        Reference::Digest(wanted) => {
            check(&manifest, wanted)?;
            push.tags
        }
        Reference::Tag(tag) => vec![tag],
    };
    let subject_indexed = store(repository, &manifest, &tags).await?;
    let mut response = created(&push.name, "manifests", &manifest.digest());
    if let Some(subject) = manifest.subject().filter(|_| subject_indexed) {
        response = response.with(OCI_SUBJECT, subject.digest);
    }
    for tag in &tags {
        if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
            response.headers_mut().append(OCI_TAG, value);
        }
    }
    Ok(response)
}

fn check(manifest: &Manifest, wanted: Digest) -> Result<(), Failure> {
    let actual = manifest.digest();
    if actual == wanted { Ok(()) } else { Err(Failure::OtherDigest { actual }) }
}

/// Stores the manifest under each tag, or under none.
async fn store(repository: &dyn RepositoryMut, manifest: &Manifest, tags: &[Tag]) -> Result<bool, Failure> {
    let put = async |tag| repository.put_manifest(manifest, tag).await.map_err(Failure::of(Thing::Manifest));
    let Some((first, others)) = tags.split_first() else {
        return Ok(put(None).await?.subject_indexed);
    };
    let stored = put(Some(first)).await?;
    for tag in others {
        put(Some(tag)).await?;
    }
    Ok(stored.subject_indexed)
}

pub(crate) async fn delete(repository: &dyn RepositoryMut, reference: &Reference) -> Answer {
    match repository.delete_manifest(reference).await.map_err(Failure::of(Thing::Manifest))? {
        Removed::Yes => Ok(nothing(StatusCode::ACCEPTED)),
        Removed::Unsupported => Err(Failure::Unsupported("delete this")),
    }
}
