//! What the manager answers in the stream-manager dialect, both generations, beside the question for a node
//! (`web`): lists, numbers, login. The shapes stand in `http::sm1` and `http::sm2`.

use super::Node;
use super::api::role_name;
use super::operators::{NO_MANAGER, words};
use crate::cluster::NodeId;
use crate::cluster::manager::{DrainOrder, Manager};
use crate::cluster::registry::{self, StreamState};
use crate::http::api::{ProxyInfo, answer};
use crate::http::event::{EventUrls, error};
use crate::http::message::{Request, Response};
use crate::http::sm1::{self, Event, EventStats, NodeStats};
use crate::http::sm2::{self, DEFAULT_GROUP, NodeEvent, NodeStatus, ScalingEvent, StatusFilter, StreamNode};
use crate::ids::Role;
use crate::io::ConnId;
use crate::media::key::StreamKey;
use crate::time::Time;
use crate::wire::link::NodeInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

const NO_PROXY: &str = "no such websocket is proxied; it may have ended already";

/// The role that a dialect with one role per node gets to see.
fn first_role(roles: &[Role]) -> &'static str {
    match roles {
        r if r.contains(&Role::Origin) => "origin",
        r if r.contains(&Role::Edge) => "edge",
        _ => "manager",
    }
}

/// Streams with a publisher.
fn live(manager: &Manager) -> impl Iterator<Item = (&StreamKey, &registry::Stream)> {
    manager.registry().streams().iter().filter(|(_, s)| s.state != StreamState::Held)
}

/// The nodes that a node pulls streams from.
fn parents<'a>(manager: &'a Manager, node: &registry::Node) -> Vec<&'a NodeInfo> {
    let registry = manager.registry();
    let owners: BTreeSet<&NodeId> =
        node.relays.keys().filter_map(|k| registry.stream(k)?.owner.as_ref()).collect();
    owners.into_iter().filter_map(|id| Some(&registry.node(id)?.info)).collect()
}

impl Node {
    fn wall_ms(&self, at: Time) -> u64 {
        self.wall.wall(at).0 / 1_000_000
    }

    /// Viewers of a stream on all nodes, this one included.
    fn all_viewers(&self, manager: &Manager) -> BTreeMap<StreamKey, u64> {
        let elsewhere = manager.registry().viewers(&self.id).into_iter();
        let mut all: BTreeMap<StreamKey, u64> = elsewhere.map(|(k, n)| (k.clone(), n)).collect();
        for (stream, n) in self.viewers() {
            if let Some(key) = self.hub.key(stream) {
                *all.entry(key.clone()).or_default() += u64::from(n);
            }
        }
        all
    }

    /// Answers a call of the first generation.
    pub(super) fn sm1(&mut self, conn: ConnId, request: &Request, call: sm1::Call) -> Response {
        let wall = self.wall.wall(self.now);
        let changes = if call.changes() { self.may_change(conn, request) } else { Ok(()) };
        let done = match changes {
            Err(response) => Err((response.status, words(&response))),
            Ok(()) => self.sm1_call(request, call),
        };
        done.unwrap_or_else(|(status, text)| error(status, &text, wall))
    }

