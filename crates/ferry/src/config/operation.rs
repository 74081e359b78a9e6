//! What can be written about looking after a server.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mirror::Term;
use super::text::{Parsed, Source};

/// The API for those who look after the server: figures, metrics, `ferry warm`, `ferry cache`. Without it there is none.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminConfig {
    /// The address and port to listen on, apart from that of the registry: 127.0.0.1:5001 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    /// What a client of it must show, at least 16 characters: Authorization: Bearer TOKEN.
    pub(crate) token: Source,
    /// Let anybody who reaches it read /metrics without the token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) open_metrics: bool,
}

/// A line for each request that was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessLogConfig {
    /// How a line is written: json by default.
    pub(crate) format: LogFormat,
    /// The file that lines are added to, which is opened anew on SIGHUP; standard error by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// An object of JSON.
    #[default]
    Json,
    /// Words, with `-` for what there is not.
    Text,
}

/// How the server ends when it is told to. A second signal ends it at once.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StopConfig {
    /// How long it still takes connections while /readyz says that it should get none: 0s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<Parsed<Term>>,
    /// How long requests under way may go on after that: 30s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace: Option<Parsed<Term>>,
}
