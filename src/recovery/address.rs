//! Allows connections to public IP addresses only, against server-side request forgery (SSRF).
//!
//! The URL comes from a provider's answer and is untrusted. It must not reach a private network or
//! a cloud metadata service, under any name or spelling. [`GuardedResolver`] is the resolver of the
//! download client, so the checked address is the one that is connected to, and DNS rebinding has
//! no effect: each lookup is checked. Literal addresses never reach a resolver; `link` checks them
//! with the same [`refuse`].
//!
//! IPv6 is a list of allowed ranges, IPv4 a list of refused ranges, both from the IANA
//! special-purpose registries of 2026.
//!
//! An address with the well-known NAT64 prefix (`64:ff9b::/96`, RFC 6052) is checked by its
//! embedded IPv4 address, because in a cluster with DNS64 a public name may have no other. The
//! local-use prefix (`64:ff9b:1::/48`, RFC 8215) is refused: the position of the IPv4 address
//! depends on the network, so it could hide a private one. IPv4-mapped, 6to4 and Teredo addresses
//! are refused too: no resolver needs them to reach a public name.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why connections to an address are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressRefusal {
    /// This machine: `127.0.0.0/8`, `::1`.
    Loopback,
    /// A private network: `10/8`, `172.16/12`, `192.168/16`, `fc00::/7`, `fec0::/10`.
    Private,
    /// This link only: `169.254/16`, `fe80::/10`.
    LinkLocal,
    /// A cloud's metadata or host service.
    Metadata,
    /// Carrier-grade NAT: `100.64/10`.
    SharedNat,
    /// Multicast or broadcast: `224/4`, `ff00::/8`, `255.255.255.255`.
    Multicast,
    /// Not an address of a host: `0/8`, `::`.
    Unspecified,
    /// For documentation only: `192.0.2/24`, `198.51.100/24`, `203.0.113/24`, `2001:db8::/32`,
    /// `3fff::/20`.
    Documentation,
    /// An IPv4 address inside an IPv6 address: mapped, compatible, local-use NAT64, 6to4, Teredo.
    Translated,
    /// Reserved for other uses: `240/4`, `192.0.0/24`, `198.18/15` and all IPv6 outside `2000::/3`.
    Reserved,
}

impl AddressRefusal {
    /// The stored word, as events and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback_address",
            Self::Private => "private_address",
            Self::LinkLocal => "link_local_address",
            Self::Metadata => "metadata_address",
            Self::SharedNat => "shared_nat_address",
            Self::Multicast => "multicast_address",
            Self::Unspecified => "unspecified_address",
            Self::Documentation => "documentation_address",
            Self::Translated => "translated_address",
            Self::Reserved => "reserved_address",
        }
    }
}

impl fmt::Display for AddressRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether loopback addresses are allowed. For the demo and tests only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// The default.
    #[default]
    Refused,
    /// `[recovery] allow_loopback = true`.
    Allowed,
}

/// Why `address` is refused; `None` if it is allowed.
pub fn refuse(address: IpAddr, loopback: Loopback) -> Option<AddressRefusal> {
    let refusal = match address {
        IpAddr::V4(address) => refuse_v4(address),
        IpAddr::V6(address) => refuse_v6(address),
    }?;
    match (refusal, loopback) {
        (AddressRefusal::Loopback, Loopback::Allowed) => None,
        (refusal, Loopback::Refused | Loopback::Allowed) => Some(refusal),
    }
}

/// Metadata services: AWS, Google and most others; AWS ECS; AWS EKS; Alibaba; Oracle; Azure's host
/// service, whose address is in a public range.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// AWS's metadata service, the pod identity service of EKS, Google's metadata service.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn refuse_v4(address: Ipv4Addr) -> Option<AddressRefusal> {
    use AddressRefusal as No;
    if METADATA_V4.contains(&address) {
        return Some(No::Metadata);
    }
    match address.octets() {
        [0, ..] => Some(No::Unspecified),
        [127, ..] => Some(No::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(No::Private),
        [169, 254, ..] => Some(No::LinkLocal),
        [100, 64..=127, ..] => Some(No::SharedNat),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(No::Documentation),
        [224..=239, ..] | [255, 255, 255, 255] => Some(No::Multicast),
        // Protocol assignments, the old 6to4 relay, benchmarking, and the rest of class E.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => Some(No::Reserved),
        _ => None,
    }
}

