use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_serve::Trend;
use ferry_storage::{CheckOptions, CollectOptions, Depth, StorageOptions};

use super::content::bucket;
use super::operation::{AdminAt, Operation};
use super::{Access, Https, Mirror, Page, ServeLimits};
use crate::Environment;
use crate::cli::{CheckArguments, GcArguments, Output, ServeArguments, StatsArguments, StorageVerb};
use crate::config::Loaded;

/// What `ferry serve` shall do.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) storage: PathBuf,
    /// Where to listen if nobody has done so for us.
    pub(crate) listen: Vec<Listen>,
    pub(crate) options: StorageOptions,
    /// How often the storage is put in order.
    pub(crate) upkeep_every: Duration,
    /// What is mirrored, if anything is.
    pub(crate) mirror: Option<Mirror>,
    /// Who may use it, if that was said.
    pub(crate) access: Option<Access>,
    /// What clients may take.
    pub(crate) limits: ServeLimits,
    /// What is shown to people.
    pub(crate) page: Page,
    /// How HTTPS is spoken, if it is.
    pub(crate) https: Option<Https>,
    /// What is configured of that, with the certificates that the authority may have, as text: a change needs a restart.
    pub(crate) tls: String,
    /// How it is looked after.
    pub(crate) operation: Operation,
    /// Others may reach it.
    pub(crate) open: bool,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    /// HTTPS is spoken there.
    pub(crate) encrypted: bool,
}

/// Where to listen if nobody says.
const LISTEN: &str = "127.0.0.1:5000";

impl Serve {
    /// What is not typed is as configured.
    pub(crate) fn new(
        typed: ServeArguments,
        loaded: &Loaded,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let storage = directory(typed.storage, loaded)?;
        let mut options = storage_options(loaded);
        options.bucket = bucket(loaded, environment)?;
        options.size_limit = typed.size_limit.map(|limit| limit.as_u64()).or(options.size_limit);
        options.evict_hosted |= typed.evict_pushed;
        options.untagged_older_than = typed.untagged_older_than.or(options.untagged_older_than);
        let upkeep_every = configured.upkeep_every.map_or(UPKEEP_EVERY, |every| every.value.0);
        let open = typed.open || configured.open;
        let mirror = Mirror::new(loaded, typed.mirror)?;
        let access = Access::new(loaded, mirror.as_ref())?;
        let allowed = allowed(open, mirror.as_ref(), access.as_ref());
        let listen = listens(typed.listen.as_deref(), loaded, allowed)?;
        let operation = Operation::new(loaded, environment)?;
        apart(&listen, mirror.as_ref(), operation.admin.as_ref(), loaded)?;
        let plain = listen.iter().any(|listen| !listen.encrypted);
        let https = Https::new(loaded, mirror.as_ref(), environment, plain)?;
        let roots = https.as_ref().and_then(|https| Some(https.acme.as_ref()?.authority.roots.clone()));
        let (limits, page) = (ServeLimits::new(loaded), Page::new(loaded));
        Ok(Self {
            storage,
            listen,
            options,
            upkeep_every,
            mirror,
            access,
            limits,
            page,
            tls: format!("{} {roots:?}", serde_json::json!(configured.tls)),
            https,
            operation,
            open,
        })
    }

    /// Whether clients may be met at an address that was opened for us.
    ///
    /// # Errors
    /// If others can reach it and must not, or if it is that of an upstream.
    pub(crate) fn may_listen(&self, place: &str, address: SocketAddr) -> anyhow::Result<()> {
        let allowed = allowed(self.open, self.mirror.as_ref(), self.access.as_ref());
        reachable(address, (place, "write open: true"), allowed)?;
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.listening(address))
    }

    /// The page for people, if there shall be one.
    pub(crate) fn page(&self, figures: Arc<Trend>) -> Option<ferry_serve::Page> {
        let login = self.access.as_ref().is_some_and(|access| access.asks_everybody(self.mirror.as_ref()));
        self.page.of(self.mirror.as_ref(), figures, login)
    }

    /// Checks what is configured.
    pub(crate) fn check(loaded: &Loaded, environment: &Environment) -> anyhow::Result<()> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let mirror = Mirror::new(loaded, false)?;
        let operation = Operation::new(loaded, environment)?;
        bucket(loaded, environment)?;
        let access = Access::new(loaded, mirror.as_ref())?;
        let listen = listens(None, loaded, allowed(configured.open, mirror.as_ref(), access.as_ref()))?;
        apart(&listen, mirror.as_ref(), operation.admin.as_ref(), loaded)?;
        let plain = listen.iter().any(|listen| !listen.encrypted);
        Https::new(loaded, mirror.as_ref(), environment, plain).map(|_| ())
    }
}

