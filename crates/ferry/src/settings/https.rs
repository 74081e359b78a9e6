//! How HTTPS is spoken.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_acme::{Authority, External, Hook, Way};
use ferry_policy::host::Host;
use ferry_serve::{Certificate, Pair};

use super::Mirror;
use crate::Environment;
use crate::config::{AcmeConfig, CertificateConfig, ChallengeName, HttpsConfig, Loaded, fetch_now};

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How long a record in the DNS takes if nobody says.
const SETTLE: Duration = Duration::from_secs(30);

/// How long a hook may run.
const HOOK_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How HTTPS is spoken.
#[derive(Debug)]
pub(crate) struct Https {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) acme: Option<Acme>,
    /// Clients that speak plain HTTP are sent to it.
    pub(crate) redirect: bool,
}

/// Certificates from an authority.
#[derive(Debug)]
pub(crate) struct Acme {
    pub(crate) authority: Authority,
    pub(crate) way: Way,
    /// The hosts of each certificate.
    pub(crate) wanted: Vec<Vec<String>>,
}

impl Https {
    /// What is configured; `plain` is whether there is a listener for plain HTTP too.
    ///
    /// # Errors
    /// What is wrong, with the field or the file.
    pub(crate) fn new(
        loaded: &Loaded,
        mirror: Option<&Mirror>,
        environment: &Environment,
        plain: bool,
    ) -> anyhow::Result<Option<Self>> {
        let Some(config) = loaded.config.serve.as_ref().and_then(|serve| serve.tls.as_ref()) else {
            return Ok(None);
        };
        let within = || format!("{}: serve: tls", loaded.name());
        Self::of(config, loaded, mirror, (environment, plain)).map(Some).with_context(within)
    }

    fn of(
        config: &HttpsConfig,
        loaded: &Loaded,
        mirror: Option<&Mirror>,
        (environment, plain): (&Environment, bool),
    ) -> anyhow::Result<Self> {
        if config.certificates.is_empty() && config.acme.is_none() {
            bail!("it needs `certificates` or `acme`");
        }
        if config.redirect && !plain {
            bail!(
                "redirect: nothing speaks plain HTTP here; write `listen` below tls for HTTPS and `serve.listen` for plain HTTP"
            );
        }
        let pairs =
            config.certificates.iter().map(|pair| read(pair, loaded)).collect::<anyhow::Result<_>>()?;
        let acme = config.acme.as_ref().map(|acme| Acme::of(acme, loaded, mirror, environment));
        let acme = acme.transpose().context("acme")?;
        if acme.as_ref().is_some_and(|acme| acme.way == Way::Http) && !plain {
            bail!(
                "acme: challenge: http-01 is asked over plain HTTP, which nothing speaks here; write `listen` below tls for HTTPS \
                 and `serve.listen` for plain HTTP, or take tls-alpn-01"
            );
        }
        Ok(Self { pairs, acme, redirect: config.redirect })
    }
}

/// Reads a pair as the server will, so that what is wrong is said before it starts.
fn read(pair: &CertificateConfig, loaded: &Loaded) -> anyhow::Result<Pair> {
    let pair = Pair { certificate: loaded.resolve(&pair.certificate), key: loaded.resolve(&pair.key) };
    let certificate = Certificate::read(&pair.certificate, &pair.key).context("certificates")?;
    if let Some(trouble) = certificate.trouble(std::time::SystemTime::now()) {
        note!("warning: {}: {trouble}", pair.certificate.display());
    }
    Ok(pair)
}

impl Acme {
    fn of(
        config: &AcmeConfig,
        loaded: &Loaded,
        mirror: Option<&Mirror>,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        if !config.agree {
            bail!(
                "agree: read the terms of service of the authority, and write agree: true if you agree to them"
            );
        }
        let way = way(config, loaded)?;
        let wanted = match config.names.0.is_empty() {
            true => of_mirror(mirror, &way),
            false => written(&config.names.0, &way)?,
        };
        if wanted.is_empty() {
            bail!(
                "names: write the hosts to get certificates for; without them those of serve.mirror.domain are taken"
            );
        }
        Ok(Self { authority: authority(config, loaded, environment)?, way, wanted })
    }
}

