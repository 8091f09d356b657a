//! The virtual network itself: what links, partitions and translators do to datagrams and connections.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use headwater_tests::world::actors::asker::Asker;
use headwater_tests::world::actors::player::Player;
use headwater_tests::world::actors::publisher::PublisherConfig;
use headwater_tests::world::actors::{Client, In, Notes, Out};
use headwater_tests::world::link::{Conditions, Direction, Loss};
use headwater_tests::world::nat::{Behaviour, Dependence};
use headwater_tests::world::{ClientId, HostId, Party, World};
use proto_core::node::config::Role;
use proto_core::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A datagram that came.
#[derive(Clone, Debug)]
struct Got {
    at: Time,
    port: u16,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// A client of datagrams only: sends numbered ones at an interval, and keeps what comes.
#[derive(Default)]
struct Peer {
    ip: Option<IpAddr>,
    /// From this port to that address, at this interval, so many of this size.
    sends: Option<(u16, SocketAddr, Duration, u64, usize)>,
    sent: u64,
    next: Option<Time>,
    got: Vec<Got>,
    out: VecDeque<Out>,
    notes: Notes,
}

impl Peer {
    fn send(&mut self, port: u16, to: SocketAddr, bytes: &[u8]) {
        self.out.push_back(Out::Datagram { port, to, bytes: Bytes::copy_from_slice(bytes) });
    }

