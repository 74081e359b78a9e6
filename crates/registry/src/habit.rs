//! How registries take large blobs, as far as that is known to differ.

use ferry_oci::Registry;

/// How a large blob is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// In one `PATCH` after another without `Content-Range`, each as long as bytes come, and a `PUT` that closes them.
    /// This is how docker and skopeo push everywhere, so every registry takes it; and it can be gone on with.
    Stream,
    /// In `PATCH`es of so many bytes with `Content-Range`. What the registry says it has is not believed: only what was
    /// confirmed counts.
    Chunks(u64),
    /// In one `PUT`, which cannot be gone on with.
    Whole,
}

/// The largest part that the quotas of ECR allow.
pub(crate) const ECR_PART: u64 = 10 << 20;

/// The habit of a registry by its name; of one that is not known to be special, [`Habit::Stream`].
pub(crate) fn habit_of(registry: &Registry) -> Habit {
    let host = registry.host();
    let ecr = host.contains(".dkr.ecr") || host.contains(".dkr-ecr");
    if host == "public.ecr.aws"
        || ecr && (host.ends_with(".amazonaws.com") || host.ends_with(".on.aws"))
        || ecr && host.ends_with(".amazonaws.com.cn")
    {
        // PATCH answers 201 with the Range of the first part, a status request may answer 404
        // (aws/containers-roadmap#2831, dotnet/sdk PR 33019).
        return Habit::Chunks(ECR_PART);
    }
    // ghcr.io: several PATCHes lose data. Google: no PATCH with Content-Range, and only one without was ever seen.
    let whole =
        host == "ghcr.io" || host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev");
    if whole { Habit::Whole } else { Habit::Stream }
}

/// From which size on a registry takes no blob in one `PUT`, by its name: bodies above some 20 MB are cut by Azure
/// (clowdhaus/ocync, notes on ACR).
pub(crate) fn whole_below(registry: &Registry) -> u64 {
    let host = registry.host();
    let azure = [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|zone| host.ends_with(zone));
    if azure { 16 << 20 } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        for (host, habit) in [
            ("docker.io", Habit::Stream),
            ("localhost:5000", Habit::Stream),
            ("ghcr.io", Habit::Whole),
            ("eu.gcr.io", Habit::Whole),
            ("notgcr.io", Habit::Stream),
            ("europe-docker.pkg.dev", Habit::Whole),
            ("public.ecr.aws", Habit::Chunks(ECR_PART)),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Habit::Chunks(ECR_PART)),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Habit::Chunks(ECR_PART)),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Habit::Chunks(ECR_PART)),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Habit::Chunks(ECR_PART)),
        ] {
            assert_eq!(habit_of(&host.parse().unwrap()), habit, "{host}");
        }
    }
    #[test]
    fn what_azure_cuts_is_not_sent_in_one_request() {
        for (host, below) in
            [("x.azurecr.io", 16 << 20), ("azurecr.io.example", u64::MAX), ("quay.io", u64::MAX)]
        {
            assert_eq!(whole_below(&host.parse().unwrap()), below, "{host}");
        }
    }
}
