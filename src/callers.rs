//! How clients are counted: by the network of their address, and with a share of each limit.

use std::net::{IpAddr, Ipv6Addr};

/// Returns an IPv4 address unchanged, and of an IPv6 address the network of 64 bits, because one machine can use all
/// addresses of such a network. An IPv4 address that is mapped to IPv6 counts as IPv4.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        canonical @ IpAddr::V4(_) => canonical,
    }
}

/// Returns the part of a limit that one client may take: three quarters, and at least one.
pub const fn share(total_max: usize) -> usize {
    let part = total_max - total_max.div_ceil(4);
    if part == 0 { 1 } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let of = |address: &str| network(address.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:0:1:2:3:4:5"), "2001:db8:0:1::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
    #[test]
    fn one_client_takes_three_quarters_and_at_least_one() {
        assert_eq!([1, 2, 3, 4, 32, 64, 10_000].map(share), [1, 1, 2, 3, 24, 48, 7_500]);
    }
}
