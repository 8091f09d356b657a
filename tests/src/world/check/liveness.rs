//! What must come to hold once all faults are over, and that nothing is left when everyone has gone.

use crate::world::actors::publisher::Publisher;
use crate::world::actors::{Client, In, Notes, Out, Standing};
use crate::world::{ClientId, HostId, Party, World};
use proto_core::media::key::StreamKey;
use proto_core::node::audit::Audit;
use proto_core::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// L4, L8: two report intervals, the longest pause between two dials to a manager, and a moment.
const RELEARN: Duration = Duration::from_millis(4_500);
/// L1: a publisher that keeps retrying publishes; and the pause between two of its attempts.
const PUBLISH: Duration = Duration::from_millis(6_000);
/// L2 (3 s), L3 (lease and 2 s), and the dial of a node that was under way when the network came back (it is given up
/// after 5 s).
const PLAY: Duration = Duration::from_millis(8_000);
/// A player whose newest picture is older than this does not play.
const FRESH: Duration = Duration::from_millis(1_500);
/// A connection attempt of a client that is neither accepted nor refused after this is stuck.
const SILENT: Duration = Duration::from_millis(6_000);
/// How long clients have for saying goodbye.
const GOODBYE: Duration = Duration::from_millis(2_000);
/// After this nothing may be left of anyone: consent, the hold time, lingering pulls, and a moment.
const IDLE: Duration = Duration::from_millis(72_000);

/// Nobody any more.
struct Gone(Notes);

impl Client for Gone {
    fn on(&mut self, _: In<'_>, _: Time) {}
    fn poll(&mut self) -> Option<Out> {
        None
    }
    fn wake(&self) -> Option<Time> {
        None
    }
    fn notes(&mut self) -> &mut Notes {
        &mut self.0
    }
    fn standing(&self) -> Standing {
        Standing { ended: true, ..Standing::default() }
    }
}

impl World {
    /// Ends a client without a word: its kernel resets its connections, and it never comes back.
    pub fn remove(&mut self, client: ClientId) {
        let slot = &mut self.clients[client.0];
        slot.actor = Box::new(Gone(Notes::default()));
        for (pipe, side) in std::mem::take(&mut slot.pipes).into_values() {
            self.close(pipe, side, true);
        }
        self.trace(|| format!("client{} is removed", client.0));
    }

    /// To be called when all faults are healed. Lets time pass and violates L1, L2, L3, L4 or L8 if not everybody gets
    /// what they want in time. Clients that are still cut off count as gone for good. Answers whether all is well.
    pub fn expect_recovery(&mut self) -> bool {
        let healed = self.now();
        self.lapse(RELEARN);
        if self.violation().is_none() {
            self.relearnt();
        }
        self.everyone_publishes(healed);
        self.everyone_plays();
        self.violation().is_none()
    }

    /// Who wants something and can be helped. A kernel keeps a connection that leads nowhere for a quarter of an hour
    /// while its bytes are not acknowledged, and clients of RTMP believe it: they neither publish nor see anything.
    fn wanting(&self) -> Vec<(ClientId, Standing)> {
        let here = |id: &ClientId| !self.is_cut_off(Party::Client(*id)) && !self.is_stranded(*id);
        self.standings().filter(|(id, s)| here(id) && !s.ended && s.stream.is_some()).collect()
    }

    /// Whether a client holds an RTMP connection that leads nowhere.
    fn is_stranded(&self, client: ClientId) -> bool {
        let rtmp = |to: SocketAddr| {
            self.hosts.iter().any(|h| [h.config.rtmp.port, h.config.rtmps.port].contains(&to.port()))
        };
        self.net.pipes.iter().any(|(_, p)| p.strands(Party::Client(client)) && rtmp(p.dialled()))
    }

    /// All nodes that run, with their audits.
    pub fn audits(&self) -> Vec<(HostId, Audit)> {
        let audit =
            |(n, h): (usize, &crate::world::host::Host)| Some((HostId(n), h.run.as_ref()?.node.audit()));
        self.hosts.iter().enumerate().filter_map(audit).collect()
    }

    fn called(&self, host: HostId) -> String {
        self.hosts[host.0].config.node.name.clone()
    }

