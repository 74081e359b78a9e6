//! From what is written about registries to what it means.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use ferry_oci::Registry;
use ferry_policy::profile::Choice;
use ferry_registry::{Habit, Proxies, ProxyUrl, Secret, Site, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Loaded;
use super::schema::{Account, MirrorPlace, RegistryConfig, TlsConfig, UploadConfig, Which};
use super::text::{Proxy, Source};
use crate::Environment;

/// How registries are reached, and with which accounts.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    /// For those that are not named.
    pub(crate) usual: Site,
    pub(crate) sites: HashMap<Registry, Site>,
    pub(crate) accounts: HashMap<Registry, Vec<Account>>,
    pub(crate) mirrors: Vec<(Registry, MirrorPlace)>,
    /// What these are as targets, whatever their hosts say.
    pub(crate) profiles: HashMap<Registry, Choice>,
}

impl Registries {
    /// Whether `registry` is spoken to in plain HTTP.
    pub(crate) fn is_plain_http(&self, registry: &Registry) -> bool {
        self.sites.get(registry).unwrap_or(&self.usual).is_plain_http(registry)
    }

    /// Reads every file that is named, so that what is wrong is said before anything begins.
    ///
    /// # Errors
    /// What is wrong, with the registry and the field.
    pub(crate) fn new(loaded: &Loaded, environment: &Environment) -> anyhow::Result<Self> {
        let mut registries = Self {
            usual: Site { proxies: of_environment(environment)?, ..Site::default() },
            ..Self::default()
        };
        let written = &loaded.config.registries;
        let others = written.iter().find(|(which, _)| which.value == Which::Others);
        if let Some((which, config)) = others {
            let within = || format!("{}: registries: \"{}\"", loaded.name(), which.text);
            if !config.accounts.is_empty() || !config.mirrors.is_empty() || config.profile.is_some() {
                bail!("{}: accounts, mirrors and profile belong to a registry that is named", within());
            }
            registries.usual = site(loaded, config, &registries.usual, environment).with_context(within)?;
        }
        for (which, config) in written {
            let Which::One(registry) = &which.value else { continue };
            let within = || format!("{}: registries: {}", loaded.name(), which.text);
            if registries.sites.contains_key(registry) {
                bail!(
                    "{}: another name of the same registry is configured as well; keep one of them",
                    within()
                );
            }
            let site = site(loaded, config, &registries.usual, environment).with_context(within)?;
            registries.sites.insert(registry.clone(), site);
            let accounts: Vec<Account> = config.accounts.iter().map(|one| account(loaded, one)).collect();
            if !accounts.is_empty() {
                registries.accounts.insert(registry.clone(), accounts);
            }
            if config.mirrors.iter().any(|mirror| mirror.value.registry == *registry) {
                bail!("{}: mirrors: a registry is no mirror of itself", within());
            }
            if let Some(profile) = &config.profile {
                registries.profiles.insert(registry.clone(), profile.value);
            }
            let mirrors = config.mirrors.iter().map(|mirror| (registry.clone(), mirror.value.clone()));
            registries.mirrors.extend(mirrors);
        }
        Ok(registries)
    }
}

/// What the variables say that curl and other programs follow, too. As there, the lower-case ones go first.
fn of_environment(environment: &Environment) -> anyhow::Result<Proxies> {
    let read = |name: &str| environment.variable(&name.to_lowercase()).or_else(|| environment.variable(name));
    let url = |name: &str| -> anyhow::Result<Option<ProxyUrl>> {
        let Some(text) = read(name).or_else(|| read("ALL_PROXY")) else { return Ok(None) };
        Ok(Some(text.parse().with_context(|| format!("the environment variable {name} or ALL_PROXY"))?))
    };
    Ok(Proxies {
        http: url("HTTP_PROXY")?,
        https: url("HTTPS_PROXY")?,
        except: read("NO_PROXY").unwrap_or_default(),
    })
}