fn authority(config: &AcmeConfig, loaded: &Loaded, environment: &Environment) -> anyhow::Result<Authority> {
    let directory = config.directory.clone().unwrap_or_else(|| LETS_ENCRYPT.to_owned());
    let url = url::Url::parse(&directory).ok().filter(|url| url.scheme() == "https");
    url.with_context(|| format!("directory: {directory}: a URL that begins with https:// is needed"))?;
    let root = |path: &std::path::PathBuf| {
        let path = loaded.resolve(path);
        let pem = std::fs::read(&path).with_context(|| format!("ca: cannot read {}", path.display()))?;
        match String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            true => Ok(pem),
            false => bail!("ca: {}: there is no certificate in PEM form in it", path.display()),
        }
    };
    let roots = config.ca.0.iter().map(root).collect::<anyhow::Result<_>>()?;
    let contact = config.contact.0.iter().map(|address| match address.contains('@') {
        true => Ok(format!("mailto:{}", address.trim_start_matches("mailto:"))),
        false => bail!("contact: {address}: a mail address is needed"),
    });
    let external = config.external_account.as_ref().map(|account| {
        let key = fetch_now(loaded, &account.key, environment)?;
        let key = URL_SAFE_NO_PAD.decode(key.expose().trim_end_matches('=')).ok();
        let key = key.context("the key is not in base64url, the form in which authorities give it")?;
        anyhow::Ok(External { id: account.id.clone(), key })
    });
    let external = external.transpose().context("external_account")?;
    Ok(Authority { directory, roots, contact: contact.collect::<anyhow::Result<_>>()?, external })
}

fn way(config: &AcmeConfig, loaded: &Loaded) -> anyhow::Result<Way> {
    let challenge = config.challenge.unwrap_or(ChallengeName::Tls);
    match (challenge, config.hook.0.split_first()) {
        (ChallengeName::Dns, Some((program, arguments))) => Ok(Way::Dns(Hook {
            program: resolve(program, loaded),
            arguments: arguments.to_vec(),
            limit: HOOK_LIMIT,
            settle: config.settle.as_ref().map_or(SETTLE, |settle| settle.value.0),
        })),
        (ChallengeName::Dns, None) => bail!("hook: dns-01 needs the program that writes the records"),
        (_, Some(_)) => bail!("hook: only dns-01 has one; write challenge: dns-01"),
        (ChallengeName::Http, None) => Ok(Way::Http),
        (ChallengeName::Tls, None) => Ok(Way::Tls),
    }
}

/// A program that is named by a path is found as other files are; a bare name is looked for in PATH.
fn resolve(program: &str, loaded: &Loaded) -> String {
    match program.contains('/') {
        true => loaded.resolve(Path::new(program)).display().to_string(),
        false => program.to_owned(),
    }
}

/// The hosts under which the mirror is reached. A wildcard stands for those below its domain.
fn of_mirror(mirror: Option<&Mirror>, way: &Way) -> Vec<Vec<String>> {
    let Some(mirror) = mirror else { return Vec::new() };
    let domain = mirror.addressing.front().domain.as_ref().filter(|_| matches!(way, Way::Dns(_)));
    let mut wanted: Vec<Vec<String>> = Vec::new();
    if let Some(domain) = domain.filter(|domain| !domain.is_address()) {
        wanted.push(vec![domain.name().to_owned(), format!("*.{}", domain.name())]);
    }
    let covered = |name: &str| {
        let below = |domain: &Host| name.split_once('.').is_some_and(|(_, rest)| rest == domain.name());
        domain.is_some_and(|domain| name == domain.name() || below(domain))
    };
    for host in mirror.addressing.hosts() {
        let name = host.name();
        if !host.is_address() && !covered(name) && !wanted.iter().any(|one| one[0] == name) {
            wanted.push(vec![name.to_owned()]);
        }
    }
    wanted
}