    /// The numbers of what came, in the order in which it came.
    fn numbers(&self) -> Vec<u64> {
        self.got.iter().map(|g| number(&g.bytes)).collect()
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

fn numbered(n: u64, size: usize) -> Vec<u8> {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(size.max(8), n as u8);
    bytes
}

impl Client for Peer {
    fn on(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Address(ip) => self.ip = Some(ip),
            In::Datagram { port, from, bytes } => {
                self.got.push(Got { at: now, port, from, bytes: bytes.to_vec() });
            }
            _ => {}
        }
        while let Some((port, to, every, count, size)) = self.sends
            && self.sent < count
            && self.next.is_none_or(|at| at <= now)
        {
            self.send(port, to, &numbered(self.sent, size));
            self.sent += 1;
            self.next = Some(self.next.unwrap_or(now) + every);
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        self.sends.filter(|s| self.sent < s.3).and(self.next)
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// A client that only listens, and its address.
fn listener(w: &mut World) -> (ClientId, IpAddr) {
    let id = w.add(Box::new(Peer::default()));
    let ip = got(w, id).ip.unwrap();
    (id, ip)
}

fn got(w: &World, id: ClientId) -> &Peer {
    w.actor(id).unwrap()
}

/// A client that sends `count` datagrams of `size` bytes to `to`.
fn sender(w: &mut World, to: SocketAddr, every: Duration, count: u64, size: usize) -> ClientId {
    w.add(Box::new(Peer { sends: Some((5_000, to, every, count, size)), ..Peer::default() }))
}

/// `count` datagrams, one in `every` milliseconds, over the way up of a client with these conditions.
fn over(seed: u64, conditions: Conditions, every: u64, count: u64) -> (World, ClientId, ClientId) {
    let mut w = World::quiet(seed);
    let (to, ip) = listener(&mut w);
    // The sender's number is known before it exists, and with it where it sends from.
    let from = w.add(Box::new(Peer::default()));
    w.degrade_one_way(from, Direction::Up, conditions);
    w.with(from, |b: &mut Peer, now| {
        b.sends = Some((5_000, at(ip, 7), ms(every), count, 100));
        b.next = Some(now + ms(1));
    });
    w.run(ms(count * every + 3_000));
    (w, from, to)
}

/// Numbers that are missing among `0..count`, as the lengths of runs.
fn bursts(numbers: &[u64], count: u64) -> Vec<u64> {
    let came: BTreeSet<u64> = numbers.iter().copied().collect();
    let mut runs = Vec::new();
    let mut run = 0;
    for n in 0..count {
        match came.contains(&n) {
            false => run += 1,
            true if run > 0 => {
                runs.push(run);
                run = 0;
            }
            true => {}
        }
    }
    runs
}

fn near(what: &str, value: f64, wanted: f64, within: f64) {
    assert!((value - wanted).abs() <= wanted * within, "{what} is {value}, not about {wanted}");
}

#[test]
fn a_clean_link_carries_all_and_soon() {
    let mut w = World::quiet(1);
    let (to, ip) = listener(&mut w);
    sender(&mut w, at(ip, 7), ms(10), 1_000, 1_200);
    w.run(ms(11_000));
    let b = got(&w, to);
    assert_eq!(b.got.len(), 1_000);
    assert_eq!(b.numbers(), (0..1_000).collect::<Vec<_>>());
    assert!(b.got.iter().all(|g| g.bytes == numbered(number(&g.bytes), 1_200)));
    assert!(b.got.iter().all(|g| g.at.as_millis() - number(&g.bytes) * 10 <= 6));
}

#[test]
fn losses_have_the_mean_and_the_bursts_that_were_asked_for() {
    const N: u64 = 200_000;
    for (mean, burst) in [(0.02, 1.0), (0.05, 4.0), (0.3, 10.0)] {
        let conditions = Conditions { loss: Loss { mean, burst }, ..Conditions::default() };
        let (w, _, to) = over(2, conditions, 1, N);
        let numbers = got(&w, to).numbers();
        let lost = N - numbers.len() as u64;
        near("the loss", lost as f64 / N as f64, mean, 0.08);
        let runs = bursts(&numbers, N);
        let length = runs.iter().sum::<u64>() as f64 / runs.len() as f64;
        near("a burst", length, burst, 0.08);
    }
}

#[test]
fn losses_of_both_access_links_add_up() {
    const N: u64 = 50_000;
    let mut w = World::quiet(3);
    let (to, ip) = listener(&mut w);
    let loss = Loss { mean: 0.1, burst: 2.0 };
    w.degrade(to, Conditions { loss, ..Conditions::default() });
    let from = sender(&mut w, at(ip, 7), ms(1), N, 100);
    w.degrade(from, Conditions { loss, ..Conditions::default() });
    w.run(ms(N + 1_000));
    let lost = 1.0 - got(&w, to).got.len() as f64 / N as f64;
    near("the loss", lost, 0.19, 0.08);
    // Nothing is left of it once the links are restored.
    w.restore(from);
    w.heal_all();
    w.with(from, |b: &mut Peer, now| {
        b.sends = Some((5_000, at(ip, 7), ms(1), N + 1_000, 100));
        b.next = Some(now);
    });
    let before = got(&w, to).got.len();
    w.with(from, |b: &mut Peer, now| b.on(In::Tick, now));
    w.run(ms(3_000));
    assert_eq!(got(&w, to).got.len() - before, 1_000);
}

#[test]
fn datagrams_come_twice_late_or_damaged_as_often_as_asked_for() {
    const N: u64 = 100_000;
    let (w, _, to) = over(4, Conditions { duplicate: 0.03, ..Conditions::default() }, 1, N);
    let b = got(&w, to);
    near("the share that comes twice", b.got.len() as f64 / N as f64 - 1.0, 0.03, 0.1);
    assert_eq!(b.numbers().into_iter().collect::<BTreeSet<_>>().len() as u64, N, "none is lost");

    let reorder_by = ms(5);
    let (w, _, to) = over(5, Conditions { reorder: 0.04, reorder_by, ..Conditions::default() }, 1, N);
    let numbers = got(&w, to).numbers();
    assert_eq!(numbers.len() as u64, N);
    let late = numbers.windows(2).filter(|p| p[1] < p[0]).count();
    near("the share that is overtaken", late as f64 / N as f64, 0.04, 0.1);

    let (w, _, to) = over(6, Conditions { corrupt: 0.02, ..Conditions::default() }, 1, N);
    let b = got(&w, to);
    assert_eq!(b.got.len() as u64, N);
    let wrong = (0..N).zip(&b.got).filter(|(n, g)| g.bytes != numbered(*n, 100)).count();
    near("the share that is damaged", wrong as f64 / N as f64, 0.02, 0.1);
    assert!(b.got.iter().all(|g| g.bytes.len() == 100));
}

#[test]
fn latency_and_jitter_delay_but_keep_the_order() {
    let conditions = Conditions { latency: ms(80), jitter: ms(30), ..Conditions::default() };
    let (w, _, to) = over(7, conditions, 40, 2_000);
    let b = got(&w, to);
    assert_eq!(b.numbers(), (0..2_000).collect::<Vec<_>>());
    let ways: Vec<u64> = b.got.iter().map(|g| g.at.as_millis() - 1 - number(&g.bytes) * 40).collect();
    let (least, most) = (*ways.iter().min().unwrap(), *ways.iter().max().unwrap());
    assert!((80..=91).contains(&least) && most <= 121 && most >= least + 20, "{least} to {most} ms");
}

#[test]
fn no_flow_changes_the_fate_of_another() {
    let fate = |others: bool| {
        let mut w = World::quiet(8);
        let (to, ip) = listener(&mut w);
        let loss = Loss { mean: 0.2, burst: 3.0 };
        let conditions =
            Conditions { loss, duplicate: 0.1, jitter: ms(4), corrupt: 0.1, ..Conditions::default() };
        w.degrade(to, conditions);
        sender(&mut w, at(ip, 7), ms(3), 3_000, 100);
        let other = w.add(Box::new(Peer::default()));
        if others {
            w.with(other, |b: &mut Peer, now| {
                b.sends = Some((6_000, at(ip, 8), ms(1), 4_000, 100));
                b.next = Some(now + ms(1));
            });
        }
        w.run(ms(10_000));
        let of_first = |g: &&Got| g.port == 7;
        let all = &got(&w, to).got;
        (all.len(), all.iter().filter(of_first).map(|g| (g.at, g.bytes.clone())).collect::<Vec<_>>())
    };
    let (alone, with) = (fate(false), fate(true));
    assert!(with.0 > alone.0 + 2_000);
    assert_eq!(alone.1, with.1);
    assert!(alone.1.len() > 2_000 && alone.1.len() < 3_000);
}

#[test]
fn a_slow_link_queues_what_fits_and_drops_the_rest() {
    // 1,000 datagrams a second of 250 bytes are 2 Mbit/s.
    let slow = Conditions { rate: Some(1_000_000), queue: 12_500, ..Conditions::default() };
    for direction in [Direction::Up, Direction::Down] {
        let mut w = World::quiet(9);
        let (to, ip) = listener(&mut w);
        let from = sender(&mut w, at(ip, 7), ms(1), 5_000, 250);
        w.degrade_one_way(if direction == Direction::Up { from } else { to }, direction, slow);
        w.run(ms(8_000));
        let b = got(&w, to);
        near("what comes", b.got.len() as f64, 2_550.0, 0.03);
        // The queue holds 100 ms.
        let ways: Vec<u64> =
            b.got.iter().map(|g| g.at.as_millis().saturating_sub(number(&g.bytes))).collect();
        let most = *ways.iter().max().unwrap();
        assert!((95..=115).contains(&most), "{most} ms");
        assert!(ways[0] < 15, "the first does not wait: {} ms", ways[0]);
        let ordered = b.numbers();
        assert!(ordered.is_sorted());
    }
}

#[test]
fn what_is_larger_than_the_mtu_vanishes() {
    let mut w = World::quiet(10);
    let (to, ip) = listener(&mut w);
    let from = w.add(Box::new(Peer::default()));
    w.degrade(from, Conditions { mtu: 1_280, ..Conditions::default() });
    w.with(from, |b: &mut Peer, _| {
        for size in [1_252, 1_253, 1_400, 100] {
            b.send(5_000, at(ip, 7), &numbered(size, size as usize));
        }
    });
    w.run(ms(100));
    assert_eq!(got(&w, to).numbers(), [1_252, 100]);
}

#[test]
fn a_stalled_link_holds_back_what_its_queue_can_hold() {
    let mut w = World::quiet(11);
    let (to, ip) = listener(&mut w);
    let from = sender(&mut w, at(ip, 7), ms(1), 4_000, 1_000);
    w.run(ms(500));
    w.degrade(from, Conditions { queue: 500_000, ..Conditions::default() });
    w.stall(from, ms(1_000));
    w.run(ms(999));
    let before = got(&w, to).got.len();
    assert!((490..=505).contains(&before), "{before}");
    w.run(ms(100));
    let held = got(&w, to).got.len() - before;
    // Half of what came in the second, and what came since.
    assert!((490..=620).contains(&held), "{held}");
    w.run(ms(4_000));
    let lost = 4_000 - got(&w, to).got.len();
    assert!((498..=502).contains(&lost), "{lost}");
}

#[test]
fn a_link_may_lose_all_in_one_direction() {
    let mut w = World::quiet(12);
    let (a, ip_a) = listener(&mut w);
    let (b, ip_b) = listener(&mut w);
    w.part_one_way(a, b);
    let both = |w: &mut World| {
        w.with(a, |c: &mut Peer, _| c.send(1, at(ip_b, 1), &numbered(0, 8)));
        w.with(b, |c: &mut Peer, _| c.send(1, at(ip_a, 1), &numbered(0, 8)));
        w.run(ms(50));
        (got(w, a).got.len(), got(w, b).got.len())
    };
    assert_eq!(both(&mut w), (1, 0));
    w.heal_all();
    assert_eq!(both(&mut w), (2, 1));
    w.part(a.into(), b.into());
    assert_eq!(both(&mut w), (2, 1));
    w.join(a.into(), b.into());
    w.cut(a.into());
    assert_eq!(both(&mut w), (2, 1));
    w.heal(a.into());
    assert_eq!(both(&mut w), (3, 2));
}

/// Three far ends: two ports of one address, and another address.
fn far_ends(w: &mut World) -> [(ClientId, SocketAddr); 3] {
    let (x, ip_x) = listener(w);
    let (y, ip_y) = listener(w);
    [(x, at(ip_x, 1)), (x, at(ip_x, 2)), (y, at(ip_y, 1))]
}

/// RFC 4787 section 4.1: which of the far ends see the same public port.
#[test]
fn translators_map_as_their_behaviour_says() {
    for (mapping, same) in [
        (Dependence::Endpoint, [true, true]),
        (Dependence::Address, [true, false]),
        (Dependence::AddressAndPort, [false, false]),
    ] {
        let mut w = World::quiet(13);
        let far = far_ends(&mut w);
        let nat = w.nat(Behaviour { mapping, ..Behaviour::HOME });
        let c = w.add_behind(nat, Box::new(Peer::default()));
        assert!(matches!(got(&w, c).ip, Some(IpAddr::V4(ip)) if ip.octets()[..2] == [192, 168]));
        for _ in 0..2 {
            w.with(c, |b: &mut Peer, _| far.iter().for_each(|(_, to)| b.send(9, *to, &[0; 8])));
            w.run(ms(20));
        }
        let seen = far.map(|(id, to)| {
            let of: BTreeSet<SocketAddr> =
                got(&w, id).got.iter().filter(|g| g.port == to.port()).map(|g| g.from).collect();
            assert_eq!(of.len(), 1, "{mapping:?}: the same again for the second datagram");
            *of.first().unwrap()
        });
        assert!(seen.iter().all(|s| s.ip() == w.public_ip(nat)));
        assert_eq!([seen[0] == seen[1], seen[0] == seen[2]], same, "{mapping:?}");
        // Another inner port is another mapping.
        w.with(c, |b: &mut Peer, _| b.send(10, far[0].1, &[0; 8]));
        w.run(ms(20));
        assert_ne!(got(&w, far[0].0).got.last().unwrap().from, seen[0]);
    }
}

/// RFC 4787 section 5: whose datagrams are let in after the client has sent to the first far end only.
#[test]
fn translators_filter_as_their_behaviour_says() {
    for (filtering, let_in) in [
        (Dependence::Endpoint, [true, true, true]),
        (Dependence::Address, [true, true, false]),
        (Dependence::AddressAndPort, [true, false, false]),
    ] {
        let mut w = World::quiet(14);
        let far = far_ends(&mut w);
        let nat = w.nat(Behaviour { filtering, ..Behaviour::HOME });
        let c = w.add_behind(nat, Box::new(Peer::default()));
        w.with(c, |b: &mut Peer, _| b.send(9, far[0].1, &[0; 8]));
        w.run(ms(20));
        let public = got(&w, far[0].0).got[0].from;
        for (n, (id, from)) in far.iter().enumerate() {
            w.with(*id, |b: &mut Peer, _| b.send(from.port(), public, &numbered(n as u64, 8)));
        }
        // A port that nobody opened lets nobody in.
        w.with(far[0].0, |b: &mut Peer, _| b.send(1, at(public.ip(), public.port() ^ 1), &numbered(9, 8)));
        w.run(ms(20));
        let b = got(&w, c);
        let came: BTreeSet<u64> = b.numbers().into_iter().collect();
        assert_eq!([0, 1, 2].map(|n| came.contains(&n)), let_in, "{filtering:?}");
        assert!(!came.contains(&9));
        assert!(b.got.iter().all(|g| g.port == 9), "it comes to the inner port");
    }
}

#[test]
fn mappings_expire_without_traffic_outwards_and_change_when_rebound() {
    let mut w = World::quiet(15);
    let far = far_ends(&mut w);
    let nat = w.nat(Behaviour { expiry: ms(30_000), ..Behaviour::HOME });
    let c = w.add_behind(nat, Box::new(Peer::default()));
    let send = |w: &mut World| {
        w.with(c, |b: &mut Peer, _| b.send(9, far[0].1, &[0; 8]));
        w.run(ms(20));
        got(w, far[0].0).got.last().unwrap().from
    };
    let reply = |w: &mut World, to: SocketAddr| {
        let before = got(w, c).got.len();
        w.with(far[0].0, |b: &mut Peer, _| b.send(1, to, &[0; 8]));
        w.run(ms(20));
        got(w, c).got.len() - before
    };
    let first = send(&mut w);
    for _ in 0..3 {
        w.run(ms(20_000));
        assert_eq!(send(&mut w), first, "what is used lives on");
    }
    w.run(ms(20_000));
    assert_eq!(reply(&mut w, first), 1);
    // What comes in does not keep it alive.
    w.run(ms(10_000));
    assert_eq!(reply(&mut w, first), 0, "it has expired");
    let second = send(&mut w);
    assert_ne!(second, first);
    w.rebind(c);
    assert_eq!(reply(&mut w, second), 0, "nobody is there any more");
    let third = send(&mut w);
    assert!(third != second && third.ip() == second.ip());
    assert_eq!(reply(&mut w, third), 1);
}

#[test]
fn clients_behind_one_translator_are_told_apart() {
    let mut w = World::quiet(16);
    let far = far_ends(&mut w);
    let nat = w.nat(Behaviour::SYMMETRIC);
    let inside: Vec<ClientId> = (0..5).map(|_| w.add_behind(nat, Box::new(Peer::default()))).collect();
    for (n, c) in inside.iter().enumerate() {
        w.with(*c, |b: &mut Peer, _| b.send(9, far[0].1, &numbered(n as u64, 8)));
    }
    w.run(ms(20));
    let seen: Vec<(u64, SocketAddr)> =
        got(&w, far[0].0).got.iter().map(|g| (number(&g.bytes), g.from)).collect();
    assert_eq!(seen.iter().map(|s| s.1).collect::<BTreeSet<_>>().len(), 5);
    for (n, to) in &seen {
        w.with(far[0].0, |b: &mut Peer, _| b.send(1, *to, &numbered(*n, 8)));
    }
    w.run(ms(20));
    for (n, c) in inside.iter().enumerate() {
        assert_eq!(got(&w, *c).numbers(), [n as u64]);
    }
    // Their inner addresses are nobody's outside.
    let inner = got(&w, inside[0]).ip.unwrap();
    w.with(far[0].0, |b: &mut Peer, _| b.send(1, at(inner, 9), &[0; 8]));
    w.run(ms(20));
    assert_eq!(got(&w, inside[0]).got.len(), 1);
}

#[test]
fn a_client_that_moves_is_reached_at_its_new_address_only() {
    let mut w = World::quiet(17);
    let (a, old) = listener(&mut w);
    let (b, _) = listener(&mut w);
    w.readdress(a);
    let new = got(&w, a).ip.unwrap();
    assert_ne!(old, new);
    w.with(b, |c: &mut Peer, _| {
        c.send(1, at(old, 1), &numbered(1, 8));
        c.send(1, at(new, 1), &numbered(2, 8));
    });
    w.run(ms(20));
    assert_eq!(got(&w, a).numbers(), [2]);
    w.readdress(a);
    assert_ne!(got(&w, a).ip.unwrap(), new);
}

fn one(w: &mut World) -> HostId {
    let one = w.host("one", &[Role::Manager, Role::Origin, Role::Edge], None);
    w.run(ms(100));
    one
}

/// How long an answer about all metrics takes a client with such a link, and its bytes.
fn ask(w: &mut World, host: HostId, conditions: Conditions) -> (Duration, usize) {
    let to = w.http_addr(host);
    let begun = w.now();
    let asker = w.add(Box::new(Asker::new(to, "/metrics")));
    w.degrade(asker, conditions);
    w.until("an answer", ms(60_000), |w| w.actor::<Asker>(asker).is_some_and(|a| a.result.is_some()));
    let result = w.with(asker, |a: &mut Asker, _| a.result.take()).unwrap();
    let (status, body) = result.unwrap();
    assert_eq!(status, 200);
    (w.now().since(begun), body.len())
}

#[test]
fn tcp_is_slowed_by_rate_latency_and_loss_and_by_nothing_else() {
    let mut w = World::quiet(18);
    let host = one(&mut w);
    let clean = Conditions::default();
    let mean = |w: &mut World, conditions: Conditions| {
        let times: Vec<Duration> = (0..20).map(|_| ask(w, host, conditions).0).collect();
        times.iter().sum::<Duration>() / times.len() as u32
    };
    let quick = mean(&mut w, clean);
    assert!(quick < ms(100), "{quick:?}");
    let messy = Conditions { duplicate: 0.5, reorder: 0.5, reorder_by: ms(500), corrupt: 0.5, ..clean };
    let same = mean(&mut w, messy);
    assert!(same < quick * 3 / 2, "{same:?}");
    let far = mean(&mut w, Conditions { latency: ms(100), ..clean });
    // A round trip to connect (its first packet has left already), one to ask.
    assert!(far > quick + ms(300) && far < quick + ms(500), "{far:?}");
    let lossy = mean(&mut w, Conditions { loss: Loss { mean: 0.2, burst: 2.0 }, ..clean });
    assert!(lossy > quick * 2 && lossy < ms(5_000), "{lossy:?}");
    let (time, bytes) = ask(&mut w, host, Conditions { rate: Some(80_000), ..clean });
    let least = Duration::from_micros(bytes as u64 * 100);
    assert!(bytes > 4_000 && time >= least && time < least * 3 / 2 + ms(200), "{bytes} bytes in {time:?}");
}

#[test]
fn tcp_waits_out_a_stall_and_a_loss_in_either_direction() {
    for fault in 0..4 {
        let mut w = World::quiet(19);
        let host = one(&mut w);
        let p = w.publish(host, "live/one");
        w.run(ms(1_000));
        let v = w.play(host, "live/one");
        w.run(ms(2_000));
        let before = w.player(v).seen.len();
        assert!(before > 50);
        let (host, viewer) = (Party::from(host), Party::from(v));
        match fault {
            0 => w.part_one_way(host, viewer),
            1 => w.part_one_way(viewer, host),
            2 => w.stall(v, ms(3_000)),
            _ => w.stall(p, ms(3_000)),
        }
        w.run(ms(2_900));
        let within = w.player(v).seen.len() - before;
        match fault {
            // Without acknowledgements a window's worth comes, which is all of this stream.
            1 => assert!(within > 100, "{within}"),
            _ => assert!(within < 5, "{within}"),
        }
        w.run(ms(100));
        w.heal_all();
        w.run(ms(3_000));
        let pictures = w.player(v).pictures(w.publisher(p).sent[0].session);
        let (first, last) = (pictures[0], *pictures.last().unwrap());
        assert_eq!(pictures, (first..=last).collect::<Vec<_>>());
        assert!(last + 10 >= w.publisher(p).sent[0].pictures, "{last}");
        assert_eq!(w.player(v).ended, None);
    }
}

#[test]
fn healing_ends_a_stall_at_once() {
    let mut w = World::quiet(25);
    let host = one(&mut w);
    let p = w.publish(host, "live/one");
    w.run(ms(1_000));
    let v = w.play(host, "live/one");
    w.run(ms(2_000));
    w.stall(v, ms(60_000));
    w.run(ms(1_000));
    let before = w.player(v).seen.len();
    w.heal_all();
    w.run(ms(100));
    assert!(w.player(v).seen.len() > before + 50);
    assert!(w.publisher(p).is_ready() && w.player(v).ended.is_none());
}

#[test]
fn a_dial_gets_through_once_its_way_is_healed() {
    let mut w = World::quiet(20);
    let host = one(&mut w);
    w.cut(host.into());
    let to = w.http_addr(host);
    let [early, late] = [4_000, 20_000].map(|heals| {
        let asker = w.add(Box::new(Asker::new(to, "/metrics")));
        w.run(ms(heals));
        w.heal(host.into());
        w.run(ms(5_000));
        w.cut(host.into());
        w.with(asker, |a: &mut Asker, _| a.result.take()).unwrap()
    });
    assert_eq!(early.unwrap().0, 200);
    assert!(late.unwrap_err().contains("no answer within 10 s"));
    // Where nothing listens a dial is refused at once.
    w.heal_all();
    let wrong = w.add(Box::new(Asker::new(at(to.ip(), 9), "/")));
    w.run(ms(50));
    let result = w.with(wrong, |a: &mut Asker, _| a.result.take()).unwrap();
    assert!(result.unwrap_err().contains("refused"));
}

#[test]
fn a_host_may_have_a_second_address() {
    let mut w = World::quiet(24);
    let host = one(&mut w);
    let second = w.second_address(host);
    let asker = w.add(Box::new(Asker::new(at(second, w.http_addr(host).port()), "/metrics")));
    w.run(ms(500));
    let result = w.with(asker, |a: &mut Asker, _| a.result.take()).unwrap();
    assert_eq!(result.unwrap().0, 200);
}

#[test]
fn connections_pass_translators_and_do_not_outlive_a_rebinding() {
    let mut w = World::new(21);
    let host = one(&mut w);
    let p = w.publish(host, "live/one");
    w.run(ms(1_000));
    let nat = w.nat(Behaviour::HOME);
    let to = w.rtmp_addr(host);
    let viewers = [(); 2].map(|()| w.add_behind(nat, Box::new(Player::new(to, "live/one"))));
    w.run(ms(3_000));
    assert!(viewers.iter().all(|v| w.player(*v).seen.len() > 100));
    let (_, sessions) = w.get(host, "/api/v1/sessions").unwrap();
    let public = w.public_ip(nat).to_string();
    assert_eq!(sessions.matches(&public).count(), 2, "{sessions}");
    w.rebind(viewers[0]);
    let before = viewers.map(|v| w.player(v).seen.len());
    // The server fills the lost one's window, then gives it up (A6); it learns of that when it next sends or asks.
    w.run(ms(45_000));
    let after = viewers.map(|v| w.player(v).seen.len());
    assert_eq!(after[0], before[0], "nothing comes any more");
    assert!(w.player(viewers[0]).ended.as_deref().is_some_and(|e| e.contains("reset")));
    assert!(after[1] > before[1] + 1_000 && w.player(viewers[1]).ended.is_none());
    let (_, sessions) = w.get(host, "/api/v1/sessions").unwrap();
    assert_eq!(sessions.matches(&public).count(), 1, "{sessions}");
    assert!(w.publisher(p).is_ready());
}

/// All that the network can do, twice from one seed and once from another.
#[test]
fn the_same_seed_gives_the_same_history_whatever_the_network_does() {
    let inside = |seed| {
        let mut w = World::new(seed);
        let host = one(&mut w);
        let config = PublisherConfig { again: Some(ms(300)), ..PublisherConfig::default() };
        let publishers = ["live/one", "live/two"].map(|stream| w.publish_with(host, stream, config.clone()));
        let nat = w.nat(Behaviour::SYMMETRIC);
        let (to, ip) = listener(&mut w);
        let inside = w.add_behind(nat, Box::new(Peer::default()));
        w.with(inside, |b: &mut Peer, now| {
            b.sends = Some((5_000, at(ip, 7), ms(3), 5_000, 300));
            b.next = Some(now + ms(1));
        });
        let loss = Loss { mean: 0.05, burst: 2.0 };
        let conditions = Conditions {
            latency: ms(10),
            jitter: ms(10),
            loss,
            duplicate: 0.02,
            reorder: 0.02,
            corrupt: 0.02,
            rate: Some(2_000_000),
            ..Conditions::default()
        };
        w.degrade(to, conditions);
        w.degrade(host, conditions);
        for step in 0..10 {
            match step {
                2 => w.pause(host),
                4 => w.resume(host),
                5 => w.stall(host, ms(700)),
                6 => w.rebind(inside),
                7 => w.readdress(publishers[0]),
                8 => w.skew(host, 300),
                _ => w.part_one_way(host, publishers[step % 2]),
            }
            w.run(ms(1_500));
        }
        w.heal_all();
        w.run(ms(5_000));
        let came: Vec<(Time, SocketAddr, Vec<u8>)> =
            got(&w, to).got.iter().map(|g| (g.at, g.from, g.bytes.clone())).collect();
        (w.hash(), w.log().to_vec(), came)
    };
    let run = |seed| determinism::os::run([0; 32], || inside(seed)).unwrap();
    let (a, b, c) = (run(22), run(22), run(23));
    for (x, y) in a.1.iter().zip(&b.1) {
        assert_eq!(x, y);
    }
    assert!(a.0 == b.0 && a.2 == b.2 && a.2.len() > 3_000);
    assert!(a.0 != c.0 && a.2 != c.2);
}
