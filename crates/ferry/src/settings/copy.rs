use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_oci::{ImageReference, Reference, Registry};
use ferry_policy::degrade::Degradations;
use ferry_policy::naming;
use ferry_policy::profile::{Choice, Profile};

use super::list::read_list;
use super::sides::of_sides;
use crate::Environment;
use crate::cli::{CopyArguments, ShownArguments};
use crate::config::{MirrorPlace, Registries};
use crate::credentials::OfSides;
use crate::endpoint::Endpoint;

/// What `ferry copy` shall do.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) recheck: bool,
    pub(crate) state_dir: StateDir,
    /// Bytes that unfinished blobs may take on disk; `None` leaves it to the free space.
    pub(crate) spool_limit: Option<u64>,
    /// How long the run may take.
    pub(crate) budget: Option<Duration>,
    pub(crate) jobs: usize,
    /// Bytes per second, each way.
    pub(crate) limit_rate: Option<u64>,
    pub(crate) mirrors: Vec<MirrorOf>,
    pub(crate) of_sides: OfSides,
    /// What is known of the targets, and what is changed in images for them.
    pub(crate) targets: HashMap<Registry, Fit>,
    pub(crate) shown: ShownArguments,
}

/// How a target is met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fit {
    pub(crate) profile: &'static Profile,
    pub(crate) degradations: Degradations,
}

/// A registry, and where its content is looked for before it is asked itself.
pub(crate) type MirrorOf = (Registry, MirrorPlace);

/// One image, from where and to where. The target's tag is decided except for a layout that was named alone.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) source: Endpoint,
    pub(crate) target: Endpoint,
}

/// Where what survives a run is kept.
#[derive(Debug)]
pub(crate) enum StateDir {
    /// The user said where: it must work.
    Given(PathBuf),
    /// The usual place: do without if it cannot be had.
    Usual(PathBuf),
    /// There is no usual place.
    Nowhere,
}

impl Copy {
    pub(crate) fn new(
        typed: CopyArguments,
        registries: &Registries,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let pairs = match (&typed.from_file, &typed.source, &typed.target) {
            (Some(list), ..) => read_list(list)?,
            (None, Some(source), Some(target)) => vec![pair(source, target)?],
            _ => bail!("SOURCE and TARGET are needed, or --from-file LIST"),
        };
        refuse_collisions(&pairs)?;
        let state_dir = match (typed.state_dir, environment.state_dir()) {
            (Some(given), _) => StateDir::Given(given),
            (None, Some(usual)) => StateDir::Usual(usual),
            (None, None) => StateDir::Nowhere,
        };
        let limit_rate = typed.limit_rate.map(|rate| rate.as_u64());
        if limit_rate.is_some_and(|rate| rate < LEAST_RATE) {
            bail!("--limit-rate: at least 1kB, or registries take the silence for a broken connection");
        }
        if typed.budget.is_some_and(|budget| budget.is_zero()) {
            bail!("--budget: some time is needed, as in 45m");
        }
        let mut mirrors =
            typed.mirrors.iter().map(|text| mirror(text)).collect::<anyhow::Result<Vec<_>>>()?;
        mirrors.extend(registries.mirrors.iter().cloned());
        let profile = typed.profile.as_deref().map(str::parse).transpose().context("--profile")?;
        let fits = fit(&pairs, |registry| {
            profile.or_else(|| registries.profiles.get(registry).copied()).unwrap_or_default()
        })?;
        let sources: Vec<&Endpoint> = pairs.iter().map(|pair| &pair.source).collect();
        let targets: Vec<&Endpoint> = pairs.iter().map(|pair| &pair.target).collect();
        let of_sides = of_sides(&sources, &targets, environment)?;
        Ok(Self {
            pairs,
            recheck: typed.recheck,
            state_dir,
            spool_limit: typed.spool_limit.map(|size| size.as_u64()),
            budget: typed.budget,
            jobs: usize::from(typed.jobs),
            limit_rate,
            mirrors,
            of_sides,
            targets: fits,
            shown: typed.shown,
        })
    }
}

/// Refuses names that their targets do not take, before anything moves, and tells what images become for targets.
fn fit(pairs: &[Pair], choice: impl Fn(&Registry) -> Choice) -> anyhow::Result<HashMap<Registry, Fit>> {
    let mut fits = HashMap::new();
    for Pair { source, target } in pairs {
        let Endpoint::Registry(image) = target else { continue };
        let choice = choice(&image.registry);
        let profile = choice.profile(&image.registry);
        if let Err(wrong) = profile.check_name(&image.repository) {
            bail!("{target}: {wrong}{}", fitting(profile, source, image));
        }
        let degradations = choice.degradations(&image.registry);
        fits.insert(image.registry.clone(), Fit { profile, degradations });
    }
    Ok(fits)
}

