//! Where content is kept.

use std::time::Duration;

use anyhow::{Context, bail};
use ferry_storage::{LinkOptions, S3Options, Style};

use crate::Environment;
use crate::config::{Loaded, S3Config, Source, StyleConfig, fetch_now};

/// How long a signed link holds if nobody says.
const EXPIRES: Duration = Duration::from_secs(15 * 60);

/// The longest that a signed link may hold,
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>.
const MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The clouds whose buckets stand in the host.
const CLOUDS: [&str; 4] = ["amazonaws.com", "aliyuncs.com", "myhuaweicloud.com", "myqcloud.com"];

/// The bucket that content is kept in, if it is.
///
/// # Errors
/// What is wrong, with the field.
pub(crate) fn bucket(loaded: &Loaded, environment: &Environment) -> anyhow::Result<Option<S3Options>> {
    let content = loaded.config.serve.as_ref().and_then(|serve| serve.content.as_ref());
    let Some(s3) = content.and_then(|content| content.s3.as_ref()) else { return Ok(None) };
    let within = || format!("{}: serve: content: s3", loaded.name());
    options(loaded, s3, environment).map(Some).with_context(within)
}

fn options(loaded: &Loaded, s3: &S3Config, environment: &Environment) -> anyhow::Result<S3Options> {
    if s3.bucket.is_empty() || s3.bucket.contains('/') {
        bail!("bucket: the name of a bucket is needed");
    }
    let secret = |field: &'static str, source: Option<&Source>, usual: &str| match source {
        Some(source) => Ok(fetch_now(loaded, source, environment).context(field)?.expose().to_owned()),
        None => environment.variable(usual).with_context(|| format!("{field} is needed, or {usual}")),
    };
    let access_key = secret("access_key", s3.access_key.as_ref(), "AWS_ACCESS_KEY_ID")?;
    let secret_key = secret("secret_key", s3.secret_key.as_ref(), "AWS_SECRET_ACCESS_KEY")?;
    let session_token = match &s3.session_token {
        Some(source) => Some(secret("session_token", Some(source), "")?),
        // That of the environment belongs to the key that is there.
        None => environment.variable("AWS_SESSION_TOKEN").filter(|_| s3.secret_key.is_none()),
    };
    let mut options = S3Options::new(&s3.bucket, access_key, secret_key);
    let region = || environment.variable("AWS_REGION").or_else(|| environment.variable("AWS_DEFAULT_REGION"));
    options.region = s3.region.clone().or_else(region).unwrap_or(options.region);
    options.endpoint.clone_from(&s3.endpoint);
    options.prefix = s3.prefix.clone().unwrap_or_default();
    options.style = style(s3);
    options.session_token = session_token;
    options.roots = roots(loaded, s3)?;
    options.plain_http = s3.plain_http;
    options.pending_limit = s3.pending_limit.as_ref().map(|limit| limit.value.as_u64());
    options.take_over = s3.take_over;
    options.links = links(s3)?;
    options.check().map_err(|error| anyhow::anyhow!("{}", error.detail()))?;
    Ok(options)
}

fn style(s3: &S3Config) -> Style {
    match (s3.style, &s3.endpoint) {
        (Some(StyleConfig::Path), _) => Style::Path,
        (Some(StyleConfig::VirtualHosted), _) | (None, None) => Style::VirtualHosted,
        (None, Some(endpoint)) => {
            let host = endpoint.trim_end_matches('/');
            let of_cloud = |cloud: &&str| host.ends_with(&format!(".{cloud}"));
            // AWS has a few endpoints in China under a domain of its own.
            let of_cloud = CLOUDS.iter().any(of_cloud) || host.ends_with(".amazonaws.com.cn");
            if of_cloud { Style::VirtualHosted } else { Style::Path }
        }
    }
}

fn roots(loaded: &Loaded, s3: &S3Config) -> anyhow::Result<Vec<Vec<u8>>> {
    let read = |path| {
        let path = loaded.resolve(path);
        std::fs::read(&path).with_context(|| format!("ca: cannot read {}", path.display()))
    };
    s3.ca.0.iter().map(|path| read(path)).collect()
}

