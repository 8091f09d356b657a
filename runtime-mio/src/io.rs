//! The kernel side of the loop: takes the node's outputs, holds every socket, and keeps what is to be told to the
//! node.

use crate::accept::Listeners;
use crate::asks::Asks;
use crate::control::{RemoteControl, Together};
use crate::fds::SpareFd;
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::{ExitReason, Options};
use mio::event::Event;
use mio::{Registry, Token};
use proto_core::io::{ConnId, Input, Level, LogLine, Output};
use proto_core::time::{Deadline, Time, Timers, WallTime};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const WAKER: Token = Token(0);
const KIND_SHIFT: u32 = usize::BITS - 2;

/// What a token stands for; the index is into the slab of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Waker = 0,
    Listener = 1,
    Udp = 2,
    Conn = 3,
}

impl Kind {
    pub(crate) fn token(self, index: usize) -> Token {
        Token((self as usize) << KIND_SHIFT | index)
    }

    fn of(token: Token) -> (Kind, usize) {
        let index = token.0 & ((1 << KIND_SHIFT) - 1);
        let kind = match token.0 >> KIND_SHIFT {
            0 => Kind::Waker,
            1 => Kind::Listener,
            2 => Kind::Udp,
            _ => Kind::Conn,
        };
        (kind, index)
    }
}

/// What the loop itself waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    WallClock,
    AcceptAgain,
    DrainAnyway,
    Conn(usize, ConnId),
}

/// How often the node is told the wall time.
const WALL_CLOCK: Duration = Duration::from_secs(60);
/// How long connections may still say goodbye after the node said that it has drained.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How often the busy share is measured; only in turns that happen anyway.
const MEASURE: Duration = Duration::from_secs(1);

/// Every socket of a loop, and what waits to be told to the node.
pub(crate) struct Io {
    pub(crate) start: Instant,
    pub(crate) registry: Registry,
    pub(crate) control: RemoteControl,
    pub(crate) listeners: Listeners,
    pub(crate) tcp: Tcp,
    pub(crate) udp: Udp,
    pub(crate) alarms: Timers<Alarm>,
    pub(crate) read_per_turn: usize,
    asks: Asks,
    reports: VecDeque<Input<'static>>,
    ending: Option<ExitReason>,
    /// The loops that it ends together with, until all have drained.
    pub(crate) together: Option<Together>,
    /// Busy time since then, for the node's load.
    measured: (Time, Duration),
    log: Box<dyn FnMut(&LogLine) + Send>,
}

