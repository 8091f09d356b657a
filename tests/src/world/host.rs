//! Hosts: what drives a node. It does for the node what the runtime does, in virtual time.

mod faults;

pub use faults::Resolver;

use super::event::Event;
use super::sound::{CONVERTS, Codecs, Workshop};
use super::{HostId, Owner, Party, World};
use bytes::Bytes;
use determinism::{crypto, os};
use faults::{Clock, Faults};
use proto_core::cluster::keys::Keys;
use proto_core::error::Reason;
use proto_core::io::{Answer, ConnId, Input, Output, SocketId, Work};
use proto_core::machine::Machine;
use proto_core::node::Node;
use proto_core::node::config::{Config, LinkTransport, Role};
use proto_core::node::identity::Identity as Identities;
use proto_core::rtc::Identity;
use proto_core::simulation::Speech;
use proto_core::time::{Time, WallTime};
use proto_core::tls;
use rustls::crypto::CryptoProvider;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What the wall clock reads when a world begins.
const EPOCH: u64 = 1_700_000_000_000_000_000;

/// One run of a node.
pub(super) struct Run {
    pub(super) node: Node,
    pub(super) number: u64,
    /// What the host's clock read when it started.
    start: Time,
    conns: BTreeMap<ConnId, (u64, usize)>,
    accepted: u64,
    wake: Option<Time>,
    pub(super) wakes: u64,
    pub(super) udp: BTreeMap<SocketId, SocketAddr>,
    drained: bool,
    workshop: Workshop,
}

impl Run {
    /// How many connections its driver has.
    pub(super) fn conns(&self) -> usize {
        self.conns.len()
    }

    /// The connection of the network behind one of the node's, and the node's side of it.
    pub(super) fn pipe(&self, conn: ConnId) -> Option<(u64, usize)> {
        self.conns.get(&conn).copied()
    }
}

/// A machine that may run a node.
pub(super) struct Host {
    pub(super) config: Config,
    pub(super) ip: IpAddr,
    /// A second address.
    also: Option<IpAddr>,
    pub(super) run: Option<Run>,
    runs: u64,
    clock: Clock,
    pub(super) faults: Faults,
    /// Bridges run the real codecs.
    pub(super) real_sound: bool,
    /// Its files, by path.
    pub(super) files: BTreeMap<String, Bytes>,
}

impl Host {
    /// When the clock of the node that runs here read this.
    pub(super) fn when(&self, reads: Time) -> Option<Time> {
        let run = self.run.as_ref()?;
        Some(self.clock.when(run.start + reads.since(Time::ZERO)))
    }

    /// What its next node is started with: as whoever starts a real one does, the keys come out of their file.
    fn as_configured(&self) -> Config {
        let mut config = self.config.clone();
        let path = &config.cluster.key_file;
        if !path.is_empty() {
            let file = self.files.get(path).expect("a host with cluster.key_file has that file");
            let mut keys = Keys::lines(file).expect("it holds keys").into_iter().map(str::to_owned);
            config.cluster.key = keys.next().unwrap_or_default();
            config.cluster.keys_accepted = keys.collect();
        }
        config
    }

    /// How many connections the running node was offered.
    pub(super) fn accepted(&self) -> u64 {
        self.run.as_ref().map_or(0, |r| r.accepted)
    }
}

/// A node's identity: its certificate is the host's own, the cryptography is one for the process, and replays. It is made
/// in a run of its own, where there can be one: it must take nothing from the run that is the first to want it.
fn identity(seed: [u8; 32]) -> Identities {
    static SHARED: OnceLock<Identity> = OnceLock::new();
    static TLS: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let certificate = || crypto::certificate(seed).expect("a certificate can be made");
    let make = || {
        let other = crypto::str0m_provider(crypto::dtls_provider().expect("DTLS passes its self-test"));
        let made = Identity::with_crypto(certificate(), crypto::dimpl_provider(), other);
        made.expect("the cryptography passes its self-test")
    };
    let shared = SHARED.get_or_init(|| os::run([0; 32], make).unwrap_or_else(|_| make()));
    let own = certificate();
    let provider = TLS.get_or_init(|| Arc::new(crypto::tls_provider())).clone();
    let tls = tls::Identity::new(provider, own.certificate.clone(), own.private_key.clone());
    Identities { rtc: shared.with_certificate(own), tls: Some(tls) }
}