fn links(s3: &S3Config) -> anyhow::Result<Option<LinkOptions>> {
    let Some(redirect) = &s3.redirect else { return Ok(None) };
    let expires = redirect.expires.as_ref().map_or(EXPIRES, |span| span.value.0);
    if expires > MOST || expires < Duration::from_secs(1) {
        bail!("redirect: expires: a signed link holds for 1s to 7d");
    }
    Ok(Some(LinkOptions { expires, endpoint: redirect.endpoint.clone() }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn bucket_of(text: &str, variables: &[(&str, &str)]) -> anyhow::Result<Option<S3Options>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        std::fs::write(&path, format!("serve:\n  content: {text}\n")).unwrap();
        std::fs::write(directory.path().join("key"), "from the file\n").unwrap();
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: Environment = environment.collect();
        let loaded = Loaded::find(Some(Path::new(&path)), &environment).unwrap();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        bucket(&loaded, &environment)
    }

    const KEYS: [(&str, &str); 3] =
        [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("AWS_SESSION_TOKEN", "t")];

    #[test]
    fn keys_come_from_where_they_are() {
        assert!(bucket_of("{}", &[]).unwrap().is_none());
        let ambient = bucket_of("{s3: {bucket: b}}", &KEYS).unwrap().unwrap();
        assert_eq!((&*ambient.access_key, &*ambient.secret_key), ("id", "hunter2"));
        assert_eq!((ambient.session_token.as_deref(), &*ambient.region), (Some("t"), "us-east-1"));
        assert!(!format!("{ambient:?}").contains("hunter2"));
        let own = "{s3: {bucket: b, access_key: {env: AWS_SESSION_TOKEN}, secret_key: {file: key}}}";
        let own = bucket_of(own, &KEYS).unwrap().unwrap();
        assert_eq!((&*own.access_key, &*own.secret_key), ("t", "from the file"));
        assert_eq!(own.session_token, None, "it belongs to another key");
    }

    #[test]
    fn the_style_is_that_of_the_cloud() {
        let style =
            |more: &str| bucket_of(&format!("{{s3: {{bucket: b{more}}}}}"), &KEYS).unwrap().unwrap().style;
        for virtual_hosted in [
            "",
            ", endpoint: https://oss-cn-hangzhou.aliyuncs.com",
            ", endpoint: https://obs.cn-north-4.myhuaweicloud.com/",
            ", endpoint: https://cos.ap-guangzhou.myqcloud.com",
            ", endpoint: https://s3.cn-north-1.amazonaws.com.cn",
            ", endpoint: https://minio.corp, style: virtual_hosted",
        ] {
            assert_eq!(style(virtual_hosted), Style::VirtualHosted, "{virtual_hosted}");
        }
        for path in [", endpoint: http://127.0.0.1:9000", ", endpoint: https://minio.corp", ", style: path"] {
            assert_eq!(style(path), Style::Path, "{path}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("{s3: {}}", "bucket: the name of a bucket is needed"),
            ("{s3: {bucket: b, endpoint: http://minio:9000}}", "plain_http: true"),
            ("{s3: {bucket: b, endpoint: minio:9000}}", "endpoint minio:9000"),
            ("{s3: {bucket: b, ca: none.pem}}", "ca: cannot read"),
            ("{s3: {bucket: b, redirect: {expires: 8d}}}", "1s to 7d"),
            ("{s3: {bucket: b, redirect: {endpoint: x}}}", "endpoint x"),
        ] {
            let error = format!("{:#}", bucket_of(text, &KEYS).unwrap_err());
            assert!(error.contains("serve: content: s3: ") && error.contains(says), "{text}: {error}");
        }
        let error = format!("{:#}", bucket_of("{s3: {bucket: b}}", &KEYS[..1]).unwrap_err());
        assert!(error.contains("secret_key is needed, or AWS_SECRET_ACCESS_KEY"), "{error}");
    }
}
