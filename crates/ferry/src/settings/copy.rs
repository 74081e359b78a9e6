use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_oci::{ImageReference, Registry};
use ferry_policy::degrade::Degradations;
use ferry_policy::platforms::Selection;
use ferry_policy::profile::{Choice, Profile};

use super::aim::Aim;
use super::archives::Archives;
use super::list::read_list;
use super::platforms::Platforms;
use super::sides::of_sides;
use super::wish::Wish;
use crate::Environment;
use crate::cli::{CopyArguments, ShownArguments};
use crate::config::{MirrorPlace, Rate, Registries};
use crate::credentials::OfSides;
use crate::endpoint::Endpoint;

/// What `ferry copy` shall do.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) wishes: Vec<Wish>,
    aim: Option<Aim>,
    platforms: Platforms,
    all_tags: bool,
    pub(crate) dry_run: bool,
    /// How archives are written.
    pub(crate) archives: Archives,
    pub(crate) recheck: bool,
    /// Whether what belongs to images is copied with them.
    pub(crate) belongings: bool,
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
    pub(crate) shown: ShownArguments,
    profile: Option<Choice>,
    profiles: HashMap<Registry, Choice>,
}

/// What is to be copied, all of it checked.
#[derive(Debug)]
pub(crate) struct Pairs {
    pub(crate) pairs: Vec<Pair>,
    /// What is known of the targets, and what is changed in images for them.
    pub(crate) targets: HashMap<Registry, Fit>,
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
    /// Which platforms of it; `None` for all.
    pub(crate) platforms: Option<Selection>,
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

impl StateDir {
    fn new(given: Option<PathBuf>, environment: &Environment) -> Self {
        match (given, environment.state_dir()) {
            (Some(given), _) => Self::Given(given),
            (None, Some(usual)) => Self::Usual(usual),
            (None, None) => Self::Nowhere,
        }
    }
}

impl Copy {
    pub(crate) fn new(
        typed: CopyArguments,
        registries: &Registries,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let aim = Aim::new(typed.to.as_deref(), typed.naming.as_deref())?;
        let platforms = Platforms::new(typed.platforms, typed.platform_mode)?;
        platforms.check_naming(aim.as_ref().is_some_and(Aim::tells_platforms_apart))?;
        let archives = Archives::new(&typed.except, platforms.choices())?;
        let wishes = wishes(typed.from_file.as_deref(), &typed.images, aim.is_some())?;
        let limit_rate = typed.limit_rate.map(|rate| rate.as_u64());
        check_pace(limit_rate, typed.budget)?;
        let mut mirrors =
            typed.mirrors.iter().map(|text| mirror(text)).collect::<anyhow::Result<Vec<_>>>()?;
        mirrors.extend(registries.mirrors.iter().cloned());
        let profile = typed.profile.as_deref().map(str::parse).transpose().context("--profile")?;
        let sources = wishes.iter().filter_map(|wish| wish.source.registry());
        let targets = target_registries(&wishes, aim.as_ref());
        let of_sides = of_sides(sources, targets, environment)?;
        let settings = Self {
            wishes,
            aim,
            platforms,
            all_tags: typed.all_tags,
            dry_run: typed.dry_run,
            archives,
            recheck: typed.recheck,
            belongings: !typed.no_referrers,
            state_dir: StateDir::new(typed.state_dir, environment),
            spool_limit: typed.spool_limit.map(|size| size.as_u64()),
            budget: typed.budget,
            jobs: usize::from(typed.jobs),
            limit_rate,
            mirrors,
            of_sides,
            shown: typed.shown,
            profile,
            profiles: registries.profiles.clone(),
        };
        settings.check_known()?;
        settings.check_archives()?;
        Ok(settings)
    }

    /// Checks what does not depend on what a source holds, before anything is asked.
    fn check_known(&self) -> anyhow::Result<()> {
        let mut known = Vec::new();
        for wish in &self.wishes {
            if !self.is_about_all(wish)? {
                known.push(wish.clone());
            }
        }
        self.pairs(&known).map(drop)
    }

    /// `--except` is about archives that are written.
    fn check_archives(&self) -> anyhow::Result<()> {
        let written = self.wishes.iter().any(|wish| wish.target().is_some_and(Endpoint::is_archive));
        let aimed = self.aim.as_ref().is_some_and(Aim::is_archive);
        if !self.archives.except.is_empty() && !written && !aimed {
            bail!("--except is for archives; the target is none");
        }
        Ok(())
    }

