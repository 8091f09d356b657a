//! Who tried a wrong secret lately, and what was found out about passwords.
//!
//! Failures cost time to whoever fails and to nobody else: an address that failed a few times in a row waits longer with
//! each further attempt, and until then its passwords are refused unread. What was verified before is remembered under a
//! hash with a key that no one outside knows, so that those who have the right password are not held up by a flood of
//! wrong ones, and pay for the slow hash once.

use super::secret::Secret;
use crate::time::Time;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// Attempts that an address may fail before it has to wait.
const FREE: u32 = 4;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// An address that has not failed for so long starts anew.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Addresses that are remembered; the one that failed first is forgotten first.
const ADDRESSES: usize = 10_000;
/// Passwords that are remembered as right or wrong.
const VERDICTS: usize = 10_000;
/// For how long a wrong password is known to be wrong.
const WRONG_FOR: Duration = Duration::from_secs(10);

/// Which password of which user, as a code that tells neither.
pub type Print = [u8; 32];

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    last: Time,
}

/// See the module's text.
pub struct Attempts {
    key: [u8; 32],
    right_for: Duration,
    failed: BTreeMap<IpAddr, Failed>,
    order: VecDeque<IpAddr>,
    verdicts: BTreeMap<Print, (bool, Time)>,
    printed: VecDeque<Print>,
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attempts({} addresses, {} verdicts)", self.failed.len(), self.verdicts.len())
    }
}

/// Whoever has one address of an IPv6 network has all of them.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

impl Attempts {
    /// Nothing known; `key` is random, and what was right is remembered for `right_for`.
    pub fn new(key: [u8; 32], right_for: Duration) -> Attempts {
        Attempts {
            key,
            right_for,
            failed: BTreeMap::new(),
            order: VecDeque::new(),
            verdicts: BTreeMap::new(),
            printed: VecDeque::new(),
        }
    }

    /// The code of texts; each is told from its neighbours by its length.
    pub fn print(&self, texts: &[&str]) -> Print {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return [0; 32] };
        for text in texts {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// The code of a user's password. `hash` is part of it, so that a changed password is not taken for the old one.
    pub fn print_password(&self, user: &str, password: &Secret, hash: &Secret) -> Print {
        self.print(&[user, password.reveal(), hash.reveal()])
    }

    /// What is known of a password.
    pub fn verdict(&self, print: &Print, now: Time) -> Option<bool> {
        let (right, until) = self.verdicts.get(print)?;
        (now < *until).then_some(*right)
    }

    /// A password was verified.
    pub fn verified(&mut self, print: Print, right: bool, now: Time) {
        let until = now + if right { self.right_for } else { WRONG_FOR };
        if self.verdicts.insert(print, (right, until)).is_none() {
            self.printed.push_back(print);
            if self.printed.len() > VERDICTS
                && let Some(oldest) = self.printed.pop_front()
            {
                self.verdicts.remove(&oldest);
            }
        }
    }

    /// An address showed something wrong.
    pub fn failed(&mut self, ip: IpAddr, now: Time) {
        let ip = network(ip);
        let entry = self.failed.entry(ip).or_insert_with(|| {
            self.order.push_back(ip);
            Failed { count: 0, last: now }
        });
        if now.since(entry.last) >= FORGOTTEN {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        if self.order.len() > ADDRESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.failed.remove(&oldest);
        }
    }

    /// For how long an address has to wait before another attempt is looked at; `None`: it may try.
    pub fn wait(&self, ip: IpAddr, now: Time) -> Option<Duration> {
        let failed = self.failed.get(&network(ip))?;
        let over = failed.count.checked_sub(FREE)?;
        let wait = Duration::from_secs(1 << over.min(6)).min(LONGEST);
        let until = failed.last + wait;
        (now < until).then(|| until.since(now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;

    fn attempts() -> Attempts {
        Attempts::new([7; 32], Duration::from_secs(100))
    }

    fn at(s: u64) -> Time {
        Time::from_millis(s * 1_000)
    }

    #[test]
    fn each_failure_beyond_a_few_doubles_the_wait_of_that_address_alone() {
        let mut a = attempts();
        let (bad, good) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut waits = Vec::new();
        for _ in 0..12 {
            a.failed(bad, at(0));
            waits.push(a.wait(bad, at(0)).map_or(0, |w| w.as_secs()));
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(
            (a.wait(bad, at(59)).is_some(), a.wait(bad, at(60)), a.wait(good, at(0))),
            (true, None, None)
        );
        a.failed(bad, at(700));
        assert_eq!(a.wait(bad, at(700)), None, "it starts anew");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut a = attempts();
        for n in 0..4 {
            a.failed(format!("2001:db8::{n}").parse().unwrap(), at(0));
        }
        assert!(a.wait("2001:db8::ffff".parse().unwrap(), at(0)).is_some());
        assert!(a.wait("2001:db8:0:1::1".parse().unwrap(), at(0)).is_none());
    }

    #[test]
    fn verdicts_are_remembered_for_a_while_and_bounded() {
        let mut a = attempts();
        let hash = Secret::new("$hash");
        let print = |a: &Attempts, password: &str| a.print_password("u", &Secret::new(password), &hash);
        let (right, wrong) = (print(&a, "right"), print(&a, "wrong"));
        a.verified(right, true, at(0));
        a.verified(wrong, false, at(0));
        assert_eq!((a.verdict(&right, at(99)), a.verdict(&right, at(100))), (Some(true), None));
        assert_eq!((a.verdict(&wrong, at(9)), a.verdict(&wrong, at(10))), (Some(false), None));
        assert_ne!(a.print(&["ab", "c"]), a.print(&["a", "bc"]));
        for n in 0..VERDICTS + 5 {
            let print = print(&a, &n.to_string());
            a.verified(print, false, at(0));
        }
        assert_eq!((a.verdicts.len(), a.printed.len()), (VERDICTS, VERDICTS));
        for n in 0..ADDRESSES + 5 {
            a.failed(IpAddr::from((n as u32).to_be_bytes()), at(0));
        }
        assert_eq!((a.failed.len(), a.order.len()), (ADDRESSES, ADDRESSES));
    }
}
