//! Address policy: which IP addresses a fetch may connect to. Protects against server-side request forgery.
//!
//! **Invariant**: an address counts as public only if it is known to belong to the public network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a fetch may connect to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressPolicy {
    /// Only addresses of the public network. Used for the publishers' own URLs.
    Public,
    /// Every address. Used for a URL that an operator configured.
    Any,
}

/// Returns true if an address belongs to the public network: it is not loopback, private, link-local or reserved.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    // 100.64.0.0/10 (carrier-grade NAT), 192.0.0.0/24 (IETF protocol assignments) and 198.18.0.0/15 (benchmarks).
    let is_shared = a == 100 && b & 0xC0 == 64;
    let is_protocol = (a, b, c) == (192, 0, 0);
    let is_benchmark = a == 198 && b & 0xFE == 18;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_benchmark
        || a == 0
        // Multicast, reserved and broadcast addresses.
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let parts = address.segments();
    // 2000::/3 is the range of global unicast addresses. Tunnels to IPv4 addresses and documentation addresses in this
    // range are not public.
    parts[0] & 0xE000 == 0x2000
        && parts[0] != 0x2002
        && !(parts[0] == 0x2001 && (parts[1] < 0x0200 || parts[1] == 0x0DB8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_reserved_addresses_are_not_public() {
        let check = |address: &str, expect: bool| assert_eq!(is_public(address.parse().unwrap()), expect, "{address}");
        for public in ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2a00:1450::1"] {
            check(public, true);
        }
        for private in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"] {
            check(private, false);
            check(&format!("::ffff:{private}"), false);
        }
        for reserved in ["0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"] {
            check(reserved, false);
        }
        for reserved in
            ["::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "2002:a00:1::1", "2001:db8::1", "64:ff9b::a00:1"]
        {
            check(reserved, false);
        }
    }
}