fn refuse_v6(address: Ipv6Addr) -> Option<AddressRefusal> {
    use AddressRefusal as No;
    if METADATA_V6.contains(&address) {
        return Some(No::Metadata);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(No::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(No::Loopback),
        // NAT64 with the well-known prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => refuse_nat64(high, low),
        // Compatible, mapped, translated (SIIT); NAT64 for local use; Teredo; 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, ..]
        | [0x2001, 0, ..]
        | [0x2002, ..] => Some(No::Translated),
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Some(No::Private),
        [0xfe80..=0xfebf, ..] => Some(No::LinkLocal),
        [0xff00..=0xffff, ..] => Some(No::Multicast),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(No::Documentation),
        // The other IETF protocol assignments, then the public range, then everything else.
        [0x2001, 0..=0x1ff, ..] => Some(No::Reserved),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(No::Reserved),
    }
}

/// Checks the IPv4 address that a NAT64 gateway translates to. A loopback address would be the
/// gateway itself, so [`Loopback::Allowed`] does not allow it.
fn refuse_nat64(high: u16, low: u16) -> Option<AddressRefusal> {
    let address = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    refuse_v4(address).map(|refusal| match refusal {
        AddressRefusal::Loopback => AddressRefusal::Translated,
        other => other,
    })
}

/// Resolves host names. The system's resolver, except in tests.
pub(super) trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`, in order of preference.
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// The system's resolver, with `/etc/hosts` and search domains.
#[derive(Debug)]
pub(super) struct SystemResolver;

impl Lookup for SystemResolver {
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// A resolver that returns allowed addresses only.
pub(super) struct GuardedResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) loopback: Loopback,
    /// The name of the egress proxy. Its addresses are not checked: the operator configured it, and
    /// it is usually in a private network.
    pub(super) proxy: Option<String>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let looked_up = self.lookup.lookup(name.as_str().to_owned());
        if self.proxy.as_deref() == Some(name.as_str()) {
            return Box::pin(async move {
                let addresses = looked_up.await?.into_iter().map(|address| SocketAddr::new(address, 0));
                Ok(Box::new(addresses) as Addrs)
            });
        }
        let loopback = self.loopback;
        Box::pin(async move { allowed(looked_up.await?, loopback) })
    }
}

/// All addresses of a name are refused.
#[derive(Debug)]
pub(super) struct RefusedAddress(pub(super) AddressRefusal);

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host name resolves to an address that is not allowed ({})", self.0)
    }
}

impl Error for RefusedAddress {}

/// The allowed addresses of `found`. If only some are allowed, those are used: a network with DNS64
/// may add a translated address to each public one.
fn allowed(found: Vec<IpAddr>, loopback: Loopback) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let mut refusal = None;
    let mut allowed = Vec::with_capacity(found.len());
    for address in found {
        match refuse(address, loopback) {
            None => allowed.push(SocketAddr::new(address, 0)),
            Some(why) => refusal = refusal.or(Some(why)),
        }
    }
    match (allowed.is_empty(), refusal) {
        (true, Some(why)) => Err(Box::new(RefusedAddress(why))),
        (true, None) => Err("the host name has no address".into()),
        (false, _) => Ok(Box::new(allowed.into_iter())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_refused_with_their_reason() {
        use AddressRefusal as No;
        let table = [
            ("0.0.0.0", No::Unspecified),
            ("0.1.2.3", No::Unspecified),
            ("10.0.0.1", No::Private),
            ("100.64.0.1", No::SharedNat),
            ("100.127.255.255", No::SharedNat),
            ("100.100.100.200", No::Metadata),
            ("127.0.0.1", No::Loopback),
            ("127.255.255.254", No::Loopback),
            ("168.63.129.16", No::Metadata),
            ("169.254.0.1", No::LinkLocal),
            ("169.254.169.254", No::Metadata),
            ("169.254.170.2", No::Metadata),
            ("172.16.0.1", No::Private),
            ("172.31.255.255", No::Private),
            ("192.0.0.1", No::Reserved),
            ("192.0.0.192", No::Metadata),
            ("192.0.2.1", No::Documentation),
            ("192.88.99.1", No::Reserved),
            ("192.168.1.1", No::Private),
            ("198.18.0.1", No::Reserved),
            ("198.51.100.7", No::Documentation),
            ("203.0.113.7", No::Documentation),
            ("224.0.0.1", No::Multicast),
            ("239.255.255.255", No::Multicast),
            ("240.0.0.1", No::Reserved),
            ("255.255.255.255", No::Multicast),
            ("::", No::Unspecified),
            ("::1", No::Loopback),
            ("::2", No::Translated),
            ("::127.0.0.1", No::Translated),
            ("::ffff:127.0.0.1", No::Translated),
            ("::ffff:8.8.8.8", No::Translated),
            ("::ffff:0:127.0.0.1", No::Translated),
            ("64:ff9b::10.0.0.1", No::Private),
            ("64:ff9b::100.64.0.1", No::SharedNat),
            ("64:ff9b::127.0.0.1", No::Translated),
            ("64:ff9b::169.254.169.254", No::Metadata),
            ("64:ff9b::168.63.129.16", No::Metadata),
            ("64:ff9b::192.168.1.1", No::Private),
            ("64:ff9b::224.0.0.1", No::Multicast),
            ("64:ff9b::", No::Unspecified),
            ("64:ff9b:0:0:0:1:101:101", No::Translated),
            ("64:ff9b:1::1.1.1.1", No::Translated),
            ("64:ff9b:1::a00:1", No::Translated),
            ("100::1", No::Reserved),
            ("2001::1", No::Translated),
            ("2001:2::1", No::Reserved),
            ("2001:20::1", No::Reserved),
            ("2001:db8::1", No::Documentation),
            ("2002:7f00:1::", No::Translated),
            ("3fff:fff::1", No::Documentation),
            ("4000::1", No::Reserved),
            ("5f00::1", No::Reserved),
            ("fc00::1", No::Private),
            ("fd00:ec2::254", No::Metadata),
            ("fd12:3456::1", No::Private),
            ("fe80::1", No::LinkLocal),
            ("fec0::1", No::Private),
            ("ff02::1", No::Multicast),
        ];
        for (address, reason) in table {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(refuse(parsed, Loopback::Refused), Some(reason), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_allowed_up_to_the_edges_of_refused_ranges() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "64:ff9b::1.1.1.1",
            "64:ff9b::9.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "3ffe::1",
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(refuse(parsed, Loopback::Refused), None, "{address}");
        }
    }

    #[test]
    fn allowing_loopback_allows_nothing_else() {
        for address in ["127.0.0.1", "127.8.8.8", "::1"] {
            assert_eq!(refuse(address.parse().unwrap(), Loopback::Allowed), None, "{address}");
        }
        for address in ["::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "0.0.0.0", "10.0.0.1", "::"] {
            assert!(refuse(address.parse().unwrap(), Loopback::Allowed).is_some(), "{address}");
        }
    }

    #[test]
    fn only_the_public_addresses_of_a_mixed_answer_are_used() {
        let answer = |addresses: &[&str]| addresses.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        let dialled: Vec<_> =
            allowed(answer(&["64:ff9b:1::101:101", "1.1.1.1"]), Loopback::Refused).unwrap().collect();
        assert_eq!(dialled, [SocketAddr::from(([1, 1, 1, 1], 0))]);

        // In a cluster with DNS64 a public name may have no other address.
        let dialled: Vec<_> = allowed(answer(&["64:ff9b::101:101"]), Loopback::Refused).unwrap().collect();
        assert_eq!(dialled, ["[64:ff9b::101:101]:0".parse().unwrap()]);

        let error = allowed(answer(&["10.0.0.1", "::1"]), Loopback::Refused).err().unwrap();
        assert_eq!(error.downcast_ref::<RefusedAddress>().unwrap().0, AddressRefusal::Private);
        assert!(allowed(Vec::new(), Loopback::Refused).is_err());
    }
}
