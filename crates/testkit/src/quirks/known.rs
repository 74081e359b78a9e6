//! What is known of registries in particular. What is not known of one is as the specification says.

use super::{
    Challenge, Head, Link, Listings, Location, Manifests, MountAnswer, Mounts, Patches, Progress, Quirks,
    Stale, Tokens, TooMany, Uploads, Whole,
};

const MIB: u64 = 1024 * 1024;
/// The largest manifest that distribution and Harbor take.
const MANIFEST: usize = 4 * 1024 * 1024;

impl Quirks {
    /// The registries that [`Quirks::of`] knows.
    pub const NAMES: [&'static str; 20] = [
        "acr",
        "aliyun",
        "artifact-registry",
        "artifactory",
        "distribution",
        "distribution-2.8",
        "docker-hub",
        "ecr",
        "ecr-public",
        "elastic",
        "ghcr",
        "gitlab",
        "harbor",
        "huawei-swr",
        "nexus",
        "nvcr",
        "ollama",
        "quay",
        "tencent-ccr",
        "zot",
    ];

    /// All that is known of a registry by its name among [`Quirks::NAMES`].
    pub fn of(registry: &str) -> Option<Self> {
        Some(match registry {
            "acr" => acr(),
            "aliyun" | "tencent-ccr" => Self { depth: Some(2), tokens: asking(), ..Self::default() },
            "artifact-registry" => artifact_registry(),
            "artifactory" => artifactory(),
            "distribution" => distribution(),
            "distribution-2.8" => distribution_2_8(),
            "docker-hub" => docker_hub(),
            "ecr" => ecr(),
            "ecr-public" => ecr_public(),
            "elastic" => elastic(),
            "ghcr" => ghcr(),
            "gitlab" => Self { manifests: created(403), tokens: asking(), ..distribution_2_8() },
            "harbor" => harbor(),
            "huawei-swr" => Self { refuses_oci: true, tokens: asking(), ..Self::default() },
            "nexus" => nexus(),
            "nvcr" => Self { tokens: Tokens { strange_realm: true, ..asking() }, ..Self::default() },
            "ollama" => ollama(),
            "quay" => quay(),
            "zot" => zot(),
            _ => return None,
        })
    }
}

/// Everyone needs a token.
fn asking() -> Tokens {
    Tokens { asks: true, ..Tokens::default() }
}

/// Repositories are created before the first push.
fn created(status: u16) -> Manifests {
    Manifests { must_exist: Some(status), ..Manifests::default() }
}

fn acr() -> Quirks {
    Quirks {
        uploads: Uploads { whole: Whole::TooLargeAbove(20 * MIB), ..Uploads::default() },
        manifests: Manifests { limit: Some((MANIFEST, 413)), ..Manifests::default() },
        tokens: Tokens { metadata_read: true, post: Some(400), ..asking() },
        ..Quirks::default()
    }
}

fn artifact_registry() -> Quirks {
    Quirks {
        uploads: Uploads { patches: Patches::Once, location: Location::Absolute, ..Uploads::default() },
        mounts: Mounts { answer: MountAnswer::Upload, ..Mounts::default() },
        listings: Listings { unpaged: true, ..Listings::default() },
        tokens: Tokens { post: Some(404), ..asking() },
        ..Quirks::default()
    }
}

fn artifactory() -> Quirks {
    Quirks {
        uploads: Uploads { whole: Whole::Ignored, ..Uploads::default() },
        listings: Listings {
            picky: true,
            most: Some((100, TooMany::Cut)),
            link: Link::LostPrefix,
            ..Listings::default()
        },
        tokens: Tokens { post: Some(401), ..asking() },
        ..Quirks::default()
    }
}

fn distribution() -> Quirks {
    let most = Some((1000, TooMany::Status(400)));
    Quirks {
        uploads: Uploads { location: Location::Absolute, stale: Stale::Refused, ..Uploads::default() },
        manifests: Manifests {
            limit: Some((MANIFEST, 400)),
            strange_type: Some(400),
            ..Manifests::default()
        },
        listings: Listings { most, no_referrers: true, ..Listings::default() },
        tokens: Tokens { delete_to_cancel: true, ..Tokens::default() },
        ..Quirks::default()
    }
}

