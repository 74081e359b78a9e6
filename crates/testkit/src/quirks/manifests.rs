//! How registries take and give manifests.

/// How manifests go; by default as the distribution specification says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manifests {
    /// The most bytes that are taken, and the answer to more: 4 MiB, with 400 `MANIFEST_INVALID` in distribution
    /// (`registry/handlers/manifests.go`) and 413 in Harbor (`src/server/registry/manifest.go`).
    pub limit: Option<(usize, u16)>,
    /// A tag that exists is refused, its own digest too: 400 `TAG_INVALID` in Amazon ECR with immutable tags, 412 in
    /// Harbor with an immutability rule (goharbor/harbor, `src/server/middleware/immutable`).
    pub immutable: Option<u16>,
    /// The answer to types other than those of images and indexes: 415 in Quay (`endpoints/v2/manifest.py`) and zot
    /// (`pkg/api/routes.go`), 400 in distribution.
    pub strange_type: Option<u16>,
    /// What `HEAD` says.
    pub head: Head,
    /// `Content-Type: text/plain` on everything: registry.ollama.ai (containers/skopeo#2395).
    pub plain_text: bool,
    /// No `Location` after a push: Amazon ECR (oras-project/rust-oci-client, `push_manifest_raw`).
    pub no_location: bool,
    /// The answer to a push into a repository that nobody created: 404 `NAME_UNKNOWN` in Amazon ECR, 403 `DENIED` in
    /// GitLab and Harbor without the project.
    pub must_exist: Option<u16>,
}

/// What `HEAD` of a manifest says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Head {
    /// All that `GET` says.
    #[default]
    Full,
    /// 405: registry.ollama.ai (ollama/ollama#6470).
    Refused,
    /// No `Content-Length`: the same at other times (oras-project/oras-go#882).
    NoLength,
    /// No `Docker-Content-Digest`: Nexus in 2017 (sonatype/nexus-public#209).
    NoDigest,
}
