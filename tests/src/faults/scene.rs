//! Manager, two origins and two edges; publishers and viewers of every protocol at the pair that will be hit and at the
//! pair that will not.

use super::network::{self, Network};
use super::{Fault, Row, Victim};
use crate::interop::cluster::{Net, Node};
use crate::live::{Id, Live, Protocol};
use crate::world::actors::asker::Asker;
use proto_core::auth::Action;
use proto_core::auth::token::{Claims, OneOrMany, TokenKeys};
use proto_core::time::Time;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clients come again so soon after their connection ended.
pub(super) const AGAIN: Duration = Duration::from_millis(300);
/// A player that sees nothing for so long connects anew.
const STARES: Duration = Duration::from_millis(2_500);
/// What is back shows at least so many pictures of the 25 in each following second.
const PICTURES: usize = 20;
/// The longest that a cluster takes to stand, with all who watch.
const SETTLES: Duration = Duration::from_secs(30);

/// Publishers show a token: only somebody who is known replaces his own session at once (A24), anybody else waits until the
/// old one has been silent for three seconds.
const RULES: &str = r#"auth.rules=[{action="publish",who=["tokens"]},{action="play",who=["anyone"]},{action="api",who=["anyone"]}]"#;
const SECRET: &str = "a secret of thirty-two characters";

/// A token to publish a stream, good for as long as a cell may take.
fn token(stream: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let claims = Claims {
        sub: stream.to_owned(),
        iat: now,
        nbf: None,
        exp: now + 3_600,
        end: None,
        jti: String::new(),
        action: OneOrMany::One(Action::Publish),
        stream: OneOrMany::One(stream.to_owned()),
        of: String::new(),
        ip: None,
    };
    TokenKeys::new(SECRET.as_bytes(), "", "").mint(&claims).unwrap_or_default()
}

/// One client and what is known of it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) id: Id,
    pub(super) by: Protocol,
    pub(super) stream: String,
    pub(super) publishes: bool,
    pub(super) hit: bool,
    /// It came after the fault's end.
    newcomer: bool,
    /// When its last picture came.
    picture: Option<Time>,
    /// When it connected anew because it saw nothing, or began.
    stares_from: Time,
    /// When a publisher was not ready, and is again.
    ready_since: Option<Time>,
    /// Gaps and connections when the fault began.
    before: usize,
}

pub(super) struct Scene {
    pub(super) live: Live,
    pub(super) nodes: [Node; 5],
    pub(super) victim: Victim,
    pub(super) all: Vec<Watched>,
    pub(super) link: Option<Network>,
    /// When the fault ended.
    pub(super) ended: Time,
    clients: Box<dyn Fn(u8) -> Ipv4Addr>,
    next_client: u8,
    place: Option<(Id, usize)>,
    files: Option<PathBuf>,
}

/// Places of nodes in [`Scene::nodes`].
pub(super) const MANAGER: usize = 0;
pub(super) const ORIGIN: usize = 1;
pub(super) const EDGE: usize = 2;
pub(super) const OTHER_ORIGIN: usize = 3;
pub(super) const OTHER_EDGE: usize = 4;