/// What `config` does not say is as in `usual`.
fn site(
    loaded: &Loaded,
    config: &RegistryConfig,
    usual: &Site,
    environment: &Environment,
) -> anyhow::Result<Site> {
    let tls = match &config.tls {
        Some(tls) => read_tls(loaded, tls, &usual.tls).context("tls")?,
        None => usual.tls.clone(),
    };
    let proxies = match &config.proxy {
        None => usual.proxies.clone(),
        Some(Proxy::None) => Proxies { except: usual.proxies.except.clone(), ..Proxies::default() },
        Some(Proxy::Url(url)) => both(url.parse()?, &usual.proxies),
        Some(Proxy::From(source)) => {
            let url = fetch_now(loaded, source, environment).context("proxy")?;
            both(url.expose().parse().context("proxy")?, &usual.proxies)
        }
    };
    let mut allow_networks = usual.allow_networks.clone();
    allow_networks.extend(config.allow_networks.iter().map(|network| network.value));
    let habit = config.upload.as_ref().map(|upload| match upload {
        UploadConfig::Stream => Habit::Stream,
        UploadConfig::Whole => Habit::Whole,
        UploadConfig::Chunks(size) => Habit::Chunks(size.value.as_u64()),
    });
    if habit == Some(Habit::Chunks(0)) {
        bail!("upload: parts of some size are needed");
    }
    let plain_http = config.plain_http.or(usual.plain_http);
    Ok(Site { plain_http, tls, proxies, allow_networks, habit: habit.or(usual.habit) })
}

/// One proxy for everything but what the environment excepts from proxies.
fn both(proxy: ProxyUrl, usual: &Proxies) -> Proxies {
    Proxies { http: Some(proxy.clone()), https: Some(proxy), except: usual.except.clone() }
}

fn read_tls(loaded: &Loaded, config: &TlsConfig, usual: &Tls) -> anyhow::Result<Tls> {
    let read = |path: &Path| {
        let path = loaded.resolve(path);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut roots = usual.roots.clone();
    for path in &config.ca.0 {
        let pem = read(path).context("ca")?;
        certificates(&pem).with_context(|| format!("ca: {}", path.display()))?;
        roots.push(pem);
    }
    let identity = match (&config.certificate, &config.key) {
        (None, None) => usual.identity.clone(),
        (Some(certificate), Some(key)) => {
            let mut pem = read(key).context("key")?;
            let unreadable = || format!("key: {}: it is no private key in PEM", key.display());
            PrivateKeyDer::from_pem_slice(&pem).ok().with_context(unreadable)?;
            let own = read(certificate).context("certificate")?;
            certificates(&own).with_context(|| format!("certificate: {}", certificate.display()))?;
            pem.push(b'\n');
            pem.extend(own);
            Some(Secret::new(String::from_utf8(pem).ok().context("certificate and key are PEM files")?))
        }
        _ => bail!("certificate and key go together"),
    };
    let oldest = config.min_version.as_ref().map(|version| version.value.0).or(usual.oldest);
    Ok(Tls { roots, identity, oldest, accept_any: config.insecure.unwrap_or(usual.accept_any) })
}

/// Refuses what is no list of certificates.
fn certificates(pem: &[u8]) -> anyhow::Result<()> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => bail!("it holds no certificate in PEM"),
    }
}

/// The account, with the paths of files as they are from here.
fn account(loaded: &Loaded, account: &Account) -> Account {
    let resolved = |source: &Source| match source {
        Source::File(path) => Source::File(loaded.resolve(path)),
        other => other.clone(),
    };
    match account {
        Account::Password { username, password } => {
            Account::Password { username: username.clone(), password: resolved(password) }
        }
        Account::IdentityToken(token) => Account::IdentityToken(resolved(token)),
        other => other.clone(),
    }
}

/// A secret that is needed before anything begins, so only of places that can be read at once.
pub(crate) fn fetch_now(
    loaded: &Loaded,
    source: &Source,
    environment: &Environment,
) -> anyhow::Result<Secret> {
    let text = match source {
        Source::Env(name) => environment
            .variable(name)
            .with_context(|| format!("the environment variable {name} is not set"))?,
        Source::File(path) => {
            let path = loaded.resolve(path);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        }
        Source::Command(_) => bail!("this is not asked of a command; use env or file"),
    };
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}