    fn sm1_call(&mut self, request: &Request, call: sm1::Call) -> Result<Response, (u16, String)> {
        let manager = self.manager.as_ref().ok_or((503, NO_MANAGER.to_owned()))?;
        Ok(match call {
            sm1::Call::Events => {
                let event = |(key, stream)| self.sm1_event(manager, key, stream, None);
                answer(&live(manager).map(event).collect::<Vec<_>>())
            }
            sm1::Call::EventStats(key) => {
                let (_, stream) = live(manager)
                    .find(|(k, _)| **k == key)
                    .ok_or_else(|| (404, format!("nobody publishes {key}")))?;
                let viewers = self.all_viewers(manager).get(&key).copied().unwrap_or(0);
                answer(&self.sm1_event(manager, &key, stream, Some(viewers)))
            }
            sm1::Call::Nodes { role } => {
                let wanted = |n: &&registry::Node| {
                    role.as_deref().is_none_or(|r| n.info.roles.iter().any(|have| role_name(have) == r))
                };
                let nodes = manager.registry().nodes().values().filter(wanted);
                answer(&nodes.map(|n| self.sm1_node(manager, n, false)).collect::<Vec<_>>())
            }
            sm1::Call::Node(name) => self.sm1_one(&name, false)?,
            sm1::Call::NodeStats(name) => self.sm1_one(&name, true)?,
            sm1::Call::Proxies => answer(&self.proxy_clients()),
            sm1::Call::Proxy(id) => match self.proxy_clients().into_iter().find(|p| p.id == id) {
                Some(client) => answer(&client),
                None => return Err((404, NO_PROXY.to_owned())),
            },
            sm1::Call::KickProxy(id) => {
                if !self.kick_proxy(&id) {
                    return Err((404, NO_PROXY.to_owned()));
                }
                Response::no_content()
            }
            sm1::Call::Terminate(name) => {
                self.order_drain(&name, DrainOrder { on: true, within_ms: 0, stop: true })
                    .map_err(|r| (r.status, r.text))?;
                self.sm1_one(&name, false)?
            }
            sm1::Call::Sunset => {
                let names = sm1::sunset(request).map_err(|text| (400, text))?;
                // All or none: a list with a slip in it must not be half done.
                for name in &names {
                    manager.find_node(name).map_err(|r| (r.status, r.text))?;
                }
                for name in &names {
                    self.order_drain(name, DrainOrder { on: true, within_ms: 0, stop: false })
                        .map_err(|r| (r.status, r.text))?;
                }
                answer(&names)
            }
        })
    }

    fn sm1_event(
        &self,
        manager: &Manager,
        key: &StreamKey,
        stream: &registry::Stream,
        viewers: Option<u64>,
    ) -> Event {
        let owner = stream.owner.as_ref().and_then(|n| manager.registry().node(n));
        let up_ms = match stream.about.uptime_s {
            0 => self.now.since(stream.since).as_millis() as u64,
            s => s * 1_000,
        };
        Event {
            name: key.name().to_owned(),
            scope: format!("/{}", key.app()),
            server_address: owner.map(|n| n.info.advertised.host()).unwrap_or_default(),
            region: owner.map(|n| n.info.region.clone()).unwrap_or_default(),
            stats: viewers.map(|current_subscribers| EventStats {
                current_subscribers,
                start_time: self.wall_ms(self.now).saturating_sub(up_ms),
            }),
        }
    }

    fn sm1_one(&self, name: &str, stats: bool) -> Result<Response, (u16, String)> {
        let manager = self.manager.as_ref().ok_or((503, NO_MANAGER.to_owned()))?;
        let id = manager.find_node(name).map_err(|r| (r.status, r.text))?;
        let node = manager.registry().node(&id).ok_or((404, "the node has just gone".to_owned()))?;
        Ok(answer(&self.sm1_node(manager, node, stats)))
    }

    fn sm1_node(&self, manager: &Manager, node: &registry::Node, stats: bool) -> sm1::Node {
        let state = match (manager.registry().alive(&node.info.id, self.now), node.draining()) {
            (false, _) => "terminated",
            (true, true) => "sunset",
            (true, false) => "inservice",
        };
        sm1::Node {
            identifier: node.info.id.0.clone(),
            role: first_role(&node.info.roles).to_owned(),
            roles: node.info.roles.iter().map(role_name).collect(),
            availability_zone: node.info.region.clone(),
            address: node.info.advertised.host(),
            state: state.to_owned(),
            launch_config: "static",
            capacity: node.load.session_limit,
            group: self.config.manager.node_group.clone(),
            stats: stats.then(|| NodeStats {
                total_connections: node.load.sessions,
                parents: parents(manager, node).iter().map(|n| n.advertised.host()).collect(),
                last_traffic_time: node.traffic.map_or(0, |at| self.wall_ms(at)),
                last_ping: self.wall_ms(node.heard),
            }),
        }
    }

