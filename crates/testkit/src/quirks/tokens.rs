//! How registries ask who is there.

/// How authorization goes; by default as distribution says (`docs/content/spec/auth`). What is asked for is said by
/// `FakeRegistry::require`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Everyone needs a token and everyone gets one, if nothing else is required: ghcr.io, docker.elastic.co, Harbor.
    pub asks: bool,
    /// The scope of every challenge is this: `repository:user/image:pull` at ghcr.io (linkerd/linkerd2#5959), `*` at
    /// Forgejo and Gitea (renovate, `datasource/docker/common.ts`).
    pub placeholder: Option<&'static str>,
    /// The token is called `access_token` and nothing else: docker.elastic.co.
    pub access_token: bool,
    /// Nothing is said of how long it lives: ghcr.io (oras-project/rust-oci-client, `src/token_cache.rs`).
    pub no_expiry: bool,
    /// The answer to a `POST` for a token: 404 in GCR, 401 in Artifactory, 400 in ACR (containerd,
    /// `core/remotes/docker/authorizer.go`), 405 elsewhere.
    pub post: Option<u16>,
    /// A token that is not good any more is answered with a realm that gives nothing: nvcr.io
    /// (NVIDIA/nvidia-container-toolkit#1945).
    pub strange_realm: bool,
    /// A token that does not suffice is answered with `Basic`: Harbor (`src/server/middleware/v2auth/auth.go`).
    pub basic_after_token: bool,
    /// Listing tags wants `metadata_read`: Azure Container Registry (goharbor/harbor, `azurecr/auth.go`).
    pub metadata_read: bool,
    /// Of several scopes the first is granted (google/go-containerregistry, `transport/bearer.go`).
    pub first_scope: bool,
    /// A token for something else is answered with 403: cgr.dev (clowdhaus/ocync, notes on Chainguard).
    pub forbids: bool,
    /// How challenges are written.
    pub challenge: Challenge,
    /// `/v2/` is open, with a challenge: zot (`pkg/api/authn.go`).
    pub open_ping: bool,
    /// Giving up an upload wants the action `delete`: distribution (`registry/handlers/app.go`).
    pub delete_to_cancel: bool,
}

/// How challenges are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Challenge {
    /// `Bearer realm="…"`.
    #[default]
    Usual,
    /// With `Basic` in the same line: Forgejo and Gitea (renovate, `datasource/docker/common.ts`).
    WithBasic,
    /// `bearer realm="…"`: zot (`pkg/api/authn.go`).
    LowerCase,
}
