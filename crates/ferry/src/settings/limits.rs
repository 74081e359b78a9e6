//! What clients may take of `ferry serve`.

use ferry_serve::{ClientLimits, Limits, Quota, RequestLimit, SpeedLimits};

use crate::config::{LimitsConfig, Loaded, QuotaConfig};

/// What clients may take, one by one and together.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServeLimits {
    /// `None` if nothing is limited that has to be counted.
    pub(crate) clients: Option<ClientLimits>,
    pub(crate) server: Limits,
}

impl ServeLimits {
    /// What is configured.
    pub(crate) fn new(loaded: &Loaded) -> Self {
        let configured = loaded.config.serve.as_ref().and_then(|serve| serve.limits.clone());
        Self::of(configured.unwrap_or_default())
    }

    /// Whether blobs have to go through this server, because their bytes are limited.
    pub(crate) fn measure_blobs(&self) -> bool {
        self.clients.is_some_and(|clients| clients.measure_blobs())
    }

    /// Whether something is different that is fixed while a server runs.
    pub(crate) fn server_differs(&self, other: &Self) -> bool {
        let fixed = |limits: &Limits| (limits.connections, limits.connections_per_address);
        fixed(&self.server) != fixed(&other.server)
    }

    fn of(config: LimitsConfig) -> Self {
        let clients = clients(&config);
        let connections = config.connections.unwrap_or_default();
        let usual = Limits::default();
        let server = Limits {
            connections: connections.total.map_or(usual.connections, |total| total.get()),
            connections_per_address: connections.per_address,
            ..usual
        };
        Self { clients: (clients != ClientLimits::default()).then_some(clients), server }
    }
}

fn clients(config: &LimitsConfig) -> ClientLimits {
    let speed = config.speed.clone().unwrap_or_default();
    let daily = config.daily.clone().unwrap_or_default();
    ClientLimits {
        speed: SpeedLimits {
            per_address: speed.per_address.map(|rate| rate.value.0),
            per_blob: speed.per_blob.map(|rate| rate.value.0),
            total: speed.total.map(|rate| rate.value.0),
        },
        requests: config.requests.as_ref().map(|requests| RequestLimit {
            per_minute: requests.per_minute,
            burst: requests.burst.unwrap_or(requests.per_minute),
        }),
        daily_per_address: quota(daily.per_address),
        daily_per_user: quota(daily.per_user),
    }
}

fn quota(config: Option<QuotaConfig>) -> Quota {
    let QuotaConfig { bytes, manifests } = config.unwrap_or_default();
    Quota { bytes: bytes.map(|bytes| bytes.value.as_u64()), manifests }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    fn limits(text: &str) -> anyhow::Result<ServeLimits> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        std::fs::write(&path, format!("serve:\n  limits: {text}\n")).unwrap();
        Loaded::find(Some(&path), &Environment::default()).map(|loaded| ServeLimits::new(&loaded))
    }

    #[test]
    fn limits_mean_what_is_written() {
        let written = "{speed: {total: 10MB/s}, requests: {per_minute: 60}, connections: {per_address: 8}, \
                       daily: {per_user: {bytes: 1GB, manifests: 9}}}";
        let ServeLimits { clients, server } = limits(written).unwrap();
        let clients = clients.unwrap();
        assert_eq!(clients.speed, SpeedLimits { total: Some(10_000_000), ..SpeedLimits::default() });
        assert_eq!(clients.requests.unwrap().burst.get(), 60);
        assert_eq!(clients.daily_per_user, Quota { bytes: Some(1_000_000_000), manifests: Some(9) });
        assert_eq!(clients.daily_per_address, Quota::default());
        assert_eq!(server.connections_per_address.unwrap().get(), 8);
        for (written, measured) in [
            ("{speed: {total: 10MB/s}}", true),
            ("{daily: {per_user: {bytes: 1GB}}}", true),
            ("{daily: {per_address: {bytes: 1GB}}}", true),
            ("{daily: {per_user: {manifests: 9}}, requests: {per_minute: 60}}", false),
            ("{}", false),
        ] {
            assert_eq!(limits(written).unwrap().measure_blobs(), measured, "{written}");
        }
        for wrong in ["{speed: {total: fast}}", "{speed: 1MB}", "{requests: {per_minute: 0}}", "{dayly: {}}"]
        {
            assert!(limits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_written_is_not_limited() {
        let limits = limits("{}").unwrap();
        assert!(limits.clients.is_none());
        assert_eq!((limits.server.connections, limits.server.connections_per_address), (4096, None));
    }
}