    /// The websockets that are proxied, as the dialect lists them.
    fn proxy_clients(&self) -> Vec<sm1::ProxyClient> {
        let now = self.wall_ms(self.now);
        let client = |p: ProxyInfo| {
            let target: Option<SocketAddr> = p.target.parse().ok();
            sm1::ProxyClient {
                id: p.id,
                target_port: target.map_or(0, |t| t.port()),
                target_host: target.map(|t| t.ip().to_string()).unwrap_or_default(),
                target_app: format!("/{}", p.stream.rsplit_once('/').map_or("", |(app, _)| app)),
                client_connected: true,
                proxy_connected: p.state == "open",
                client_user_agent: p.user_agent,
                client_address: p
                    .remote
                    .parse::<SocketAddr>()
                    .map(|r| r.ip().to_string())
                    .unwrap_or(p.remote),
                secure_client: p.secure,
                creation_time: now.saturating_sub(p.age_s * 1_000),
            }
        };
        self.api_proxies().proxies.into_iter().map(client).collect()
    }

    /// Answers a call of the second generation but the question for a node.
    pub(super) fn sm2(&mut self, conn: ConnId, request: &Request, call: sm2::Call) -> Response {
        match call {
            sm2::Call::Proxies if self.manager.is_none() => sm2::error(503, NO_MANAGER),
            sm2::Call::Proxies => answer(&self.proxy_clients()),
            sm2::Call::KickProxy(id) => match self.may_change(conn, request) {
                Err(response) => sm2::error(response.status, &words(&response)),
                Ok(()) if self.kick_proxy(&id) => Response::no_content(),
                Ok(()) => sm2::error(404, NO_PROXY),
            },
            sm2::Call::Bad { status, text } => sm2::error(status, &text),
            sm2::Call::Login => self.login(request),
            sm2::Call::Streams { group, only, stats, aggregate } => self
                .with_group(&group, |node, manager| {
                    node.sm2_streams(manager, only.as_ref(), stats, aggregate)
                }),
            sm2::Call::Status { group, filter } => {
                self.with_group(&group, |node, manager| Ok(node.sm2_status(manager, &filter)))
            }
            sm2::Call::Pair { .. } => sm2::error(500, "the manager was not asked"),
        }
    }

    /// Why a node group cannot be asked, if it cannot.
    pub(super) fn no_group(&self, group: &str) -> Option<(u16, String)> {
        let ours = &self.config.manager.node_group;
        if self.manager.is_none() {
            return Some((503, NO_MANAGER.to_owned()));
        }
        let known = group == DEFAULT_GROUP || group == ours;
        (!known)
            .then(|| (404, format!("there is no node group {}; there is {ours}", crate::error::quote(group))))
    }

    fn with_group(
        &self,
        group: &str,
        make: impl FnOnce(&Node, &Manager) -> Result<Response, (u16, String)>,
    ) -> Response {
        let made = match (self.no_group(group), &self.manager) {
            (None, Some(manager)) => make(self, manager),
            (why, _) => Err(why.unwrap_or((503, NO_MANAGER.to_owned()))),
        };
        made.unwrap_or_else(|(status, text)| sm2::error(status, &text))
    }