/// Checks that no upstream and not the admin API is at an address where clients are met.
fn apart(
    listen: &[Listen],
    mirror: Option<&Mirror>,
    admin: Option<&AdminAt>,
    loaded: &Loaded,
) -> anyhow::Result<()> {
    if let Some(mirror) = mirror {
        listen.iter().try_for_each(|listen| mirror.listening(listen.address))?;
    }
    let taken = |at: SocketAddr| listen.iter().any(|one| one.address == at && at.port() != 0);
    match admin.filter(|admin| taken(admin.listen)) {
        Some(admin) => {
            bail!("{}: serve: admin: listen: the registry listens on {}", loaded.name(), admin.listen)
        }
        None => Ok(()),
    }
}

/// How often the storage is put in order if nobody says.
const UPKEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// The directory that holds the images.
fn directory(typed: Option<PathBuf>, loaded: &Loaded) -> anyhow::Result<PathBuf> {
    let configured = loaded.config.serve.as_ref().and_then(|serve| serve.storage.as_ref());
    let directory = typed.or_else(|| configured.map(|path| loaded.resolve(path)));
    directory
        .context("--storage DIR is needed, or serve: storage in the configuration: the directory that holds the images")
}

fn storage_options(loaded: &Loaded) -> StorageOptions {
    let configured = loaded.config.serve.clone().unwrap_or_default();
    let usual = StorageOptions::default();
    StorageOptions {
        unused_older_than: configured.unused_older_than.map(|age| age.value.0),
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
    pub(crate) fn new(
        typed: StorageVerb,
        loaded: &Loaded,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let mut options = storage_options(loaded);
        options.bucket = bucket(loaded, environment)?;
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

fn in_file(loaded: &Loaded, field: &str) -> String {
    format!("{}: serve: {field}:", loaded.name())
}

/// Whether others may reach the address, and if not, what they could do. Who configured access has decided who reads; to let
/// strangers write is more likely a mistake.
fn allowed(open: bool, mirror: Option<&Mirror>, access: Option<&Access>) -> Result<(), &'static str> {
    let writable = mirror.is_none_or(Mirror::takes_pushes);
    match access {
        _ if open => Ok(()),
        Some(access) if writable && access.lets_strangers_write() => Err("push or delete, as a rule says,"),
        Some(_) => Ok(()),
        None if writable => Err("push and delete"),
        None => Err("fetch images through the mirror"),
    }
}

/// Where to listen; others must not reach it unless that is `allowed`, because of what they could do.
fn listening(
    text: &str,
    (place, remedy): (&str, &str),
    allowed: Result<(), &str>,
) -> anyhow::Result<SocketAddr> {
    let listen: SocketAddr = text.parse().with_context(|| {
        format!("{place} {text}: write an address and a port, as in 127.0.0.1:5000 or [::1]:5000")
    })?;
    reachable(listen, (place, remedy), allowed)?;
    Ok(listen)
}

/// Refuses an address that others reach, unless that is `allowed`.
fn reachable(
    listen: SocketAddr,
    (place, remedy): (&str, &str),
    allowed: Result<(), &str>,
) -> anyhow::Result<()> {
    match allowed {
        Err(risk) if !listen.ip().is_loopback() => bail!(
            "{place} {listen}: others could reach this address, and {risk} without a password; {remedy} \
             if that is meant, or listen on 127.0.0.1"
        ),
        _ => Ok(()),
    }
}

/// All the places where to listen. HTTPS is spoken where its own addresses are, else everywhere.
fn listens(typed: Option<&str>, loaded: &Loaded, allowed: Result<(), &str>) -> anyhow::Result<Vec<Listen>> {
    const TYPED: (&str, &str) = ("--listen", "add --open");
    let configured = loaded.config.serve.as_ref();
    let (listen, tls) = match configured {
        Some(serve) => (&*serve.listen.0, serve.tls.as_ref()),
        None => (&[][..], None),
    };
    let own = tls.map_or(&[][..], |tls| &*tls.listen.0);
    let (in_serve, in_tls) = (in_file(loaded, "listen"), in_file(loaded, "tls: listen"));
    let first: Vec<(&str, (&str, &str))> = match typed {
        Some(typed) => vec![(typed, TYPED)],
        None if listen.is_empty() && own.is_empty() => vec![(LISTEN, TYPED)],
        None => listen.iter().map(|text| (&**text, (&*in_serve, "write open: true"))).collect(),
    };
    let encrypted = tls.is_some() && own.is_empty();
    let first = first.into_iter().map(|(text, place)| (text, place, encrypted));
    let own = own.iter().map(|text| (&**text, (&*in_tls, "write open: true"), true));
    let all = first.chain(own);
    all.map(|(text, place, encrypted)| Ok(Listen { address: listening(text, place, allowed)?, encrypted }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_let_in_only_when_asked() {
        let serve = |listen: &str, open: &[&str]| {
            let typed = [&["--storage", "d", "--listen", listen], open].concat();
            Serve::new(ServeArguments::typed(&typed), &Loaded::default(), &Environment::default())
        };
        let (closed, open): (&[&str], &[&str]) = (&[], &["--open"]);
        assert!(serve("127.0.0.1:0", closed).is_ok() && serve("[::1]:5000", closed).is_ok());
        assert!(serve("0.0.0.0:5000", closed).is_err() && serve("0.0.0.0:5000", open).is_ok());
        assert!(serve("localhost", open).is_err());
    }

    #[test]
    fn who_took_an_open_address_keeps_its_rules() {
        let serve = |access: &str| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ferry.yaml");
            std::fs::write(&path, format!("serve: {{storage: d, listen: '127.0.0.1:0', {access}}}\n"))
                .unwrap();
            let loaded = Loaded::find(Some(&path), &Environment::default()).unwrap();
            let serve = Serve::new(ServeArguments::typed(&[]), &loaded, &Environment::default()).unwrap();
            serve.may_listen("this server listens on", "0.0.0.0:5000".parse().unwrap())
        };
        assert!(serve("access: {rules: [{allow: read}]}").is_ok());
        for access in ["", "access: {rules: [{allow: push}]}", "mirror: {}"] {
            let refused = serve(access).unwrap_err().to_string();
            assert!(refused.contains("this server listens on 0.0.0.0:5000: others could reach"), "{refused}");
        }
    }

    #[test]
    fn https_is_spoken_at_its_own_addresses_or_everywhere() {
        let listens = |text: &str, typed: Option<&str>| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ferry.yaml");
            std::fs::write(&path, format!("serve: {text}\n")).unwrap();
            let loaded = Loaded::find(Some(&path), &Environment::default()).unwrap();
            let all = listens(typed, &loaded, Err("do harm")).map_err(|e| e.to_string())?;
            let text =
                |listen: &Listen| format!("{}{}", listen.address, if listen.encrypted { "s" } else { "" });
            Ok::<_, String>(all.iter().map(text).collect::<Vec<_>>().join(" "))
        };
        for (text, typed, expected) in [
            ("{}", None, "127.0.0.1:5000"),
            ("{listen: '127.0.0.1:80'}", None, "127.0.0.1:80"),
            ("{listen: ['127.0.0.1:80', '[::1]:80']}", None, "127.0.0.1:80 [::1]:80"),
            ("{listen: ['127.0.0.1:80', '[::1]:80']}", Some("127.0.0.1:9"), "127.0.0.1:9"),
            ("{tls: {}}", None, "127.0.0.1:5000s"),
            ("{listen: '127.0.0.1:443', tls: {}}", None, "127.0.0.1:443s"),
            ("{tls: {listen: '127.0.0.1:443'}}", None, "127.0.0.1:443s"),
            ("{listen: '127.0.0.1:80', tls: {listen: '127.0.0.1:443'}}", None, "127.0.0.1:80 127.0.0.1:443s"),
            ("{tls: {listen: '127.0.0.1:443'}}", Some("127.0.0.1:80"), "127.0.0.1:80 127.0.0.1:443s"),
        ] {
            assert_eq!(listens(text, typed).as_deref(), Ok(expected), "{text}");
        }
        let error = listens("{tls: {listen: '0.0.0.0:443'}}", None).unwrap_err();
        assert!(error.contains("serve: tls: listen: 0.0.0.0:443: others could reach"), "{error}");
    }

    #[test]
    fn another_authority_needs_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let [path, ca] = ["ferry.yaml", "ca.pem"].map(|name| directory.path().join(name));
        let acme = "{agree: true, names: [a.example.cn], ca: ca.pem}";
        std::fs::write(&path, format!("serve: {{storage: d, tls: {{acme: {acme}}}}}\n")).unwrap();
        let tls = |root: &str| {
            let certificate = "-----BEGIN CERTIFICATE-----";
            std::fs::write(&ca, format!("{certificate}\n{root}\n{certificate}\n")).unwrap();
            let loaded = Loaded::find(Some(&path), &Environment::default()).unwrap();
            Serve::new(ServeArguments::typed(&[]), &loaded, &Environment::default()).unwrap().tls
        };
        let before = tls("b25l");
        assert_eq!(tls("b25l"), before);
        assert_ne!(tls("dHdv"), before, "the file is another one under the same name");
    }

    #[test]
    fn addresses_that_are_taken_are_found_by_a_check() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        let environment: Environment = [("T".to_owned(), "t".repeat(32))].into_iter().collect();
        for (serve, says) in [
            (
                "admin: {listen: '127.0.0.1:5000', token: {env: T}}",
                "serve: admin: listen: the registry listens on",
            ),
            (
                "mirror: {upstreams: '127.0.0.1:5000'}",
                "127.0.0.1:5000 is this mirror, which would ask itself",
            ),
        ] {
            std::fs::write(&path, format!("serve: {{storage: d, {serve}}}\n")).unwrap();
            let loaded = Loaded::find(Some(&path), &environment).unwrap();
            for wrong in [
                Serve::check(&loaded, &environment).unwrap_err(),
                Serve::new(ServeArguments::typed(&[]), &loaded, &environment).unwrap_err(),
            ] {
                let wrong = format!("{wrong:#}");
                assert!(wrong.contains(says), "{wrong}");
            }
        }
    }
}