/// The hosts as they are written.
fn written(names: &[String], way: &Way) -> anyhow::Result<Vec<Vec<String>>> {
    let mut wanted: Vec<Vec<String>> = Vec::new();
    for text in names {
        let wildcard = text.starts_with("*.");
        let host: Host = text.trim_start_matches("*.").parse().context("names")?;
        if host.is_address() || host.to_string() != host.name() || !host.name().contains('.') {
            bail!("names: {text}: a host name is needed, without a port");
        }
        if wildcard && !matches!(way, Way::Dns(_)) {
            bail!("names: {text}: a wildcard can only be had by challenge: dns-01");
        }
        let name = if wildcard { format!("*.{}", host.name()) } else { host.name().to_owned() };
        let own = |one: &Vec<String>| one.iter().any(|other| other.trim_start_matches("*.") == host.name());
        match wanted.iter_mut().find(|one| own(one)) {
            Some(one) if one.contains(&name) => bail!("names: {text}: it is listed twice"),
            Some(one) => one.push(name),
            None => wanted.push(vec![name]),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the text says of certificates by ACME, and of a mirror.
    fn acme(acme: &str, more: &str) -> anyhow::Result<Acme> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        let listen = "listen: '127.0.0.1:80'";
        let text = format!("serve:\n  {listen}\n  tls:\n    {listen}\n    acme: {acme}\n{more}");
        std::fs::write(&path, text).unwrap();
        let environment: Environment = [("HMAC".to_owned(), "c2VjcmV0".to_owned())].into_iter().collect();
        let loaded = Loaded::find(Some(&path), &environment)?;
        let mirror = Mirror::new(&loaded, false)?;
        let https = Https::new(&loaded, mirror.as_ref(), &environment, true)?.unwrap();
        Ok(https.acme.unwrap())
    }

    const MIRROR: &str = "  mirror:\n    domain: cr.example.cn\n    upstreams: [gcr.io, quay.io]\n    \
        aliases: {gcr.io: gcr, quay.io: [q.example.cn, quay, '10.0.0.1:5000']}\n    default_at: {hub.example.cn:8443: gcr.io}\n";

    #[test]
    fn every_host_of_the_mirror_has_a_certificate() {
        let alone = acme("{agree: true}", MIRROR).unwrap();
        let hosts =
            ["cr.example.cn", "gcr.cr.example.cn", "q.example.cn", "quay.cr.example.cn", "hub.example.cn"];
        assert_eq!(alone.wanted, hosts.map(|host| vec![host.to_owned()]));
        assert_eq!((alone.way, &*alone.authority.directory), (Way::Tls, LETS_ENCRYPT));
        let wild = acme("{agree: true, challenge: dns-01, hook: [./h, x], settle: 0s}", MIRROR).unwrap();
        let expected: [&[&str]; 3] =
            [&["cr.example.cn", "*.cr.example.cn"], &["q.example.cn"], &["hub.example.cn"]];
        assert_eq!(wild.wanted, expected);
        let Way::Dns(hook) = wild.way else { panic!("{:?}", wild.way) };
        assert!(hook.program.ends_with("/./h") && hook.program.starts_with('/'), "{}", hook.program);
        assert_eq!((&*hook.arguments, hook.settle), (&["x".to_owned()][..], Duration::ZERO));
    }

    #[test]
    fn hosts_and_accounts_can_be_written() {
        let text = "{agree: true, challenge: dns-01, hook: h, names: ['*.A.example.cn', b.example.cn, a.example.cn], \
            contact: me@example.cn, directory: 'https://acme.example.cn/d', external_account: {id: k, key: {env: HMAC}}}";
        let found = acme(text, "").unwrap();
        let expected: [&[&str]; 2] = [&["*.a.example.cn", "a.example.cn"], &["b.example.cn"]];
        assert_eq!(found.wanted, expected);
        assert_eq!(found.authority.contact, ["mailto:me@example.cn"]);
        let external = found.authority.external.unwrap();
        assert_eq!((&*external.id, &*external.key), ("k", &b"secret"[..]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("{}", "agree: read the terms of service"),
            ("{agree: true}", "names: write the hosts"),
            ("{agree: true, names: [a.cn], challenge: dns-01}", "hook: dns-01 needs the program"),
            ("{agree: true, names: [a.cn], hook: x}", "hook: only dns-01 has one"),
            ("{agree: true, names: ['*.a.cn']}", "*.a.cn: a wildcard can only be had by challenge: dns-01"),
            ("{agree: true, names: [a.cn, A.cn]}", "A.cn: it is listed twice"),
            ("{agree: true, names: ['a.cn:5000']}", "a.cn:5000: a host name is needed"),
            ("{agree: true, names: [10.0.0.1]}", "10.0.0.1: a host name is needed"),
            ("{agree: true, names: [a.cn], directory: 'http://x/'}", "a URL that begins with https://"),
            ("{agree: true, names: [a.cn], contact: me}", "contact: me: a mail address is needed"),
            ("{agree: true, names: [a.cn], ca: none.pem}", "ca: cannot read"),
            ("{agree: true, names: [a.cn], external_account: {id: k, key: {env: NONE}}}", "NONE is not set"),
        ] {
            let error = format!("{:#}", acme(text, "").unwrap_err());
            assert!(error.contains("serve: tls: acme: ") && error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_needs_plain_http_is_refused_without_it() {
        for (more, says) in [
            ("{}", "it needs `certificates` or `acme`"),
            ("{acme: {agree: true, names: [a.cn], challenge: http-01}}", "http-01 is asked over plain HTTP"),
            ("{redirect: true, acme: {agree: true, names: [a.cn]}}", "redirect: nothing speaks plain HTTP"),
        ] {
            let config: HttpsConfig = serde_saphyr::from_str(more).unwrap();
            let environment = Environment::default();
            let https = Https::of(&config, &Loaded::default(), None, (&environment, false));
            let error = format!("{:#}", https.unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