    /// The state that the second generation calls a node's.
    fn sm2_state(&self, manager: &Manager, node: &registry::Node) -> &'static str {
        match (manager.registry().alive(&node.info.id, self.now), node.draining()) {
            (false, _) => "FAULT",
            (true, true) => "SOFT_SUNSET",
            (true, false) => "INSERVICE",
        }
    }

    /// A node for a stream.
    pub(super) fn sm2_node(
        &self,
        info: &NodeInfo,
        key: &StreamKey,
        role: &'static str,
        subscribers: u64,
        urls: Option<EventUrls>,
    ) -> Option<StreamNode> {
        let manager = self.manager.as_ref()?;
        let node = manager.registry().node(&info.id)?;
        Some(StreamNode {
            stream_guid: key.to_string(),
            server_address: info.advertised.host(),
            node_role: role,
            sub_group: info.region.clone(),
            node_state: self.sm2_state(manager, node),
            subscribers,
            duration_ms: None,
            urls,
        })
    }

    fn sm2_streams(
        &self,
        manager: &Manager,
        only: Option<&StreamKey>,
        stats: bool,
        aggregate: bool,
    ) -> Result<Response, (u16, String)> {
        let viewers = self.all_viewers(manager);
        let mut list = Vec::new();
        for (key, stream) in live(manager).filter(|(k, _)| only.is_none_or(|only| only == *k)) {
            let up = match stream.about.uptime_s {
                0 => self.now.since(stream.since).as_millis() as u64,
                s => s * 1_000,
            };
            let all = viewers.get(key).copied().unwrap_or(0);
            let relays =
                |n: &&registry::Node| n.relays.contains_key(key) && Some(&n.info.id) != stream.owner.as_ref();
            let edges: Vec<&registry::Node> = manager.registry().nodes().values().filter(relays).collect();
            let on_edges: u64 = edges.iter().filter_map(|n| n.relays.get(key)).map(|n| u64::from(*n)).sum();
            let owner = stream.owner.as_ref().and_then(|n| manager.registry().node(n));
            let at_origin = if aggregate { all } else { all.saturating_sub(on_edges) };
            let mut entries: Vec<StreamNode> = owner
                .and_then(|n| self.sm2_node(&n.info, key, "origin", at_origin, None))
                .into_iter()
                .collect();
            if !aggregate {
                entries.extend(edges.iter().filter_map(|n| {
                    let here = n.relays.get(key).copied().unwrap_or(0);
                    self.sm2_node(&n.info, key, "edge", u64::from(here), None)
                }));
            }
            for entry in &mut entries {
                entry.duration_ms = (stats || aggregate).then_some(up);
            }
            list.extend(entries);
        }
        match only {
            Some(key) if list.is_empty() => Err((404, format!("nobody publishes {key}"))),
            _ => Ok(answer(&list)),
        }
    }

    fn sm2_status(&self, manager: &Manager, filter: &StatusFilter) -> Response {
        let nodes = manager.registry().nodes().values().filter(|n| {
            let role = |r: &str| n.info.roles.iter().any(|have| role_name(have) == r);
            filter.sub_group.as_ref().is_none_or(|g| *g == n.info.region)
                && filter.role.as_deref().is_none_or(role)
                && filter.state.as_deref().is_none_or(|s| s.eq_ignore_ascii_case(self.sm2_state(manager, n)))
        });
        let status = |n: &registry::Node| {
            let published =
                |k: &&StreamKey| manager.registry().stream(k).is_some_and(|s| s.state != StreamState::Held);
            let publishers = n.owns.iter().filter(published).count() as u64;
            let clients = u64::from(n.load.sessions);
            let metrics = filter.metrics.then(|| {
                BTreeMap::from([
                    ("connections.client", clients as f64),
                    ("connections.publisher", publishers as f64),
                    ("connections.subscriber", clients.saturating_sub(publishers) as f64),
                    ("loop.busy", f64::from(n.load.loop_busy_permille) / 1e3),
                    ("network.egress", n.load.egress_bps as f64),
                ])
            });
            NodeStatus {
                node_event: NodeEvent {
                    node_id: n.info.id.0.clone(),
                    node_role_name: first_role(&n.info.roles),
                    sub_group: n.info.region.clone(),
                    public_ip: n.info.advertised.public.to_string(),
                    private_ip: n.info.advertised.private.to_string(),
                    publisher_count: publishers,
                    subscriber_count: clients.saturating_sub(publishers),
                    client_count: clients,
                    parents: parents(manager, n).iter().map(|p| p.id.0.clone()).collect(),
                    metrics,
                },
                scaling_event: ScalingEvent {
                    node_id: n.info.id.0.clone(),
                    node_group_name: self.config.manager.node_group.clone(),
                    state: self.sm2_state(manager, n),
                },
            }
        };
        answer(&nodes.map(status).collect::<Vec<_>>())
    }
}
