//! How registries take blobs.

/// How uploads go; by default as the distribution specification says ("Pushing blobs").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploads {
    /// What further `PATCH`es do.
    pub patches: Patches,
    /// A `PATCH` with `Content-Range` of more bytes is answered with 416: 4 MiB at ghcr.io (ocx-sh/ocx PR 237).
    pub ranged_limit: Option<u64>,
    /// The least length of a chunk but the last, announced as `OCI-Chunk-Min-Length` (distribution-spec, "Pushing a blob
    /// in chunks"). A longer one that follows a shorter is answered with 416.
    pub min_chunk: Option<u64>,
    /// The most bytes of a chunk with `Content-Range`: the part size in the quotas of Amazon ECR
    /// (docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html). More is 400.
    pub max_chunk: Option<u64>,
    /// A `PATCH` is answered with 201: Amazon ECR (aws/containers-roadmap#2831).
    pub patch_created: bool,
    /// What `Range` says of the bytes that arrived.
    pub progress: Progress,
    /// The status of an upload is 404 although it lives: Amazon ECR Public (dotnet/sdk PR 33019).
    pub no_status: bool,
    /// What becomes of a `PUT` with all the bytes.
    pub whole: Whole,
    /// How `Location` is written.
    pub location: Location,
    /// What becomes of requests to a `Location` that is not the newest.
    pub stale: Stale,
}

/// What a second `PATCH` of an upload does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Patches {
    /// It appends.
    #[default]
    Append,
    /// It replaces what the first has brought: ghcr.io (clowdhaus/ocync, notes on ghcr).
    Overwrite,
    /// It is refused, as is any with `Content-Range`: Artifact Registry takes no chunks
    /// (cloud.google.com/artifact-registry/docs/reference/docker-api, "does not support chunked uploads").
    Once,
}

/// What `Range` says of an upload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Progress {
    /// The last byte that arrived; `0-0` as well if there is none (distribution, `registry/handlers/blobupload.go`).
    #[default]
    Exact,
    /// `bytes=0--1` of a new upload; in a status, which names no `Location`, `bytes=0-` and the count where the last byte
    /// belongs: Quay (quay/quay, `endpoints/v2/blob.py`).
    Quay,
    /// The end of the first chunk for ever: Amazon ECR (aws/containers-roadmap#2831).
    FirstChunk,
    /// One byte too few: zot in 2025 (regclient/regclient#961).
    Short,
}

/// What becomes of a `PUT` with all the bytes of a blob.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whole {
    /// It is taken.
    #[default]
    Taken,
    /// Its body is not looked at, so that the digest does not fit: Artifactory before it took these (RTFACT-19344,
    /// containerd/containerd#3533).
    Ignored,
    /// It is refused with this status, as other registries without it do (pulp/pulp_container PR 1274).
    Refused(u16),
    /// 413 to more bytes: Azure Container Registry beyond some 20 MB (clowdhaus/ocync, notes on ACR).
    TooLargeAbove(u64),
    /// The connection is reset after so many bytes: the other thing seen there.
    ResetAfter(u64),
}

/// How the place where an upload goes on is written (distribution-spec, "Pushing a blob monolithically").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Location {
    /// As a path with a query that must come back as it is.
    #[default]
    Relative,
    /// As a URL with such a query: distribution without `http.relativeurls`.
    Absolute,
}

/// What becomes of a request to a `Location` that is not the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stale {
    /// It is taken like any other.
    #[default]
    Taken,
    /// 404, and the upload is cancelled: distribution 2.8 compares the offset in `_state` with what it has, in a status
    /// request too (`registry/handlers/blobupload.go` at v2.8.3).
    Cancels,
    /// 416 to content, while the status is told: distribution 3 (the same file on main).
    Refused,
}

/// How a blob comes from another repository (distribution-spec, "Mounting a blob").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mounts {
    /// What the question is answered with, if not with the blob.
    pub answer: MountAnswer,
    /// 400 if `from` has one part only: Harbor (goharbor/harbor#22078).
    pub two_parts: bool,
    /// Only blobs that a manifest of the other repository names: Amazon ECR (its user guide, "Blob mounting").
    pub committed: bool,
}

/// What a registry answers to the question for a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountAnswer {
    /// The blob, where it has it.
    #[default]
    Blob,
    /// An upload: Artifact Registry, Docker Hub across accounts.
    Upload,
    /// This error: registries that do not conform, for which go-containerregistry asks again without a mount
    /// (`pkg/v1/remote/write.go`).
    Status(u16),
}
