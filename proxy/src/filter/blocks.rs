//! Sets of addresses: sorted, merged ranges, found by halving. A hundred thousand blocks cost 17 comparisons.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of addresses given as blocks.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    v4: Box<[(u32, u32)]>, // first and last, ascending, apart
    v6: Box<[(u128, u128)]>,
}

impl Blocks {
    /// Compiles blocks in any order. Blocks of IPv4 addresses written as IPv6 (`::ffff:…`) are IPv4.
    pub fn new(blocks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for block in blocks {
            match block {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => {
                    match (
                        net.network().to_ipv4_mapped(),
                        net.broadcast().to_ipv4_mapped(),
                    ) {
                        (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                        _ => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
                    }
                }
            }
        }
        Self {
            v4: merged(v4),
            v6: merged(v6),
        }
    }

    /// True when a block holds the address; IPv4 within IPv6 is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }

    /// True when it holds no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if first <= *end => *end = (*end).max(last),
            _ => out.push((first, last)),
        }
    }
    out.into()
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], wanted: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= wanted);
    after > 0 && wanted <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn of(blocks: &[&str]) -> Blocks {
        Blocks::new(blocks.iter().map(|block| block.parse().unwrap()))
    }

    #[test]
    fn families_do_not_meet_except_where_ipv4_is_written_as_ipv6() {
        let blocks = of(&["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120"]);
        for (ip, inside) in [
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.77", true),
            ("192.0.3.0", false),
            ("2001:db8::1", true),
            ("2001:db9::", false),
            ("::10.0.0.1", false),
        ] {
            assert_eq!(blocks.contains(ip.parse().unwrap()), inside, "{ip}");
        }
    }

    #[test]
    fn everything_and_nothing() {
        let all = of(&["0.0.0.0/0", "::/0"]);
        let none = Blocks::default();
        assert!(none.is_empty() && !all.is_empty());
        for ip in ["0.0.0.0", "255.255.255.255", "::", "ffff::"] {
            assert!(all.contains(ip.parse().unwrap()));
            assert!(!none.contains(ip.parse().unwrap()));
        }
    }

    #[test]
    fn a_hundred_thousand_entries_cost_less_than_a_microsecond() {
        let blocks =
            (0..100_000u32).map(|n| IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(n * 40_000))));
        let set = Blocks::new(blocks);
        let mut best = std::time::Duration::MAX; // of many batches: others use this machine too
        for batch in 0..50u32 {
            let started = std::time::Instant::now();
            let hits = (0..1000u32)
                .filter(|n| {
                    set.contains(IpAddr::V4(Ipv4Addr::from_bits((batch * 1000 + n) * 80_000)))
                })
                .count();
            best = best.min(started.elapsed() / 1000);
            assert_eq!(hits, 1000);
        }
        assert!(best < std::time::Duration::from_micros(1), "{best:?}");
    }

    proptest! {
        #[test]
        fn it_says_what_every_block_in_turn_would(
            blocks in vec((any::<u32>(), 0u8..=32), 0..40),
            wide in vec((any::<u128>(), 0u8..=128), 0..10),
            probes in vec(any::<u32>(), 50),
        ) {
            let v4 = |(bits, length): &(u32, u8)| IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(*bits), *length).unwrap());
            let v6 = |(bits, length): &(u128, u8)| IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(*bits), *length).unwrap());
            let all: Vec<IpNet> = blocks.iter().map(v4).chain(wide.iter().map(v6)).collect();
            let set = Blocks::new(all.iter().copied());
            let edges = all.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for ip in probes.into_iter().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))).chain(edges) {
                if ip.to_canonical() == ip {
                    prop_assert_eq!(set.contains(ip), all.iter().any(|net| net.contains(&ip)), "{}", ip);
                }
            }
        }
    }
}
