//! Whether traces are wanted, and where.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::Environment;

/// Where a collector is if nobody says where.
const USUAL: &str = "http://localhost:4318";

/// How long a collector may take to answer if nobody says how long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the environment says of the way to a collector.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    /// Its host and port.
    pub(super) collector: String,
    /// How long it may take to answer.
    pub(super) timeout: Duration,
    /// A file with the authorities that its certificate may be from, instead of the system's.
    pub(super) certificate: Option<PathBuf>,
    /// What this server is called.
    pub(super) service: Option<String>,
}

impl Wanted {
    /// Nothing, unless the environment names a collector or says that traces go to one.
    ///
    /// # Errors
    /// If they are wanted in a way that is not possible; with the remedy.
    pub(super) fn of(environment: &Environment) -> Result<Option<Self>, String> {
        let endpoint = setting(environment, "ENDPOINT");
        if !is_wanted(environment, endpoint.is_some()) {
            return Ok(None);
        }
        if let Some((name, protocol)) = setting(environment, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(format!(
                "{name} is {protocol}, and ferry speaks http/protobuf only; set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to that and \
                 OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to where the collector takes it, usually http://HOST:4318/v1/traces"
            ));
        }
        let (name, url) = endpoint.unwrap_or((String::new(), USUAL.to_owned()));
        let collector = collector(&url).ok_or_else(|| {
            // It may hold a password, so that it is not shown.
            format!("{name} is no URL of HTTP; write http://HOST:4318 or https://HOST:4318")
        })?;
        let milliseconds = setting(environment, "TIMEOUT").and_then(|(_, text)| text.parse().ok());
        Ok(Some(Self {
            collector,
            timeout: milliseconds.map_or(TIMEOUT, Duration::from_millis),
            certificate: setting(environment, "CERTIFICATE").map(|(_, path)| PathBuf::from(path)),
            service: environment.variable("OTEL_SERVICE_NAME"),
        }))
    }
}

/// Whether anything is to be sent. Without a word about it, it is if there is a place where to.
fn is_wanted(environment: &Environment, has_endpoint: bool) -> bool {
    let disabled = environment.variable("OTEL_SDK_DISABLED");
    let exporters = environment.variable("OTEL_TRACES_EXPORTER");
    let by_otlp = |names: String| names.split(',').any(|name| name.trim() == "otlp");
    !disabled.is_some_and(|disabled| disabled.eq_ignore_ascii_case("true"))
        && exporters.map_or(has_endpoint, by_otlp)
}

/// What is said of traces, else of everything that is exported, and the variable that says it.
fn setting(environment: &Environment, name: &str) -> Option<(String, String)> {
    let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
    names.into_iter().find_map(|name| environment.variable(&name).map(|value| (name, value)))
}

/// Host and port of a URL.
fn collector(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let pairs = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Ok(Wanted::of(&pairs.collect())?.map(|wanted| wanted.collector))
    }

    #[test]
    fn traces_are_sent_to_whom_the_environment_names_and_to_nobody_else() {
        let at = |collector: &str| Ok(Some(collector.to_owned()));
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
        assert_eq!(wanted(&[]), Ok(None));
        assert_eq!(wanted(&[("OTEL_SERVICE_NAME", "x")]), Ok(None));
        assert_eq!(wanted(&[general]), at("all:4318"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://user:hunter2@of-traces/v1/traces");
        assert_eq!(wanted(&[general, own]), at("of-traces:443"));
        assert_eq!(wanted(&[("OTEL_TRACES_EXPORTER", "console, otlp")]), at("localhost:4318"));
        for off in [
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_SDK_DISABLED", "True"),
        ] {
            assert_eq!(wanted(&[general, off]), Ok(None), "{off:?}");
        }
        assert_eq!(wanted(&[general, ("OTEL_SDK_DISABLED", "false")]), at("all:4318"));
    }

    #[test]
    fn what_cannot_be_done_is_said_with_the_remedy() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
        let refused = wanted(&[general, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
        assert!(refused.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL is grpc, and ferry speaks http/protobuf"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        let both = [general, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), own];
        assert_eq!(wanted(&both), Ok(Some("all:4317".to_owned())));
        for wrong in ["all:4318", "user:hunter2@all:4318", "unix:///run/otel", "http://"] {
            let refused = wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", wrong)]).unwrap_err();
            assert!(refused.contains("OTEL_EXPORTER_OTLP_ENDPOINT is no URL of HTTP"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn what_is_said_of_traces_counts_before_what_is_said_of_all() {
        let pairs = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_SERVICE_NAME", "mirror"),
        ];
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let expected = Wanted {
            collector: "all:4318".to_owned(),
            timeout: Duration::from_millis(700),
            certificate: Some("ca.pem".into()),
            service: Some("mirror".to_owned()),
        };
        assert_eq!(Wanted::of(&environment), Ok(Some(expected)));
    }
}
