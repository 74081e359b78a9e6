//! What was typed, turned into what it means. Everything is checked here, before anything is opened or bound.

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_oci::{ImageReference, Reference, Registry};
use ferry_policy::degrade::Degradations;
use ferry_policy::naming;
use ferry_policy::profile::{Choice, Profile};
use ferry_registry::{Credential, Secret};
use ferry_storage::{CheckOptions, CollectOptions, Depth, StorageOptions};

use crate::Environment;
use crate::cli::{
    CheckArguments, CopyArguments, DeleteArguments, GcArguments, InspectArguments, LoginArguments, Output,
    ServeArguments, StatsArguments, StorageVerb, TagsArguments,
};
use crate::config::{Loaded, MirrorPlace, Registries};
use crate::credentials::{LogIn, OfSides};
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

/// The accounts that the environment names. Each belongs to one registry, so that nobody else gets to see it.
fn of_sides(
    sources: &[&Endpoint],
    targets: &[&Endpoint],
    environment: &Environment,
) -> anyhow::Result<OfSides> {
    Ok(OfSides {
        source: of_side("FERRY_SOURCE", &registries_of(sources), environment)?,
        target: of_side("FERRY_TARGET", &registries_of(targets), environment)?,
    })
}

fn registries_of<'a>(endpoints: &[&'a Endpoint]) -> Vec<&'a Registry> {
    let mut registries: Vec<&Registry> = Vec::new();
    for endpoint in endpoints {
        if let Some(registry) = endpoint.registry()
            && !registries.contains(&registry)
        {
            registries.push(registry);
        }
    }
    registries
}

fn of_side(
    prefix: &str,
    registries: &[&Registry],
    environment: &Environment,
) -> anyhow::Result<Option<(Registry, Credential)>> {
    let (name, secret) = (format!("{prefix}_USERNAME"), format!("{prefix}_PASSWORD"));
    let (username, password) = match (environment.variable(&name), environment.variable(&secret)) {
        (None, None) => return Ok(None),
        (Some(username), Some(password)) => (username, password),
        (Some(_), None) => bail!("{name} is set and {secret} is not; set both or none"),
        (None, Some(_)) => bail!("{secret} is set and {name} is not; set both or none"),
    };
    match registries {
        [] => Ok(None),
        [one] => {
            let password = Secret::new(password.trim_end_matches(['\r', '\n']));
            Ok(Some(((*one).clone(), Credential::Password { username, password })))
        }
        [one, other, ..] => bail!(
            "{name} and {secret} are for one registry, and there are several: {one}, {other}; \
             log in to each (ferry login), or name accounts in the configuration"
        ),
    }
}

/// What `ferry inspect` shall show.
#[derive(Debug)]
pub(crate) struct Inspect {
    pub(crate) image: Endpoint,
    pub(crate) output: Output,
    pub(crate) referrers: bool,
    pub(crate) of_sides: OfSides,
}

impl Inspect {
    pub(crate) fn new(typed: InspectArguments, environment: &Environment) -> anyhow::Result<Self> {
        let image: Endpoint = typed.image.parse()?;
        let of_sides = of_sides(&[&image], &[], environment)?;
        Ok(Self { image, output: typed.output, referrers: !typed.no_referrers, of_sides })
    }
}

/// Which tags `ferry tags` shall list.
#[derive(Debug)]
pub(crate) struct Tags {
    pub(crate) repository: Endpoint,
    pub(crate) output: Output,
    pub(crate) of_sides: OfSides,
}

impl Tags {
    pub(crate) fn new(typed: TagsArguments, environment: &Environment) -> anyhow::Result<Self> {
        let repository: Endpoint = typed.repository.parse()?;
        if repository.tag().is_some() || repository.digest().is_some() {
            bail!("{repository}: a repository is needed, without tag and digest");
        }
        let of_sides = of_sides(&[&repository], &[], environment)?;
        Ok(Self { repository, output: typed.output, of_sides })
    }
}

/// What `ferry delete` shall take away.
#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) image: Endpoint,
    pub(crate) reference: Reference,
    pub(crate) yes: bool,
    pub(crate) output: Output,
    pub(crate) of_sides: OfSides,
}

impl Delete {
    pub(crate) fn new(typed: DeleteArguments, environment: &Environment) -> anyhow::Result<Self> {
        let image: Endpoint = typed.image.parse()?;
        // `latest` is nobody's intention here.
        let reference = match (image.tag(), image.digest()) {
            (Some(_), Some(_)) => {
                bail!("{image}: name the tag, which is then removed, or the digest, not both")
            }
            (Some(tag), None) => Reference::Tag(tag.clone()),
            (None, Some(digest)) => Reference::Digest(digest),
            (None, None) => bail!("{image}: write the tag or the digest that shall be removed"),
        };
        let of_sides = of_sides(&[], &[&image], environment)?;
        Ok(Self { image, reference, yes: typed.yes, output: typed.output, of_sides })
    }
}