impl Io {
    pub(crate) fn new(
        start: Instant,
        registry: Registry,
        control: RemoteControl,
        options: Options,
    ) -> std::io::Result<Io> {
        Ok(Io {
            start,
            registry,
            listeners: Listeners::new(SpareFd::new()?, options.accept_pause),
            tcp: Tcp::new(options.write_buffer, options.stranger_buffer, control.counters.clone()),
            udp: Udp::new(control.counters.clone(), options.gso),
            alarms: Timers::default(),
            // A read into an empty buffer would look like the end of the stream.
            read_per_turn: options.read_per_turn.max(1),
            asks: Asks::new(control.clone()),
            reports: VecDeque::new(),
            ending: None,
            together: None,
            measured: (Time::ZERO, Duration::ZERO),
            log: options.log,
            control,
        })
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Counts a turn that began at `woken`. Once a second or so it answers with the share of time in which the loop
    /// was busy, thousandths.
    pub(crate) fn count_turn(&mut self, woken: Time) -> Option<u32> {
        let now = self.now();
        let busy = now.since(woken);
        self.control.counters.turns.add(1);
        self.control.counters.busy_nanos.add(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        self.measured.1 += busy;
        let over = now.since(self.measured.0);
        if over < MEASURE {
            return None;
        }
        let permille = self.measured.1.as_nanos() * 1_000 / over.as_nanos().max(1);
        self.measured = (now, Duration::ZERO);
        Some(u32::try_from(permille).unwrap_or(1_000).min(1_000))
    }

    /// How long the loop may sleep when the node wants to be woken at `deadline`; `None` is for ever.
    pub(crate) fn timeout(&self, deadline: Option<Deadline>) -> Option<Duration> {
        let work = !self.reports.is_empty()
            || self.listeners.has_work()
            || self.tcp.has_work()
            || self.udp.has_work();
        if work {
            return Some(Duration::ZERO);
        }
        let next = Deadline::earliest(deadline, self.alarms.next());
        next.map(|d| d.at.since(self.now()))
    }

    /// Notes what an event says is ready; reading and writing happen in their turn.
    pub(crate) fn note(&mut self, event: &Event) {
        match Kind::of(event.token()) {
            (Kind::Waker, _) => {}
            (Kind::Listener, i) => self.listeners.note(i),
            (Kind::Udp, i) => self.udp.note(i, event),
            (Kind::Conn, i) => self.tcp.note(i, event),
        }
    }

    /// Takes one output of the node. Nothing is sent before [`Io::flush`].
    pub(crate) fn stage(&mut self, output: Output) {
        match output {
            Output::Send { conn, bytes } => self.tcp.send(conn, bytes),
            Output::Datagrams(batch) => self.udp.stage(batch, &self.registry, &mut self.reports),
            Output::Close { conn, now: at_once } => {
                let now = self.now();
                self.tcp.close(conn, at_once, now, &mut self.alarms);
            }
            Output::Reading { conn, on } => self.tcp.reading(conn, on),
            Output::LetIn { conn } => self.tcp.let_in(conn, &mut self.reports),
            Output::Dial { conn, to } => {
                let now = self.now();
                self.tcp.dial(conn, to, &self.registry, now, &mut self.alarms, &mut self.reports);
            }
            Output::OpenUdp { socket, bind } => {
                self.udp.open(socket, bind, &self.registry, &mut self.reports);
            }
            Output::CloseUdp { socket } => self.udp.close(socket, &self.registry, &mut self.reports),
            Output::Ask { ask, work } => self.asks.ask(ask, work, &mut self.reports),
            Output::Log(line) => (self.log)(&line),
            Output::Fatal(reason) => self.ending = Some(ExitReason::Fatal(reason)),
            Output::Drained => match &self.together {
                Some(together) => together.one_less(),
                None => self.drained(),
            },
        }
    }

    fn drained(&mut self) {
        let now = self.now();
        self.alarms.set(
            Alarm::DrainAnyway,
            Deadline::new(now + LAST_WORDS, "connections say goodbye before the process ends"),
        );
        self.ending.get_or_insert(ExitReason::Drained);
    }

    /// Ends the loop if it waits only for others, and those have drained too.
    pub(crate) fn look_at_others(&mut self) {
        if self.together.as_ref().is_some_and(Together::is_over) {
            self.together = None;
            self.drained();
        }
    }

    /// Says a line of the loop's own.
    pub(crate) fn say(&mut self, level: Level, text: String) {
        (self.log)(&LogLine { level, target: "node", session: None, stream: None, text });
    }

    /// Hands everything staged to the kernel, as far as it takes it.
    pub(crate) fn flush(&mut self) {
        let now = self.now();
        self.udp.flush(&self.registry, &mut self.reports);
        self.tcp.flush(now, &mut self.alarms, &mut self.reports);
    }

    /// Does what the loop's own alarms are for. Answers the wall time when it is due to be told.
    pub(crate) fn expire(&mut self) -> Option<WallTime> {
        let now = self.now();
        let mut wall = None;
        while let Some(alarm) = self.alarms.pop_due(now) {
            match alarm {
                Alarm::WallClock => wall = Some(self.wall_clock()),
                Alarm::AcceptAgain => self.listeners.resume(),
                Alarm::DrainAnyway => self.tcp.drop_closing(),
                Alarm::Conn(key, id) => self.tcp.expire(key, id, now, &mut self.alarms, &mut self.reports),
            }
        }
        wall
    }

    /// Reads the wall clock and sets the alarm for the next reading.
    pub(crate) fn wall_clock(&mut self) -> WallTime {
        let next = self.now() + WALL_CLOCK;
        self.alarms.set(Alarm::WallClock, Deadline::new(next, "the node is told the wall time"));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How many reports wait now; those that come up meanwhile belong to the next turn.
    pub(crate) fn reports_waiting(&mut self) -> usize {
        self.asks.collect(&mut self.reports);
        self.reports.len()
    }

    /// The next thing to tell the node; `None` if it has become moot, because the node closed that connection
    /// meanwhile.
    pub(crate) fn next_report(&mut self) -> Option<Input<'static>> {
        match self.reports.pop_front()? {
            // The room is read now: the node may have sent more since the report was made.
            Input::Writable { conn, .. } => self.tcp.grant(conn),
            Input::Closed { conn, reason } => self.tcp.buried(conn).then_some(Input::Closed { conn, reason }),
            Input::UdpOpened { socket, .. } if !self.udp.is_open(socket) => None,
            other => Some(other),
        }
    }

    /// Ends the loop without asking the node.
    pub(crate) fn stop(&mut self) {
        self.ending = Some(ExitReason::Stopped);
    }

    /// Why the loop is over, once it is.
    pub(crate) fn ended(&self) -> Option<ExitReason> {
        match &self.ending {
            Some(ExitReason::Drained) if self.tcp.closing() > 0 => None,
            ending => ending.clone(),
        }
    }
}

/// The host's addresses that others might reach: no loopback, and no IPv6 link-local ones, which mean nothing
/// without an interface.
pub(crate) fn host_addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let ip = interface.ip();
        let local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !interface.is_loopback() && !local && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// An IPv4 peer of a dual-stack socket is an IPv4 peer: limits, logs and answers must not see it twice.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_tell_kinds_apart() {
        for kind in [Kind::Listener, Kind::Udp, Kind::Conn] {
            assert_eq!(Kind::of(kind.token(12345)), (kind, 12345));
        }
        assert_eq!(Kind::of(WAKER), (Kind::Waker, 0));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_it_maps() {
        assert_eq!(canonical("[::ffff:10.1.2.3]:5".parse().unwrap()), "10.1.2.3:5".parse().unwrap());
        assert_eq!(canonical("[2001:db8::1]:5".parse().unwrap()), "[2001:db8::1]:5".parse().unwrap());
    }
}
