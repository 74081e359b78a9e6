//! How registries list tags and referrers.

/// How listings go; by default as the distribution specification says ("Listing Tags", "Listing Referrers").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listings {
    /// There is no list of tags: registry.ollama.ai (containers/skopeo#2395).
    pub absent: bool,
    /// `"tags": null` where there are none: ghcr.io past the last (oras-project/rust-oci-client, its tests of ghcr).
    pub null: bool,
    /// `n` and `last` are ignored: distribution 2.8 (`registry/handlers/tags.go` at v2.8.3).
    pub unpaged: bool,
    /// The most tags on a page, and what becomes of a larger `n`.
    pub most: Option<(usize, TooMany)>,
    /// So many tags are sent where nobody says `n`: 100 in Quay (`endpoints/v2/tag.py`).
    pub usual: Option<usize>,
    /// The order is that of age and none of names: ghcr.io (renovate, `datasource/docker/index.ts`). Here names backwards.
    pub by_age: bool,
    /// How the next page is named.
    pub link: Link,
    /// 406 if `Accept` names types of manifests: Artifactory (renovatebot/renovate PR 3124).
    pub picky: bool,
    /// 404 if `last` is no tag: zot (`pkg/api/routes.go`).
    pub known_last: bool,
    /// Each further page wants a token that is younger, with a challenge that names no scope: Pulp (as seen by users of
    /// renovate).
    pub fresh_token: bool,
    /// There is no referrers API: Docker Hub, ghcr.io, distribution (distribution/distribution#4828).
    pub no_referrers: bool,
    /// Referrers come without `Content-Length`: Harbor (oras-project/oras-go, `registry/remote/repository.go`).
    pub unsized_referrers: bool,
}

/// What becomes of an `n` that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// The page is cut to the most there may be: Quay, distribution since 3.1.1.
    Cut,
    /// This status: 405 in Amazon ECR above 1000 (google/go-containerregistry, `pkg/v1/remote/list.go`), 400
    /// `PAGINATION_NUMBER_INVALID` in distribution 3.1.0.
    Status(u16),
}

/// How the next page is named in `Link`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Link {
    /// By its path and query.
    #[default]
    Relative,
    /// By its URL: Quay.
    Absolute,
    /// By a path that lacks the first part of the name: Artifactory (RTFACT-18971; renovate, `getDockerApiTags`).
    LostPrefix,
    /// By a URL on a path that is not served here: Nexus (sonatype/nexus-public#1011).
    OtherPath,
    /// Not at all, as old servers do; who wants more asks on with `last`.
    Missing,
}