    /// L4: managers know what is published. L8: each name is published once.
    fn relearnt(&mut self) {
        let mut owners: BTreeMap<StreamKey, Vec<String>> = BTreeMap::new();
        let audits = self.audits();
        let mut wrong = Vec::new();
        for (host, _) in &audits {
            let Some(run) = &self.hosts[host.0].run else { continue };
            for (key, epoch, since) in run.node.publishing() {
                owners.entry(key.clone()).or_default().push(self.called(*host));
                let begun = self.hosts[host.0].when(since).unwrap_or(self.now);
                if self.now.since(begun) < RELEARN {
                    continue;
                }
                for books in audits.iter().filter_map(|(_, a)| a.books.as_ref()) {
                    let booked = books.streams.iter().find(|s| s.key == *key);
                    let told = booked.map(|s| (s.epoch, s.owner.clone()));
                    if booked.is_none() {
                        wrong.push((
                            "L4",
                            format!(
                                "{} publishes {key} under epoch {epoch}; the manager knows {told:?}",
                                self.called(*host)
                            ),
                        ));
                    }
                }
            }
        }
        for (key, owners) in owners.iter().filter(|(_, o)| o.len() > 1) {
            wrong.push(("L8", format!("{key} is published by {} at once", owners.join(" and "))));
        }
        if let Some((invariant, text)) = wrong.into_iter().next() {
            self.violate(invariant, text);
        }
    }

    /// Whether a client has a dial under way that began before a time.
    fn dials_since(&self, client: ClientId, before: Time) -> bool {
        self.net.pipes.iter().any(|(_, p)| p.dials(Party::Client(client), before))
    }

    /// Whether a client calls or talks to a run of a node that died meanwhile, or waits for an answer on a connection that
    /// leads nowhere any more: such a call ends by the client's own patience.
    fn calls_in_vain(&self, client: ClientId, standing: &Standing) -> bool {
        let stranded = || self.net.pipes.iter().any(|(_, p)| p.strands(Party::Client(client)));
        if standing.calls.is_some() && stranded() {
            return true;
        }
        let Some((to, since)) = standing.calls.or(standing.talks) else { return false };
        self.hosts
            .iter()
            .filter(|h| h.ip == to.ip())
            .any(|h| h.when(Time::ZERO).is_none_or(|began| began > since))
    }

    /// L1: of all who want to publish a name one does, and the others are told so.
    fn everyone_publishes(&mut self, healed: Time) {
        // A dial that began while nothing passed fails by itself first.
        let mut from = healed;
        loop {
            if self.violation().is_some() {
                return;
            }
            let wanting = self.wanting();
            let publishers = wanting.iter().filter(|(_, s)| s.publishes);
            let mut lost: BTreeMap<&str, ClientId> = BTreeMap::new();
            let mut has: BTreeSet<&str> = BTreeSet::new();
            for (id, s) in publishers {
                let Some(stream) = s.stream.as_deref() else { continue };
                if self.dials_since(*id, healed) || self.calls_in_vain(*id, s) {
                    from = self.now;
                }
                match s.session {
                    Some(_) => drop(has.insert(stream)),
                    None => drop(lost.insert(stream, *id)),
                }
            }
            let nobody = lost.iter().find(|(s, _)| !has.contains(*s)).map(|(s, id)| ((*s).to_owned(), *id));
            let unanswered = self.unanswered(&wanting);
            if nobody.is_none() && unanswered.is_none() {
                return;
            }
            if self.now.since(from) > PUBLISH {
                let ms = self.now.since(healed).as_millis();
                let text = match (nobody, unanswered) {
                    (Some((stream, id)), _) => {
                        format!(
                            "nobody publishes {stream} {ms} ms after the faults, though client{} tries",
                            id.0
                        )
                    }
                    (_, Some(id)) => format!("client{} is neither accepted nor refused for {ms} ms", id.0),
                    _ => return,
                };
                return self.violate("L1", text);
            }
            self.lapse(Duration::from_millis(250));
        }
    }

    fn unanswered(&self, wanting: &[(ClientId, Standing)]) -> Option<ClientId> {
        let stuck = |id: &ClientId| {
            let sent = self.actor::<Publisher>(*id).and_then(|p| p.sent.last());
            sent.is_some_and(|s| {
                let age = self.now.as_millis().saturating_sub(s.session / 1_000);
                s.ready.is_none() && s.ended.is_none() && u128::from(age) > SILENT.as_millis()
            })
        };
        wanting.iter().filter(|(_, s)| s.publishes).map(|(id, _)| *id).find(stuck)
    }

