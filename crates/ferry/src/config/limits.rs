//! What can be written about what clients may take.

use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Parsed, Size};

/// What clients may take. What is not written here is not limited.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// How fast blobs are sent to clients, and at most as fast they are taken from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) speed: Option<SpeedConfig>,
    /// How often one address may ask; beyond it the answer is 429. An IPv6 network of /64 counts as one address, here and
    /// below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<RequestsConfig>,
    /// How many connections there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<ConnectionsConfig>,
    /// What may be pulled in a day, from midnight to midnight UTC; beyond it the answer is 429, but what has begun is not
    /// cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) daily: Option<DailyConfig>,
}

/// How fast blobs are sent and taken.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SpeedConfig {
    /// All blobs of one address together: 20MB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_address: Option<Parsed<Rate>>,
    /// Every single blob: 5MB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_blob: Option<Parsed<Rate>>,
    /// All blobs of all clients together: 100MB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Parsed<Rate>>,
}

/// How often one address may ask.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestsConfig {
    /// So many requests a minute in the long run: 600.
    pub(crate) per_minute: NonZeroU32,
    /// So many at once by who has not asked for a while: as many as `per_minute` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<NonZeroU32>,
}

/// How many connections there may be.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConnectionsConfig {
    /// In all; further ones wait: 4096 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<NonZeroUsize>,
    /// From one address; further ones are closed. Leave it out behind a proxy or load balancer, where all connections come
    /// from its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_address: Option<NonZeroUsize>,
}

/// What may be pulled in a day.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DailyConfig {
    /// By one address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_address: Option<QuotaConfig>,
    /// By one user, wherever they are. Who has logged in is then not counted by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_user: Option<QuotaConfig>,
}

/// What may be pulled.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QuotaConfig {
    /// Bytes of blobs: 100GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Parsed<Size>>,
    /// Manifests: 1000. To pull an image of several platforms takes two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifests: Option<u64>,
}

/// Bytes a second as they are written: `500kB/s`, `10MB/s`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

impl Rate {
    /// The least that is taken, in bytes a second.
    pub(crate) const LEAST: u64 = 1000;
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size = text.strip_suffix("/s").unwrap_or(text).parse::<Size>();
        let rate = size.map_err(|_| "write a number and a unit, as in 500kB/s or 10MB/s")?.as_u64();
        if rate < Self::LEAST {
            return Err("at least 1kB/s, or clients take the silence for a broken connection");
        }
        Ok(Self(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_people_do() {
        for (text, rate) in [("10MB/s", 10_000_000), ("1MiB", 1 << 20), ("1 kB/s", 1000)] {
            assert_eq!(text.parse(), Ok(Rate(rate)), "{text}");
        }
        for text in ["", "fast", "10MB/h", "999B/s", "-1kB", "5000", "5000/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