    /// The registries that images go to.
    pub(crate) fn target_registries(&self) -> impl Iterator<Item = &Registry> {
        target_registries(&self.wishes, self.aim.as_ref())
    }

    /// Whether the wish is about all that its source holds.
    pub(crate) fn is_about_all(&self, wish: &Wish) -> anyhow::Result<bool> {
        wish.is_about_all(self.all_tags)
    }

    /// What the wishes, each about one image by now, come down to.
    ///
    /// # Errors
    /// Two images that would become one, or a name that its target does not take.
    pub(crate) fn pairs(&self, wishes: &[Wish]) -> anyhow::Result<Pairs> {
        let mut pairs = Vec::new();
        for wish in wishes {
            for platform in self.platforms.choices() {
                pairs.push(wish.pair(self.aim.as_ref(), platform)?);
            }
        }
        refuse_collisions(&pairs)?;
        let targets = fit(&pairs, |registry| {
            self.profile.or_else(|| self.profiles.get(registry).copied()).unwrap_or_default()
        })?;
        Ok(Pairs { pairs, targets })
    }
}

/// The images that were typed or listed; if they are `aimed`, none of them has a target of its own.
fn wishes(list: Option<&Path>, images: &[String], aimed: bool) -> anyhow::Result<Vec<Wish>> {
    match (list, images) {
        (Some(list), _) => read_list(list),
        (None, images) if aimed => images.iter().map(|image| Wish::new(image, None)).collect(),
        (None, [source, target]) => Ok(vec![Wish::new(source, Some(target))?]),
        (None, [one]) => {
            bail!("{one}: no target; write ferry copy {one} TARGET, or ferry copy --to PREFIX {one}")
        }
        (None, _) => bail!("several images need --to PREFIX, where all of them go"),
    }
}

/// Refuses what would leave no speed or no time.
fn check_pace(limit_rate: Option<u64>, budget: Option<Duration>) -> anyhow::Result<()> {
    if limit_rate.is_some_and(|rate| rate < Rate::LEAST) {
        bail!("--limit-rate: at least 1kB, or registries take the silence for a broken connection");
    }
    if budget.is_some_and(|budget| budget.is_zero()) {
        bail!("--budget: some time is needed, as in 45m");
    }
    Ok(())
}

fn target_registries<'a>(wishes: &'a [Wish], aim: Option<&'a Aim>) -> impl Iterator<Item = &'a Registry> {
    wishes.iter().filter_map(|wish| wish.target()?.registry()).chain(aim.and_then(Aim::registry))
}

/// Refuses names that their targets do not take, before anything moves, and tells what images become for targets.
fn fit(pairs: &[Pair], choice: impl Fn(&Registry) -> Choice) -> anyhow::Result<HashMap<Registry, Fit>> {
    let mut fits = HashMap::new();
    for Pair { source, target, .. } in pairs {
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

/// Two images cannot arrive under one name.
pub(crate) fn refuse_collisions(pairs: &[Pair]) -> anyhow::Result<()> {
    let mut taken: HashMap<String, &Pair> = HashMap::new();
    for pair in pairs.iter().filter(|pair| pair.target.tag().is_some()) {
        if let Some(other) = taken.insert(pair.target.to_string(), pair)
            && (&other.source, &other.platforms) != (&pair.source, &pair.platforms)
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

    fn pairs(list: &str) -> Vec<Pair> {
        let wishes = parse_list("list", list).unwrap();
        wishes.iter().map(|wish| wish.pair(None, &crate::settings::platforms::Choice::ALL).unwrap()).collect()
    }

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
        let same = pairs("a x/y:1\na x/y:1\n");
        assert!(refuse_collisions(&same).is_ok());
        let different = pairs("a:1 x/y\nb:1 x/y\n");
        assert!(refuse_collisions(&different).is_err());
    }

    #[test]
    fn names_that_are_too_deep_are_refused_with_one_that_fits() {
        let fit = |list: &str, choice: &str| {
            let choice: Choice = choice.parse().unwrap();
            super::fit(&pairs(list), |_| choice).map(|fits| fits.len())
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
