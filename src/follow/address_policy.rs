//! Which addresses a publisher may have.
//!
//! **Invariant**: what is not known to be of the public network is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far a fetch may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressPolicy {
    /// To addresses of the public network: for publishers' own URLs.
    Public,
    /// To whatever address the host has: for a URL that an operator named.
    Any,
}

/// Whether an address is of the public network: neither of this machine nor of a network of its own, nor set aside.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
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
        // Multicast, set aside, broadcast.
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let parts = address.segments();
    // Of all there is, 2000::/3 is given out; in it, tunnels to addresses of version 4 and examples are not.
    parts[0] & 0xE000 == 0x2000
        && parts[0] != 0x2002
        && !(parts[0] == 0x2001 && (parts[1] < 0x0200 || parts[1] == 0x0DB8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_public_network() {
        let check = |address: &str, expect: bool| assert_eq!(is_public(address.parse().unwrap()), expect, "{address}");
        for public in ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2a00:1450::1"] {
            check(public, true);
        }
        for inside in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"] {
            check(inside, false);
            check(&format!("::ffff:{inside}"), false);
        }
        for aside in ["0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"] {
            check(aside, false);
        }
        for aside in
            ["::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "2002:a00:1::1", "2001:db8::1", "64:ff9b::a00:1"]
        {
            check(aside, false);
        }
    }
}
