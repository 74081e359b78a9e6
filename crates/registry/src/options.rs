use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferry_oci::Registry;

use crate::Site;

/// How a [`crate::Client`] behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// What the client calls itself.
    pub user_agent: String,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a peer may neither send nor take a byte before the request counts as stalled.
    pub idle_timeout: Duration,
    /// How often a request is tried in all before its error is reported; at least once.
    pub attempts: u32,
    /// From so long after the first attempt began on there is no other one; `None` if there always may be.
    pub persistence: Option<Duration>,
    /// The pause before the second attempt; each further one is twice as long.
    pub backoff: Duration,
    /// The longest pause that is our own choice.
    pub max_backoff: Duration,
    /// The longest pause that a peer may ask for; a longer one is reported as a rate limit.
    pub max_retry_after: Duration,
    /// How many calls, how many downloads and how many uploads run at a time per registry at most; how many do adapts to
    /// what the registry bears.
    pub connections_per_host: usize,
    /// Blobs of at least so many bytes are uploaded in a way that can be gone on with; smaller ones cost a request less.
    pub resumable_from: u64,
    /// How long a request that can be gone on with waits for further bytes before it is ended.
    pub upload_pause: Duration,
    /// How many bytes of blobs may come in a second, and how many may go, from and to all registries together.
    pub limit_rate: Option<u64>,
    /// Addresses of hosts that are not looked up; port 0 is the usual one.
    pub resolve: Vec<(String, SocketAddr)>,
    /// How registries are reached that are not among `sites`.
    pub usual: Site,
    /// How these registries are reached.
    pub sites: HashMap<Registry, Site>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("ferry/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            attempts: 5,
            persistence: None,
            backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(60),
            connections_per_host: 16,
            resumable_from: 32 << 20,
            upload_pause: Duration::from_secs(5),
            limit_rate: None,
            resolve: Vec::new(),
            usual: Site::default(),
            sites: HashMap::new(),
        }
    }
}