/// A name that would do.
fn fitting(profile: &Profile, source: &Endpoint, target: &ImageReference) -> String {
    let Endpoint::Registry(source) = source else { return String::new() };
    let namespace = target.repository.as_str().split_once('/').map(|(namespace, _)| namespace);
    let fitting = profile.fitting(source, namespace);
    fitting.map_or_else(String::new, |(preset, name)| {
        format!("; with the preset {preset} it would be {}/{name}", target.registry)
    })
}

/// The least that `--limit-rate` takes.
const LEAST_RATE: u64 = 1000;

fn mirror(text: &str) -> anyhow::Result<MirrorOf> {
    let bad = || {
        format!(
            "--mirror {text}: write REGISTRY=MIRROR or REGISTRY=MIRROR/PREFIX, as in docker.io=mirror.example.com"
        )
    };
    let (registry, place) = text.split_once('=').with_context(bad)?;
    let (registry, place): (Registry, MirrorPlace) =
        (registry.parse().with_context(bad)?, place.parse().with_context(bad)?);
    if registry == place.registry {
        bail!("--mirror {text}: a registry is no mirror of itself");
    }
    Ok((registry, place))
}

/// One pair as it was typed.
pub(super) fn pair(source: &str, target: &str) -> anyhow::Result<Pair> {
    let source: Endpoint = source.parse()?;
    let target: Endpoint = target.parse()?;
    if let Endpoint::Registry(image) = &target {
        naming::check_target(image)?;
    } else if target.digest().is_some() {
        bail!("{target}: a target has no digest; write oci:DIR or oci:DIR:TAG");
    }
    let carried = match &source {
        Endpoint::Registry(image) => Some(naming::source_tag(image)),
        layout => layout.tag().cloned().map(Reference::Tag).or_else(|| layout.reference()),
    };
    let target = match carried {
        Some(carried) => target.with_tag(naming::target_tag(&carried, target.tag())),
        None => target,
    };
    Ok(Pair { source, target })
}

/// Two images cannot arrive under one name.
fn refuse_collisions(pairs: &[Pair]) -> anyhow::Result<()> {
    let mut taken: HashMap<String, &Pair> = HashMap::new();
    for pair in pairs.iter().filter(|pair| pair.target.tag().is_some()) {
        if let Some(other) = taken.insert(pair.target.to_string(), pair)
            && other.source != pair.source
        {
            bail!(
                "{} and {} would both become {}; give one of them another name",
                other.source,
                pair.source,
                pair.target
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::settings::list::parse_list;

    #[test]
    fn mirrors_have_a_place_and_maybe_a_prefix() {
        let (registry, place) = mirror("docker.io=mirror.example.com:5000/hub/copy").unwrap();
        assert!(registry.is_docker_hub());
        assert_eq!(place.registry.as_str(), "mirror.example.com:5000");
        assert_eq!(place.prefix.unwrap().as_str(), "hub/copy");
        assert_eq!(mirror("quay.io=localhost:5000").unwrap().1.prefix, None);
        for bad in
            ["quay.io", "=x", "quay.io=", "quay.io=quay.io", "quay.io=a.example/UPPER", "quay.io=a.example/"]
        {
            assert!(mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_sources_cannot_share_a_target() {
        let same = parse_list("list", "a x/y:1\na x/y:1\n").unwrap();
        assert!(refuse_collisions(&same).is_ok());
        let different = parse_list("list", "a:1 x/y\nb:1 x/y\n").unwrap();
        assert!(refuse_collisions(&different).is_err());
    }

    #[test]
    fn names_that_are_too_deep_are_refused_with_one_that_fits() {
        let fit = |list: &str, choice: &str| {
            let choice: Choice = choice.parse().unwrap();
            super::fit(&parse_list("list", list).unwrap(), |_| choice).map(|fits| fits.len())
        };
        let ccr = "registry.k8s.io/coredns/coredns:v1 ccr.ccs.tencentyun.com/me/coredns/coredns";
        assert_eq!(
            fit(ccr, "auto").unwrap_err().to_string(),
            "ccr.ccs.tencentyun.com/me/coredns/coredns:v1: Tencent CCR takes NAMESPACE/NAME, and me/coredns/coredns \
             has 3 parts; with the preset dots it would be ccr.ccs.tencentyun.com/me/registry.k8s.io.coredns.coredns"
        );
        assert_eq!(fit(ccr, "generic").unwrap(), 1);
        assert_eq!(fit("a localhost:5000/a/b/c", "auto").unwrap(), 1);
        assert!(fit("a localhost:5000/a/b/c", "tencent-ccr").is_err());
        assert!(fit("oci:dir:v1 ccr.ccs.tencentyun.com/one", "strict").is_err());
    }
}