    /// L2, L3: every player sees the newest publisher of its stream.
    fn everyone_plays(&mut self) {
        let mut from = self.now;
        let before: BTreeMap<ClientId, bool> =
            self.standings().map(|(id, s)| (id, s.last_picture.is_some())).collect();
        loop {
            if self.violation().is_some() {
                return;
            }
            let wanting = self.wanting();
            let live = |stream: &Option<String>| {
                wanting
                    .iter()
                    .filter(|(_, s)| s.publishes && s.stream == *stream)
                    .filter_map(|(_, s)| s.session)
                    .max()
            };
            let misses = wanting.iter().filter(|(_, s)| !s.publishes).find_map(|(id, s)| {
                let session = live(&s.stream)?;
                let fresh = s.last_picture.is_some_and(|at| self.now.since(at) < FRESH);
                (s.session != Some(session) || !fresh).then(|| (*id, s.clone(), session))
            });
            let Some((id, s, session)) = misses else { return };
            if wanting.iter().any(|(id, s)| !s.publishes && self.calls_in_vain(*id, s)) {
                from = self.now;
            }
            if self.now.since(from) > PLAY {
                let stream = s.stream.unwrap_or_default();
                let last = s.last_picture.map(|at| at.to_string());
                let had = before.get(&id).copied().unwrap_or(false);
                let text = format!(
                    "client{} does not see publisher {session} of {stream}; its newest picture is of {:?}, at {last:?}",
                    id.0, s.session
                );
                return self.violate(if had { "L3" } else { "L2" }, text);
            }
            self.lapse(Duration::from_millis(250));
        }
    }

    /// Everyone leaves. After the idle time nothing of them may be left at any node (S7). Answers whether nothing is.
    pub fn expect_drained(&mut self) -> bool {
        for n in 0..self.clients.len() {
            self.leave(ClientId(n));
        }
        self.lapse(GOODBYE);
        for n in 0..self.clients.len() {
            self.remove(ClientId(n));
        }
        self.lapse(IDLE);
        if self.violation().is_none() {
            for (host, audit) in self.audits() {
                // A file of keys is looked at for as long as a node runs.
                let looks = !self.hosts[host.0].config.cluster.key_file.is_empty();
                if let Some(text) = left(&audit, usize::from(looks)) {
                    let name = self.called(host);
                    self.violate(
                        "S7",
                        format!("{name}: everyone has left for {} s, and there are {text}", IDLE.as_secs()),
                    );
                }
                let (known, there) = (audit.conns.0 + audit.conns.1, self.connections(host.into()));
                if known != there {
                    let name = self.called(host);
                    self.violate("S7", format!("{name} has {known} connections, the network {there}"));
                }
            }
        }
        self.violation().is_none()
    }
}

/// What a node that nobody uses still holds, beside so many timers of its own.
fn left(audit: &Audit, own: usize) -> Option<String> {
    let books = audit.books.as_ref();
    // Load is measured; each link has its sign of life.
    let timers = audit.timers.saturating_sub(1 + own + audit.conns.1 + audit.quic_links);
    let counts = [
        ("sessions", audit.sessions.len()),
        ("connections of clients", audit.conns.0),
        ("idle connections counted", audit.idle_conns),
        ("timers", timers),
        ("WebRTC sessions", audit.rtc.sessions),
        ("ICE user names", audit.rtc.ufrags),
        ("addresses of WebRTC peers", audit.rtc.paths),
        ("TCP connections of WebRTC peers", audit.rtc.streams),
        ("timers of WebRTC", audit.rtc.timers),
        ("clients of the websocket dialect", audit.signals),
        ("proxied websockets and requests", audit.proxied),
        ("datagrams waiting", audit.rtc.waiting),
        ("streams", audit.streams.len()),
        ("subscribers", audit.subscribers.len()),
        ("timers of the hub", audit.hub_timers),
        ("pulls", audit.pulls.len()),
        ("pulls of others", audit.serves.len()),
        ("names owned", audit.owned),
        ("questions to the manager", audit.asked),
        ("waiting", audit.waiting.iter().sum()),
        ("streams in the books", books.map_or(0, |b| b.streams.len())),
        ("reservations", books.map_or(0, |b| b.reservations)),
        ("waiting questions", books.map_or(0, |b| b.waiting)),
    ];
    let left: Vec<String> =
        counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    (!left.is_empty()).then(|| left.join(", "))
}