impl World {
    /// The run of a host's node, and the number of a connection that comes from the host itself.
    pub(super) fn next_accepted(&mut self, at: HostId) -> Option<(u64, ConnId)> {
        let r = self.hosts[at.0].run.as_mut()?;
        r.accepted += 1;
        Some((r.number, ConnId::accepted(r.accepted)))
    }

    /// A host with a node of these roles, running. `manager`: where its manager is; none: in the node itself.
    pub fn host(&mut self, name: &str, roles: &[Role], manager: Option<HostId>) -> HostId {
        self.host_with(name, roles, manager, |_| {})
    }

    /// As [`World::host`], with changes to its configuration.
    pub fn host_with(
        &mut self,
        name: &str,
        roles: &[Role],
        manager: Option<HostId>,
        change: impl FnOnce(&mut Config),
    ) -> HostId {
        let id = self.host_off(name, roles, manager, change);
        self.start(id);
        id
    }

    /// As [`World::host_with`], but nothing runs on it yet.
    pub fn host_off(
        &mut self,
        name: &str,
        roles: &[Role],
        manager: Option<HostId>,
        change: impl FnOnce(&mut Config),
    ) -> HostId {
        let n = self.hosts.len();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n as u8 + 1));
        let mut config = Config::default();
        config.node.name = name.to_owned();
        config.node.roles = roles.to_vec();
        config.cluster.key = "a key that all nodes share".to_owned();
        config.cluster.manager = manager.map_or_else(String::new, |m| self.hosts[m.0].ip.to_string());
        config.limits.simulation = self.switches;
        config.cluster.transport = if self.quic { LinkTransport::Quic } else { LinkTransport::Tcp };
        if self.sites {
            let seed = self.draw("sites", n as u64, 0);
            config.limits.simulation = config.limits.simulation.sites(seed);
        }
        change(&mut config);
        self.addresses.insert(ip, Party::Host(HostId(n)));
        self.hosts.push(Host {
            config,
            ip,
            also: None,
            run: None,
            runs: 0,
            clock: Clock::default(),
            faults: Faults::default(),
            real_sound: false,
            files: self.files.clone(),
        });
        HostId(n)
    }

    /// Puts a file in place on a host, whole, as an operator's tools do. Nodes see it when they read it the next time.
    pub fn file(&mut self, id: HostId, path: &str, content: &str) {
        self.hosts[id.0].files.insert(path.to_owned(), Bytes::copy_from_slice(content.as_bytes()));
    }

    /// As [`World::file`], on all hosts that are added from now on.
    pub fn file_everywhere(&mut self, path: &str, content: &str) {
        self.files.insert(path.to_owned(), Bytes::copy_from_slice(content.as_bytes()));
    }

    /// The way in which a host's next node will speak to others, if not as this version does.
    pub fn speech(&mut self, id: HostId, speech: Option<Speech>) {
        let limits = &mut self.hosts[id.0].config.limits;
        limits.simulation = limits.simulation.speak(speech);
    }

    /// Starts a host's node, with empty memory.
    pub fn start(&mut self, id: HostId) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        assert!(host.run.is_none(), "{} runs already", host.config.node.name);
        host.runs += 1;
        let number = host.runs;
        let seed = self.rng.fork("node", id.0 as u64 * 1_000 + number).bytes();
        let start = host.clock.read(now);
        let instant = self.base + start.since(Time::ZERO);
        let identity = identity(self.rng.fork("certificate of a host", id.0 as u64).bytes());
        let config = host.as_configured();
        let node = Node::new(config, seed, instant, identity).expect("the configuration is right");
        host.run = Some(Run {
            node,
            number,
            start,
            conns: BTreeMap::new(),
            accepted: 0,
            wake: None,
            wakes: 0,
            udp: BTreeMap::new(),
            drained: false,
            workshop: Workshop::new(host.real_sound),
        });
        let (ips, name): (Vec<IpAddr>, _) =
            (std::iter::once(host.ip).chain(host.also).collect(), host.config.node.name.clone());
        self.watch(id);
        self.trace(|| format!("{name} starts (run {number})"));
        self.wall_clock(id, number);
        self.node(id, number, Input::HostAddresses(&ips));
    }

    /// Ends a node without a word, as a killed process does: its kernel closes its connections.
    pub fn crash(&mut self, id: HostId) {
        assert!(self.hosts[id.0].run.take().is_some(), "nothing runs there");
        let name = self.hosts[id.0].config.node.name.clone();
        self.trace(|| format!("{name} crashes"));
        self.orphan_all(Party::Host(id));
        self.forget_waiting(id);
    }

    /// Ends a node as [`World::crash`] does, and answers how many bytes of the heap it held. Within
    /// [`counted`](os::count::counted), where the program has its allocator; else 0. What nodes share is not in it.
    pub fn weigh(&mut self, id: HostId) -> u64 {
        let Some(run) = self.hosts[id.0].run.as_mut() else { return 0 };
        // Its batches and all else that waits for the driver is on the way to nobody.
        while run.node.poll().is_some() {}
        let before = os::count::count().live;
        self.crash(id);
        u64::try_from(before - os::count::count().live).unwrap_or(0)
    }

    /// How the codecs of a host's running node are from now on.
    pub fn codecs(&mut self, id: HostId, codecs: Codecs) {
        if let Some(run) = &mut self.hosts[id.0].run {
            run.workshop.codecs = codecs;
        }
    }

    /// How many bridges a host's running node has begun, each new try counted.
    pub fn bridges_begun(&self, id: HostId) -> u64 {
        self.hosts[id.0].run.as_ref().map_or(0, |r| r.workshop.begun)
    }

    /// Sends a node the operator's wish for an orderly end.
    pub fn drain(&mut self, id: HostId) {
        if let Some(number) = self.hosts[id.0].run.as_ref().map(|r| r.number) {
            self.drains(id);
            self.host_event(Event::Drain(id.0, number));
        }
    }

    /// Whether a node said that it may end.
    pub fn is_drained(&self, id: HostId) -> bool {
        self.hosts[id.0].run.as_ref().is_some_and(|r| r.drained)
    }

    /// What right wall clocks read when the world began, seconds since 1970.
    pub fn wall_start_s(&self) -> u64 {
        EPOCH / 1_000_000_000
    }

    /// Gives a host a second address. Its node, if it runs, learns it with its next start.
    pub fn second_address(&mut self, id: HostId) -> IpAddr {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 1, id.0 as u8 + 1));
        self.hosts[id.0].also = Some(ip);
        self.addresses.insert(ip, Party::Host(id));
        ip
    }

    fn wall_clock(&mut self, id: HostId, run: u64) {
        let wall = (EPOCH + self.now.as_nanos()).saturating_add_signed(self.hosts[id.0].faults.wall);
        self.node(id, run, Input::WallClock(WallTime(wall)));
        self.at(self.now + Duration::from_secs(60), Event::WallClock(id.0, run));
    }

    /// Hands an input to a node, if that run of it still runs, and does what it says.
    pub(super) fn node(&mut self, id: HostId, run: u64, input: Input<'_>) {
        let host = &mut self.hosts[id.0];
        let reads = host.clock.read(self.now);
        let Some(r) = host.run.as_mut().filter(|r| r.number == run) else { return };
        let (tick, mut said) = (matches!(input, Input::Tick), 0);
        self.hash.u64(self.now.as_nanos());
        self.hash.u64(id.0 as u64);
        input.digest(&mut self.hash);
        r.node.handle(input, Time::ZERO + reads.since(r.start));
        while let Some(output) = self.hosts[id.0].run.as_mut().and_then(|r| r.node.poll()) {
            said += 1;
            output.digest(&mut self.hash);
            self.output(id, run, output);
        }
        self.watched(id, said, tick);
        self.wake_in_time(id);
    }

    /// Has a node woken when it wants to be.
    fn wake_in_time(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        let Some(r) = host.run.as_mut() else { return };
        let Some(deadline) = r.node.deadline() else { return };
        let at = host.clock.when(r.start + deadline.at.since(Time::ZERO)).max(self.now);
        if r.wake.is_none_or(|w| at < w) {
            r.wake = Some(at);
            let run = r.number;
            self.at(at, Event::Wake(id.0, run));
        }
    }

    /// The clock of a host changed: its node is woken by the new one.
    fn rewake(&mut self, id: HostId) {
        if let Some(r) = &mut self.hosts[id.0].run {
            r.wake = None;
        }
        self.wake_in_time(id);
    }

    pub(super) fn node_connected(&mut self, host: HostId, run: u64, conn: ConnId, pipe: u64) {
        let Some((local, remote)) = self.net.pipes.get(pipe).map(|p| (p.ends[0].addr, p.ends[1].addr)) else {
            return;
        };
        self.node(host, run, Input::Connected { conn, local, remote });
    }

    pub(super) fn node_closed(
        &mut self,
        host: HostId,
        run: u64,
        conn: ConnId,
        code: &'static str,
        why: &str,
    ) {
        if let Some(r) = self.hosts[host.0].run.as_mut().filter(|r| r.number == run) {
            r.conns.remove(&conn);
            self.node(host, run, Input::Closed { conn, reason: Reason::peer(code, why.to_owned()) });
        }
    }

    fn output(&mut self, id: HostId, run: u64, output: Output) {
        let Some(r) = self.hosts[id.0].run.as_mut() else { return };
        let at = |r: &super::host::Run, conn: &ConnId| r.conns.get(conn).copied();
        match output {
            Output::Dial { conn, to } => {
                self.dials(id, to);
                if self.lacks_descriptor(id) {
                    let why = "Too many open files (os error 24)";
                    return self.at(self.now, Event::NoDial(id.0, run, conn, why));
                }
                let ip = self.hosts[id.0].ip;
                let pipe = self.dial(Owner::Node { host: id, run, conn }, ip, to);
                if let Some(r) = self.hosts[id.0].run.as_mut() {
                    r.conns.insert(conn, (pipe, 0));
                }
            }
            Output::Send { conn, bytes } => {
                if let Some((pipe, side)) = at(r, &conn) {
                    let from = self.net.pipes.get(pipe).map(|p| p.ends[side].addr.port());
                    if from == Some(self.hosts[id.0].config.http.port) {
                        self.gives_out(id, &bytes);
                    }
                    self.send(pipe, side, bytes);
                }
            }
            Output::Close { conn, now } => {
                if let Some((pipe, side)) = r.conns.remove(&conn) {
                    self.close(pipe, side, now);
                }
            }
            Output::Reading { conn, on } => {
                if let Some((pipe, side)) = at(r, &conn) {
                    self.reading(pipe, side, on);
                }
            }
            // Hosts here hold the same for everybody.
            Output::LetIn { .. } => {}
            Output::OpenUdp { socket, bind } => {
                let local = SocketAddr::new(self.hosts[id.0].ip, bind.port());
                if let Some(r) = self.hosts[id.0].run.as_mut() {
                    r.udp.insert(socket, local);
                }
                self.at(self.now, Event::UdpOpened(id.0, run, socket, local));
            }
            Output::CloseUdp { socket } => drop(r.udp.remove(&socket)),
            Output::Datagrams(batch) => {
                let refused = match r.udp.get(&batch.socket).copied() {
                    Some(from) => self.batch(id, from, &batch),
                    None => 0,
                };
                self.at(self.now, Event::Sent(id.0, run, batch, refused));
            }
            Output::Ask { ask, work: Work::ReadFile { path } } => {
                let found = self.hosts[id.0].files.get(&path).cloned();
                let answer = Answer::File(
                    found.ok_or_else(|| format!("{path} cannot be read: this host has no such file")),
                );
                self.at(self.now + Duration::from_millis(1), Event::Answer(id.0, run, ask, answer));
            }
            Output::Ask { ask, work: Work::Resolve { host, port } } => {
                let (wait, answer) = self.look_up(id, &host, port);
                self.at(self.now + wait, Event::Answer(id.0, run, ask, answer));
            }
            Output::Ask { ask, work: Work::Check(check) } => {
                // Slow hashes take their time, in which anything can happen.
                let answer = Answer::Checked(Ok(check.run()));
                self.at(self.now + Duration::from_millis(30), Event::Answer(id.0, run, ask, answer));
            }
            Output::Ask { ask, work: Work::Bridge(work) } => {
                if let Some(answer) = r.workshop.work(work) {
                    self.at(self.now + CONVERTS, Event::Answer(id.0, run, ask, Answer::Bridged(answer)));
                }
            }
            Output::Log(line) => {
                let about: Vec<String> = line.session.into_iter().chain(line.stream).collect();
                let text = format!("{} [{}] {}", line.target, about.join(" "), line.text);
                self.logged(id, line.level, text);
            }
            Output::Fatal(reason) => {
                let name = self.hosts[id.0].config.node.name.clone();
                self.violate("FATAL", format!("{name} cannot go on: {reason}"));
            }
            Output::Drained => {
                r.drained = true;
                let name = self.hosts[id.0].config.node.name.clone();
                self.trace(|| format!("{name} is drained"));
            }
        }
    }

    /// The host of an event that a paused host does not see.
    fn stopped(&self, event: &Event) -> Option<Party> {
        let (Event::Wake(n, _)
        | Event::WallClock(n, _)
        | Event::Answer(n, ..)
        | Event::UdpOpened(n, ..)
        | Event::NoDial(n, ..)
        | Event::Drain(n, _)
        | Event::Sent(n, ..)) = event
        else {
            return None;
        };
        let party = Party::Host(HostId(*n));
        self.is_paused(party).then_some(party)
    }

    pub(super) fn host_event(&mut self, event: Event) {
        if let Some(party) = self.stopped(&event) {
            return self.freeze(party, event);
        }
        match event {
            Event::Wake(host, run) => {
                if let Some(r) = self.hosts[host].run.as_mut().filter(|r| r.number == run)
                    && r.wake.is_some_and(|at| at <= self.now)
                {
                    r.wake = None;
                    r.wakes += 1;
                    self.node(HostId(host), run, Input::Tick);
                }
            }
            Event::WallClock(host, run) => {
                if self.hosts[host].run.as_ref().is_some_and(|r| r.number == run) {
                    self.wall_clock(HostId(host), run);
                }
            }
            Event::Answer(host, run, ask, answer) => {
                self.node(HostId(host), run, Input::Answer { ask, answer });
            }
            Event::UdpOpened(host, run, socket, local) => {
                self.node(HostId(host), run, Input::UdpOpened { socket, local, max_segments: 10 });
            }
            Event::Sent(host, run, batch, refused) => {
                self.node(HostId(host), run, Input::Sent { batch, refused });
            }
            Event::NoDial(host, run, conn, why) => self.no_dial(HostId(host), run, conn, why),
            Event::Drain(host, run) => self.node(HostId(host), run, Input::Drain),
            Event::Accept(host) => self.accept_all(HostId(host)),
            other => unreachable!("{other:?} is no event of a host"),
        }
    }

    fn no_dial(&mut self, id: HostId, run: u64, conn: ConnId, why: &str) {
        let text = format!("the connection could not be made: {why}");
        self.node(id, run, Input::Closed { conn, reason: Reason::peer("dial_failed", text) });
    }
}
