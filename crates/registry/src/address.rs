//! Which addresses a host that we learnt from the network may have.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ferry_store::{Error, Kind};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use crate::site::{Proxies, Site};

/// A range of addresses: `10.0.0.0/8`, `fd00::/8` or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u8| {
            let host = u32::from(width - self.bits);
            host >= 128 || ours >> host == theirs >> host
        };
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same(u128::from(ours.to_bits()), u128::from(theirs.to_bits()), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::new(Kind::Invalid, "read network", text, "it is ADDRESS or ADDRESS/BITS");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| bad())?;
        if bits > width {
            return Err(bad());
        }
        Ok(Self { address, bits })
    }
}

/// Addresses at which clouds give out credentials to whoever asks.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// A host that a registry refers to is where it must not be: the source of an error of [`Kind::Denied`].
#[derive(Debug, Clone)]
pub struct Refused {
    /// The host.
    pub host: String,
    /// Its address.
    pub address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it refers to {}, whose address {} is not public", self.host, self.address)
    }
}

impl std::error::Error for Refused {}

/// Resolves learnt hosts and refuses addresses that are not public; what it returns is what gets connected to.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    allow: Vec<Network>,
    fixed: HashMap<String, SocketAddr>,
    proxies: Proxies,
    /// Which proxy a URL goes to, if any.
    matcher: Arc<Matcher>,
}

impl Guard {
    pub(crate) fn new(site: &Site, fixed: &[(String, SocketAddr)]) -> Self {
        let (allow, proxies) = (site.allow_networks.clone(), site.proxies.clone());
        let matcher = Arc::new(proxies.matcher());
        Self { allow, fixed: fixed.iter().cloned().collect(), proxies, matcher }
    }

    /// Whether a proxy looks up the host of `url`, so that its address cannot be checked here.
    pub(crate) fn leaves_to_proxy(&self, url: &Url) -> bool {
        let proxy = url.as_str().parse().ok().and_then(|uri| self.matcher.intercept(&uri));
        proxy.is_some_and(|proxy| proxy.uri().scheme_str() != Some("socks5"))
    }

    /// Whether somebody configured a proxy of this name. Where it is, is their business.
    pub(crate) fn is_proxy(&self, host: &str) -> bool {
        let proxies = [&self.proxies.http, &self.proxies.https];
        proxies.into_iter().flatten().any(|proxy| proxy.url().host_str() == Some(host))
    }

    /// Whether a learnt host may have this address.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        if METADATA.contains(&address) {
            return false;
        }
        is_public(address) || self.allow.iter().any(|network| network.contains(address))
    }

    async fn lookup(&self, host: &str) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found: Vec<SocketAddr> = match self.fixed.get(host) {
            Some(address) => vec![*address],
            None => tokio::net::lookup_host((host, 0)).await?.collect(),
        };
        if self.is_proxy(host) {
            return Ok(found);
        }
        let refused = found.first().map(SocketAddr::ip);
        let good: Vec<SocketAddr> = found.into_iter().filter(|found| self.permits(found.ip())).collect();
        match refused {
            Some(address) if good.is_empty() => Err(Box::new(Refused { host: host.to_owned(), address })),
            _ => Ok(good),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let good = guard.lookup(name.as_str()).await?;
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// The IPv4 address inside an IPv6 address that only carries one: mapped, compatible, NAT64 (RFC 6052), 6to4.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let low = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => low(a, b),
        [0x2002, a, b, ..] => low(a, b),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let protocols = (a, b, c) == (192, 0, 0);
            let benchmarks = a == 198 && (b == 18 || b == 19);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || a == 0
                || a >= 224
                || shared
                || protocols
                || benchmarks)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let local_nat64 = v6.segments()[..3] == [0x64, 0xff9b, 1];
            let site_local = first & 0xffc0 == 0xfec0;
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || local_nat64
                || site_local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        let allow_networks = allow.iter().map(|text| text.parse().unwrap()).collect();
        Guard::new(&Site { allow_networks, ..Site::default() }, &[])
    }

    #[test]
    fn only_public_addresses_are_permitted() {
        let guard = guard(&[]);
        for good in ["1.1.1.1", "172.15.0.1", "100.63.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(guard.permits(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::101:101",
            "2002:a00:1::1",
        ] {
            assert!(!guard.permits(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn allowed_networks_are_permitted_but_metadata_never() {
        let guard =
            guard(&["10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "fd00::/8", "192.168.7.1", "0.0.0.0/0"]);
        for good in ["10.9.9.9", "::ffff:10.0.0.1", "fd00::1", "192.168.7.1"] {
            assert!(guard.permits(good.parse().unwrap()), "{good}");
        }
        for bad in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254"] {
            assert!(!guard.permits(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in ["", "10.0.0.0/33", "fd00::/129", "example.com", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert!(network.contains("10.1.255.1".parse().unwrap()));
        assert!(!network.contains("10.2.0.1".parse().unwrap()));
        assert!("::/0".parse::<Network>().unwrap().contains("::1".parse().unwrap()));
    }
}
