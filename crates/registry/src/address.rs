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
        let plain =
            |bits: &str| bits.bytes().all(|b| b.is_ascii_digit()).then(|| bits.parse().ok()).flatten();
        match bits.map_or(Some(width), plain) {
            Some(bits) if bits <= width => Ok(Self { address, bits }),
            _ => Err(bad()),
        }
    }
}

/// Addresses at which clouds give out credentials, or what leads to them, to whoever asks. That of Azure looks public.
const METADATA: [IpAddr; 9] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// A host that a registry refers to is where it must not be: the source of an error of [`Kind::Misdirected`].
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
        if self.is_proxy(host) { Ok(found) } else { Ok(self.admit(host, found)?) }
    }

    /// Those of the addresses of a learnt host that may be connected to. Nobody looks them up again before that is done.
    fn admit(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let refused = found.first().map(SocketAddr::ip);
        let good: Vec<SocketAddr> = found.into_iter().filter(|found| self.permits(found.ip())).collect();
        match refused {
            Some(address) if good.is_empty() => Err(Refused { host: host.to_owned(), address }),
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

/// The IPv4 address inside an IPv6 address that only carries one: mapped, compatible, translated (RFC 7915), NAT64 (RFC
/// 6052), 6to4.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let low = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => low(a, b),
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
        // What is outside of 2000::/3 was never given to anybody for use in public.
        IpAddr::V6(v6) => match v6.segments() {
            // Protocols that carry or name other addresses, among them Teredo; documentation.
            [0x2001, 0..0x200 | 0xdb8, ..] => false,
            [0x3fff, 0..0x1000, ..] => false,
            [first, ..] => first & 0xe000 == 0x2000,
        },
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
            "::ffff:0:10.0.0.1",
            "64:ff9b:1::101:101",
            "2002:a00:1::1",
            "2001:0:1:2::3",
            "2001:db8::1",
            "100::1",
            "4000::1",
            "5f00::1",
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
        for bad in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "fd00:ec2::254",
            "100.100.100.200",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!guard.permits(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn of_many_addresses_only_those_that_may_be_are_connected_to() {
        let guard = guard(&[]);
        let found = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
        };
        let mixed = found(&["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1111", "169.254.169.254"]);
        assert_eq!(guard.admit("x", mixed).unwrap(), found(&["1.1.1.1", "2606:4700::1111"]));
        assert!(guard.admit("x", found(&["127.0.0.1", "fe80::1"])).is_err());
        assert!(guard.admit("x", Vec::new()).unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn an_address_is_judged_as_the_one_that_it_carries(bits: u32) {
            let guard = guard(&[]);
            let v4 = Ipv4Addr::from_bits(bits);
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, a, b),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
            ] {
                proptest::prop_assert_eq!(guard.permits(v6.into()), guard.permits(v4.into()), "{}", v6);
            }
        }

        #[test]
        fn networks_contain_their_addresses(text in "([0-9]{1,3}\\.){3}[0-9]{1,3}(/[0-9+]{1,3})?|[0-9a-f:]{2,20}(/[0-9]{1,3})?|\\PC*", bits: u128) {
            if let Ok(network) = text.parse::<Network>() {
                proptest::prop_assert!(network.contains(network.address) && !text.contains('+'));
                let other: IpAddr = match network.address {
                    IpAddr::V4(_) => Ipv6Addr::from_bits(bits).into(),
                    IpAddr::V6(_) => Ipv4Addr::from_bits(bits as u32).into(),
                };
                proptest::prop_assert!(!network.contains(other));
            }
        }

        #[test]
        fn a_network_is_its_first_bits(address: u32, bits in 0u8..=32, flipped in 0u32..32) {
            let network = Network { address: Ipv4Addr::from_bits(address).into(), bits };
            let other = Ipv4Addr::from_bits(address ^ (1 << flipped)).into();
            proptest::prop_assert_eq!(network.contains(other), 31 - flipped >= u32::from(bits));
        }
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in ["", "10.0.0.0/33", "fd00::/129", "example.com", "10.0.0.0/x", "10.0.0.0/+8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert!(network.contains("10.1.255.1".parse().unwrap()));
        assert!(!network.contains("10.2.0.1".parse().unwrap()));
        assert!("::/0".parse::<Network>().unwrap().contains("::1".parse().unwrap()));
    }
}