impl Scene {
    /// Starts all, and waits until every viewer sees its stream.
    pub(super) fn start(fault: Fault, victim: Victim, network: Option<&Network>) -> Result<Scene, String> {
        let hit = match victim {
            Victim::Manager => MANAGER,
            Victim::Origin => ORIGIN,
            Victim::Edge => EDGE,
        };
        let mut link = match (fault.is_network(), network) {
            (true, Some(n)) => Some(Network::named(&n.left, &n.right)),
            (true, None) => return Err("it needs namespaces".to_owned()),
            (false, _) => None,
        };
        let net = if link.is_some() { None } else { Some(Net::fresh()) };
        if let Some(link) = &mut link {
            link.link()?;
        }
        let at = |n: usize| match net {
            Some(net) => net.host(n as u8 + 1),
            None if n == hit => network::VICTIM,
            None => network::other(n as u8 + 1),
        };
        let files = std::env::temp_dir().join(format!("headwater-faults-{}", std::process::id()));
        std::fs::create_dir_all(&files).map_err(|e| e.to_string())?;
        let right = link.as_ref().map(|l| l.right.clone());
        let start = |n: usize, name: &str, roles: &str| {
            let manager = (n != MANAGER).then(|| at(MANAGER));
            let secret = format!("auth.secret={SECRET}");
            let mut more =
                ["--set", "cluster.key=faults", "--set", &secret, "--set", RULES].map(str::to_owned).to_vec();
            let mut before: Vec<String> = Vec::new();
            if let Some(right) = right.as_ref().filter(|_| n == hit) {
                before = ["ip", "netns", "exec", right].map(str::to_owned).to_vec();
            }
            if fault == Fault::Disk && n == hit {
                // A manager is told little.
                let size = if n == MANAGER { "24k" } else { "64k" };
                let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && exec \"$@\"");
                before = ["unshare", "-m", "sh", "-c", &mount].map(str::to_owned).to_vec();
                before.push(files.display().to_string());
                more.extend(["--record".to_owned(), files.join("full.rec").display().to_string()]);
            }
            if fault == Fault::Memory && n == hit {
                // Rings of the six streams, and some sessions more than there are.
                more.extend(["--set", "limits.memory_bytes=67108864"].map(str::to_owned));
            }
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            Node::start_by(&before, name, roles, at(n), manager, &more)
        };
        let nodes = [
            start(MANAGER, "m1", "manager"),
            start(ORIGIN, "o1", "origin"),
            start(EDGE, "e1", "edge"),
            start(OTHER_ORIGIN, "o2", "origin"),
            start(OTHER_EDGE, "e2", "edge"),
        ];
        let clients: Box<dyn Fn(u8) -> Ipv4Addr> = match net {
            Some(net) => Box::new(move |n| net.host(n)),
            None => Box::new(|n| network::other(n.min(network::OTHERS))),
        };
        let mut scene = Scene {
            live: Live::new(1),
            nodes,
            victim,
            all: Vec::new(),
            link,
            ended: Time::ZERO,
            clients,
            next_client: 10,
            place: None,
            files: Some(files),
        };
        for node in &mut scene.nodes {
            node.wait_http("/readyz");
        }
        scene.people(fault)?;
        Ok(scene)
    }

    pub(super) fn ip(&self, node: usize) -> Ipv4Addr {
        self.nodes[node].ip
    }

    pub(super) fn hit_node(&self) -> usize {
        match self.victim {
            Victim::Manager => MANAGER,
            Victim::Origin => ORIGIN,
            Victim::Edge => EDGE,
        }
    }

    /// What the victim said last.
    pub(super) fn victims_log(&self) -> String {
        self.nodes[self.hit_node()].log.tail(60)
    }

    fn client(&mut self) -> Ipv4Addr {
        self.next_client += 1;
        (self.clients)(self.next_client)
    }

    fn watch(&mut self, id: Id, by: Protocol, stream: &str, publishes: bool, hit: bool) {
        let stream = stream.to_owned();
        self.all.push(Watched {
            id,
            by,
            stream,
            publishes,
            hit,
            newcomer: false,
            picture: None,
            stares_from: self.live.now(),
            ready_since: None,
            before: 0,
        });
    }

    fn people(&mut self, fault: Fault) -> Result<(), String> {
        let spared = fault.spares_those_who_are_in();
        for (app, origin, edge) in [("hit", ORIGIN, EDGE), ("calm", OTHER_ORIGIN, OTHER_EDGE)] {
            for by in Protocol::ALL {
                let stream = format!("{app}/{}", by.port());
                let hit = app == "hit" && !spared && self.victim != Victim::Manager;
                let (from, to) = (self.client(), self.ip(origin));
                let shown = format!("{stream}?token={}", token(&stream));
                let p = self.live.publish(by, from, to, &shown, Some(AGAIN));
                self.watch(p, by, &stream, true, hit && self.victim == Victim::Origin);
                let (from, to) = (self.client(), self.ip(edge));
                let v = self.live.play(by, from, to, &stream, Some(AGAIN));
                self.watch(v, by, &stream, false, hit);
            }
        }
        let all: Vec<(Id, bool)> = self.all.iter().map(|w| (w.id, w.publishes)).collect();
        let stands = self.live.until(SETTLES, |live| {
            all.iter().all(|(id, publishes)| match publishes {
                true => live.published(*id).ready,
                false => live.played(*id).picture.is_some(),
            })
        });
        if !stands {
            let missing: Vec<String> = (self.all.iter())
                .filter(|w| !self.live.published(w.id).ready && self.live.played(w.id).picture.is_none())
                .map(|w| format!("{} {}", w.by.name(), w.stream))
                .collect();
            return Err(format!("not all were there after {SETTLES:?}: {missing:?}"));
        }
        // A viewer that came before its publisher tried more than once.
        self.during(Duration::from_secs(3));
        for w in &mut self.all {
            w.before = count(&self.live, w);
        }
        Ok(())
    }

    /// Lets time pass, and looks at everybody.
    pub(super) fn during(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    pub(super) fn until(&mut self, within: Duration, mut done: impl FnMut(&mut Scene) -> bool) -> bool {
        let end = self.live.now() + within;
        while self.live.now() < end {
            if done(self) {
                return true;
            }
            self.live.run(Duration::from_millis(10));
            self.look();
        }
        done(self)
    }

    fn look(&mut self) {
        let now = self.live.now();
        for w in &mut self.all {
            if w.publishes {
                let ready = self.live.published(w.id).ready;
                w.ready_since = if ready { w.ready_since.or(Some(now)) } else { None };
                continue;
            }
            w.picture = self.live.played(w.id).picture;
            // As people do; of what is spared it would hide a loss.
            let seen = w.picture.unwrap_or(Time::ZERO).max(w.stares_from);
            if w.hit && now.since(seen) > STARES {
                self.live.connect(w.id);
                w.stares_from = now;
            }
        }
    }

    /// Asks the manager where a client is to go, and sends it there if that is elsewhere. One question at a time.
    pub(super) fn ask_the_manager(&mut self) {
        if let Some((asker, of)) = self.place {
            let answer = self.live.with(asker, |a: &mut Asker, _| a.result.take()).flatten();
            let Some(answer) = answer else { return };
            self.live.remove(asker);
            self.place = None;
            if let Ok((200, body)) = answer
                && let Ok(json) = serde_json::from_str::<serde_json::Value>(&body)
                && let Some(to) = json["serverAddress"].as_str().and_then(|ip| ip.parse().ok())
            {
                self.live.send_to(self.all[of].id, to);
            }
        }
        let waits = |w: &Watched, live: &Live, now: Time| {
            let idle = w.picture.is_none_or(|at| now.since(at) > Duration::from_millis(500));
            w.hit && if w.publishes { !live.published(w.id).ready } else { idle }
        };
        let now = self.live.now();
        let Some(of) =
            (0..self.all.len()).filter(|n| waits(&self.all[*n], &self.live, now)).min_by_key(|n| {
                // In turn.
                (*n + self.all.len() - self.next_client as usize % self.all.len()) % self.all.len()
            })
        else {
            return;
        };
        self.next_client = self.next_client.wrapping_add(1).max(10) % 50 + 10;
        let action = if self.all[of].publishes { "broadcast" } else { "subscribe" };
        let stream = &self.all[of].stream;
        let path = format!("/streammanager/api/4.0/event/{stream}?action={action}&token={}", token(stream));
        let to = SocketAddr::new(self.ip(MANAGER).into(), 5080);
        let from = (self.clients)(5);
        let asker = self.live.add(Box::new(Asker::new(to, &path)), from);
        self.place = Some((asker, of));
    }

    /// Somebody of each protocol comes and watches a stream that is there, at a node.
    pub(super) fn newcomers(&mut self, at: usize, app: &str) {
        for by in Protocol::ALL {
            let (from, to) = (self.client(), self.ip(at));
            let stream = format!("{app}/{}", by.port());
            let id = self.live.play(by, from, to, &stream, Some(AGAIN));
            self.watch(id, by, &stream, false, true);
            if let Some(w) = self.all.last_mut() {
                w.newcomer = true;
            }
        }
    }

    /// How everybody fared.
    pub(super) fn rows(&self, fault: Fault) -> Vec<Row> {
        let within = fault.back_within();
        let mut rows: Vec<Row> = Vec::new();
        for w in &self.all {
            let what = match (w.publishes, w.newcomer) {
                (true, _) => "publishers",
                (false, true) => "newcomers",
                (false, false) => "viewers",
            };
            let lost = count(&self.live, w).saturating_sub(w.before);
            let back = if w.hit { self.back(w) } else { None };
            let good = if w.hit { back.is_some_and(|b| b <= within) } else { lost == 0 };
            let who = format!("{} {what}", w.by.name());
            match rows.iter_mut().find(|r| r.who == who && r.hit == w.hit) {
                Some(row) => {
                    row.lost += lost;
                    row.back = row.back.max(back).filter(|_| back.is_some() || !w.hit);
                    row.good &= good;
                }
                None => rows.push(Row { who, hit: w.hit, lost, back, good }),
            }
        }
        rows
    }

    /// How long after the fault's end somebody was back for good.
    fn back(&self, w: &Watched) -> Option<Duration> {
        if w.publishes {
            return w.ready_since.map(|at| at.since(self.ended));
        }
        let after: Vec<Time> = self.live.pictures(w.id).into_iter().filter(|at| *at >= self.ended).collect();
        let full = |(n, at): (usize, &Time)| {
            let next = after.get(n + PICTURES)?;
            (next.since(*at) <= Duration::from_secs(1)).then(|| at.since(self.ended))
        };
        after.iter().enumerate().find_map(full)
    }
}

/// What somebody lost so far: gaps, and connections beyond the first.
fn count(live: &Live, w: &Watched) -> usize {
    if w.publishes {
        return live.published(w.id).times;
    }
    let played = live.played(w.id);
    played.gaps + played.connections as usize
}

impl Drop for Scene {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if let Some(files) = self.files.take() {
            drop(std::fs::remove_dir_all(files));
        }
    }
}
