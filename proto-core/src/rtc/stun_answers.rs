//! How many anonymous STUN requests are answered (abuse A13): an answer is larger than its request, so a stranger could
//! have it sent to somebody else.

use crate::time::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Counts answers by second and network.
#[derive(Debug)]
pub(super) struct StunAnswers {
    per_net: u32,
    per_s: u32,
    second: u64,
    given: u32,
    /// At most `per_s` entries.
    nets: BTreeMap<u64, u32>,
}

impl StunAnswers {
    /// At most so many answers a second for one network, and in all.
    pub(super) fn new((per_net, per_s): (u32, u32)) -> StunAnswers {
        StunAnswers { per_net, per_s, second: 0, given: 0, nets: BTreeMap::new() }
    }

    /// Whether one more may be given now; counts it if so.
    pub(super) fn may(&mut self, to: IpAddr, now: Time) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            (self.second, self.given) = (second, 0);
            self.nets.clear();
        }
        let net = match to {
            IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
            // The first 56 bits, and a mark that no IPv4 network has.
            IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
        };
        if self.given >= self.per_s || self.nets.get(&net).is_some_and(|n| *n >= self.per_net) {
            return false;
        }
        self.given += 1;
        *self.nets.entry(net).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_and_all_networks_have_their_share_of_each_second() {
        let mut answers = StunAnswers::new((20, 200));
        let ip = |net: u8, host: u8| IpAddr::from([203, 0, net, host]);
        let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
        let given = (0..30).filter(|n| answers.may(ip(1, *n), at(5_000))).count();
        assert_eq!(given, 20);
        let given = (0..30)
            .flat_map(|net| (0..10).map(move |host| (net, host)))
            .filter(|(net, host)| answers.may(ip(net + 2, *host), at(5_500)))
            .count();
        assert_eq!(given, 180);
        assert!(answers.may(ip(1, 1), at(6_000)));
        let six = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0xff00 | n, 0, 0, 0, 1]);
        assert_eq!((0..30).filter(|n| answers.may(six(*n), at(7_000))).count(), 20);
    }
}