/// A registry that was typed.
pub(crate) fn registry(text: &str) -> anyhow::Result<Registry> {
    // People paste what a browser shows.
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    Ok(host.trim_end_matches('/').parse()?)
}

/// What `ferry login` shall do.
pub(crate) fn log_in(typed: LoginArguments) -> anyhow::Result<LogIn> {
    let LoginArguments { registry: name, username, authfile: file, .. } = typed;
    if username.as_deref().is_some_and(|username| username.is_empty() || username.contains(':')) {
        bail!("--username: a user name is not empty and has no colon");
    }
    Ok(LogIn { registry: registry(&name)?, username, file })
}

fn read_list(path: &Path) -> anyhow::Result<Vec<Pair>> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the list from standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        (path.display().to_string(), text)
    };
    parse_list(&name, &text)
}

fn parse_list(name: &str, text: &str) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let place = || format!("{name}, line {number}");
        match words[..] {
            [] => {}
            [source, target] => pairs.push(pair(source, target).with_context(place)?),
            _ => bail!("{}: expected SOURCE TARGET, found {} words", place(), words.len()),
        }
    }
    if pairs.is_empty() {
        bail!("{name} lists no image; write SOURCE and TARGET on each line");
    }
    Ok(pairs)
}

fn pair(source: &str, target: &str) -> anyhow::Result<Pair> {
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

/// What `ferry serve` shall do.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) storage: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) options: StorageOptions,
    /// How often the storage is put in order.
    pub(crate) upkeep_every: Duration,
}

/// Where to listen if nobody says.
const LISTEN: &str = "127.0.0.1:5000";

impl Serve {
    /// What is not typed is as configured.
    pub(crate) fn new(typed: ServeArguments, loaded: &Loaded) -> anyhow::Result<Self> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let storage = directory(typed.storage, loaded)?;
        let mut options = storage_options(loaded);
        options.size_limit = typed.size_limit.map(|limit| limit.as_u64()).or(options.size_limit);
        options.evict_hosted |= typed.evict_pushed;
        options.untagged_older_than = typed.untagged_older_than.or(options.untagged_older_than);
        let upkeep_every = configured.upkeep_every.map_or(UPKEEP_EVERY, |every| every.value.0);
        let open = typed.open || configured.open;
        let listen = match (typed.listen, configured.listen) {
            (Some(listen), _) => listening(&listen, ("--listen", "add --open"), open)?,
            (None, Some(listen)) => listening(&listen, (&in_file(loaded), "write open: true"), open)?,
            (None, None) => listening(LISTEN, ("--listen", "add --open"), open)?,
        };
        Ok(Self { storage, listen, options, upkeep_every })
    }

    /// Checks what is configured.
    pub(crate) fn check(loaded: &Loaded) -> anyhow::Result<()> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let listen = configured.listen.as_deref().unwrap_or(LISTEN);
        listening(listen, (&in_file(loaded), "write open: true"), configured.open).map(|_| ())
    }
}

/// How often the storage is put in order if nobody says.
const UPKEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// The directory that holds the images.
fn directory(typed: Option<PathBuf>, loaded: &Loaded) -> anyhow::Result<PathBuf> {
    let configured = loaded.config.serve.as_ref().and_then(|serve| serve.storage.as_ref());
    let directory = typed.or_else(|| configured.map(|path| loaded.resolve(path)));
    directory.context("--storage DIR is needed: the directory that holds the images")
}

fn storage_options(loaded: &Loaded) -> StorageOptions {
    let configured = loaded.config.serve.clone().unwrap_or_default();
    let usual = StorageOptions::default();
    StorageOptions {
        size_limit: configured.size_limit.map(|limit| limit.value.as_u64()),
        evict_hosted: configured.evict_pushed,
        untagged_older_than: configured.untagged_older_than.map(|age| age.value.0),
        upload_expiry: configured.upload_expiry.map_or(usual.upload_expiry, |age| age.value.0),
        grace: configured.grace.map_or(usual.grace, |age| age.value.0),
        ..usual
    }
}

/// What `ferry storage` shall do, and where.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) storage: PathBuf,
    pub(crate) options: StorageOptions,
    pub(crate) output: Output,
    pub(crate) task: Task,
}

/// What is done to a storage.
#[derive(Debug)]
pub(crate) enum Task {
    Check(CheckOptions),
    Collect(CollectOptions),
    Count,
}