fn distribution_2_8() -> Quirks {
    let newer = distribution();
    Quirks {
        uploads: Uploads { stale: Stale::Cancels, ..newer.uploads },
        listings: Listings { unpaged: true, no_referrers: true, ..Listings::default() },
        ..newer
    }
}

fn docker_hub() -> Quirks {
    Quirks {
        mounts: Mounts { answer: MountAnswer::Upload, ..Mounts::default() },
        listings: Listings { no_referrers: true, ..Listings::default() },
        tokens: asking(),
        ..Quirks::default()
    }
}

fn ecr() -> Quirks {
    Quirks {
        uploads: Uploads {
            patch_created: true,
            progress: Progress::FirstChunk,
            min_chunk: Some(5 * MIB),
            max_chunk: Some(20 * MIB),
            ..Uploads::default()
        },
        mounts: Mounts { committed: true, ..Mounts::default() },
        manifests: Manifests { no_location: true, immutable: Some(400), ..created(404) },
        listings: Listings { most: Some((1000, TooMany::Status(405))), ..Listings::default() },
        ..Quirks::default()
    }
}

fn ecr_public() -> Quirks {
    let private = ecr();
    Quirks {
        uploads: Uploads { no_status: true, ..private.uploads },
        mounts: Mounts { answer: MountAnswer::Status(405), ..Mounts::default() },
        tokens: asking(),
        ..private
    }
}

fn elastic() -> Quirks {
    Quirks { tokens: Tokens { access_token: true, no_expiry: true, ..asking() }, ..Quirks::default() }
}

fn ghcr() -> Quirks {
    Quirks {
        uploads: Uploads { patches: Patches::Overwrite, ranged_limit: Some(4 * MIB), ..Uploads::default() },
        listings: Listings { null: true, by_age: true, no_referrers: true, ..Listings::default() },
        tokens: Tokens { placeholder: Some("repository:user/image:pull"), no_expiry: true, ..asking() },
        ..Quirks::default()
    }
}

fn harbor() -> Quirks {
    Quirks {
        mounts: Mounts { two_parts: true, ..Mounts::default() },
        manifests: Manifests { limit: Some((MANIFEST, 413)), immutable: Some(412), ..created(403) },
        listings: Listings { unsized_referrers: true, ..Listings::default() },
        tokens: Tokens { basic_after_token: true, ..asking() },
        ..Quirks::default()
    }
}

fn nexus() -> Quirks {
    Quirks {
        manifests: Manifests { head: Head::NoDigest, ..Manifests::default() },
        listings: Listings { link: Link::OtherPath, most: Some((100, TooMany::Cut)), ..Listings::default() },
        ..Quirks::default()
    }
}

fn ollama() -> Quirks {
    Quirks {
        manifests: Manifests { head: Head::Refused, plain_text: true, ..Manifests::default() },
        listings: Listings { absent: true, no_referrers: true, ..Listings::default() },
        ..Quirks::default()
    }
}

fn quay() -> Quirks {
    Quirks {
        uploads: Uploads { progress: Progress::Quay, ..Uploads::default() },
        manifests: Manifests { strange_type: Some(415), ..Manifests::default() },
        listings: Listings {
            most: Some((100, TooMany::Cut)),
            usual: Some(100),
            link: Link::Absolute,
            ..Listings::default()
        },
        tokens: asking(),
        ..Quirks::default()
    }
}

fn zot() -> Quirks {
    Quirks {
        uploads: Uploads { progress: Progress::Short, ..Uploads::default() },
        manifests: Manifests { strange_type: Some(415), ..Manifests::default() },
        listings: Listings { known_last: true, ..Listings::default() },
        tokens: Tokens { challenge: Challenge::LowerCase, open_ping: true, ..asking() },
        ..Quirks::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_quirks_and_no_other_has() {
        for name in Quirks::NAMES {
            assert_ne!(Quirks::of(name), Some(Quirks::default()), "{name}");
            assert!(Quirks::of(name).is_some(), "{name}");
        }
        assert!(Quirks::NAMES.is_sorted());
        assert_eq!(Quirks::of("nobody"), None);
    }
}