impl Upkeep {
    pub(crate) fn new(typed: StorageVerb, loaded: &Loaded) -> anyhow::Result<Self> {
        let mut options = storage_options(loaded);
        let (of, task) = match typed {
            StorageVerb::Check(CheckArguments { of, repair, quick }) => {
                let depth = if quick { Depth::Sizes } else { Depth::Digests };
                (of, Task::Check(CheckOptions { depth, repair }))
            }
            StorageVerb::Gc(GcArguments { of, untagged_older_than, grace }) => {
                let untagged_older_than = untagged_older_than.or(options.untagged_older_than);
                options.grace = grace.unwrap_or(options.grace);
                (of, Task::Collect(CollectOptions { grace, untagged_older_than, orphans: true }))
            }
            StorageVerb::Stats(StatsArguments { of }) => (of, Task::Count),
        };
        let storage = directory(of.storage, loaded)?;
        if !storage.is_dir() {
            bail!("{}: there is no such directory", storage.display());
        }
        Ok(Self { storage, options, output: of.output, task })
    }
}

fn in_file(loaded: &Loaded) -> String {
    format!("{}: serve: listen:", loaded.name())
}

fn listening(text: &str, (place, remedy): (&str, &str), open: bool) -> anyhow::Result<SocketAddr> {
    let listen: SocketAddr = text.parse().with_context(|| {
        format!("{place} {text}: write an address and a port, as in 127.0.0.1:5000 or [::1]:5000")
    })?;
    if !listen.ip().is_loopback() && !open {
        bail!(
            "{place} {listen}: others could reach this address, and push and delete without a password; \
             {remedy} if that is meant, or listen on 127.0.0.1"
        );
    }
    Ok(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(list: &str) -> Vec<String> {
        parse_list("list", list).unwrap().iter().map(|pair| pair.target.to_string()).collect()
    }

    #[test]
    fn the_tag_comes_along() {
        let list = "# a comment\n\nalpine:3 localhost:5000/alpine   # another\nalpine oci:dir\noci:dir localhost:5000/x\n\
                    oci:dir:v1 localhost:5000/x\nalpine:3 localhost:5000/y:z\n";
        assert_eq!(
            targets(list),
            [
                "localhost:5000/alpine:3",
                "oci:dir:latest",
                "localhost:5000/x",
                "localhost:5000/x:v1",
                "localhost:5000/y:z"
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (list, message) in [
            ("", "list lists no image"),
            ("a b\nc\n", "list, line 2: expected SOURCE TARGET, found 1 words"),
            ("a b c\n", "list, line 1: expected SOURCE TARGET, found 3 words"),
            ("\nquay.io/A c\n", "list, line 2"),
        ] {
            let error = parse_list("list", list).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
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

    #[test]
    fn accounts_of_the_environment_belong_to_one_registry() {
        let environment = |variables: &[(&str, &str)]| -> Environment {
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let both = environment(&[("FERRY_TARGET_USERNAME", "me"), ("FERRY_TARGET_PASSWORD", "hunter2\n")]);
        let one = parse_list("list", "a x.example.com/a\nquay.io/b x.example.com/b\n").unwrap();
        let of_sides = |pairs: &[Pair], environment: &Environment| {
            let sources: Vec<&Endpoint> = pairs.iter().map(|pair| &pair.source).collect();
            let targets: Vec<&Endpoint> = pairs.iter().map(|pair| &pair.target).collect();
            of_sides(&sources, &targets, environment)
        };
        let found = of_sides(&one, &both).unwrap();
        let (registry, credential) = found.target.unwrap();
        assert_eq!(registry.as_str(), "x.example.com");
        assert!(found.source.is_none());
        let password = Secret::new("hunter2");
        assert_eq!(credential, Credential::Password { username: "me".to_owned(), password });
        let two = parse_list("list", "a x.example.com/a\nb y.example.com/b\n").unwrap();
        assert!(of_sides(&two, &both).unwrap_err().to_string().contains("several"));
        assert!(of_sides(&parse_list("list", "a oci:dir").unwrap(), &both).unwrap().target.is_none());
        let half = environment(&[("FERRY_SOURCE_USERNAME", "me")]);
        assert!(of_sides(&one, &half).unwrap_err().to_string().starts_with("FERRY_SOURCE_USERNAME is set"));
    }

    #[test]
    fn others_are_let_in_only_when_asked() {
        let serve = |listen: &str, open| {
            let (storage, listen) = (Some("d".into()), Some(listen.to_owned()));
            let typed = ServeArguments {
                storage,
                listen,
                open,
                untagged_older_than: None,
                size_limit: None,
                evict_pushed: false,
            };
            Serve::new(typed, &Loaded::default())
        };
        assert!(serve("127.0.0.1:0", false).is_ok() && serve("[::1]:5000", false).is_ok());
        assert!(serve("0.0.0.0:5000", false).is_err() && serve("0.0.0.0:5000", true).is_ok());
        assert!(serve("localhost", true).is_err());
    }
}
