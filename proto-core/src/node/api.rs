//! `/api/v1/…`: what the node knows, in the shapes of `http::api`.

use super::Node;
use super::session::{Part, Session};
use crate::cluster::manager;
use crate::cluster::placement::FULL_PPM;
use crate::http::api::{NodeInfo, Nodes, SessionInfo, Sessions, StreamInfo, Streams, TrackInfo};
use crate::http::event::{Action, EventQuery};
use crate::hub::StreamId;
use crate::media::track::CodecParams;

/// A pairing question for the manager.
pub(super) fn pair_input(req: u64, query: &EventQuery) -> manager::Input {
    manager::Input::Pair {
        req,
        action: match query.action {
            Action::Broadcast => manager::Action::Broadcast,
            Action::Subscribe => manager::Action::Subscribe,
        },
        key: query.key.clone(),
        region: query.region.clone(),
        strict: query.strict,
    }
}

impl Node {
    pub(super) fn api_nodes(&self) -> Nodes {
        let nodes = match &self.manager {
            Some(manager) => manager
                .registry()
                .nodes()
                .values()
                .map(|n| {
                    let draining = n.load.draining;
                    NodeInfo {
                        id: n.info.id.0.clone(),
                        roles: n.info.roles.iter().map(role_name).collect(),
                        region: n.info.region.clone(),
                        address: n.info.advertised.host(),
                        version: n.info.version.clone(),
                        state: match (manager.registry().alive(&n.info.id, self.now), draining) {
                            (false, _) => "lost",
                            (true, true) => "draining",
                            (true, false) => "in_service",
                        }
                        .to_owned(),
                        load: n.used_ppm(&self.limits) as f64 / FULL_PPM as f64,
                        sessions: u64::from(n.load.sessions),
                        streams: manager
                            .registry()
                            .streams()
                            .values()
                            .filter(|s| s.owner.as_ref() == Some(&n.info.id))
                            .count() as u64,
                    }
                })
                .collect(),
            None => vec![self.own_info()],
        };
        Nodes { this: self.id.0.clone(), whole: self.manager.is_some(), nodes }
    }

    fn own_info(&self) -> NodeInfo {
        NodeInfo {
            id: self.id.0.clone(),
            roles: self.config.node.roles.iter().map(role_name).collect(),
            region: self.config.node.region.clone(),
            address: self.advertised.url_host(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: if self.draining { "draining" } else { "in_service" }.to_owned(),
            load: self.load.egress_bps as f64 / (f64::from(self.config.node.capacity_mbps.max(1)) * 1e6),
            sessions: self.sessions.len() as u64,
            streams: self.hub.streams().count() as u64,
        }
    }

    pub(super) fn api_streams(&self) -> Streams {
        let mut streams: Vec<StreamInfo> =
            self.hub.streams().filter_map(|(id, _)| self.stream_info(id)).collect();
        if let Some(manager) = &self.manager {
            for (key, s) in manager.registry().streams() {
                let viewers = u64::from(s.viewers);
                if let Some(here) = streams.iter_mut().find(|i| i.key == key.as_str()) {
                    here.origin = s.owner.as_ref().map(|n| n.0.clone()).unwrap_or_default();
                    here.viewers = here.viewers.max(viewers);
                    continue;
                }
                streams.push(StreamInfo {
                    key: key.to_string(),
                    state: match s.state {
                        crate::cluster::registry::StreamState::Held => "held",
                        _ => "live",
                    }
                    .to_owned(),
                    origin: s.owner.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
                    epoch: s.epoch.to_string(),
                    viewers,
                    tracks: Vec::new(),
                    bitrate_kbps: 0,
                    uptime_s: self.now.since(s.since).as_secs(),
                    source: String::new(),
                    notices: Vec::new(),
                });
            }
        }
        streams.sort_by(|a, b| a.key.cmp(&b.key));
        Streams { streams }
    }

    fn stream_info(&self, id: StreamId) -> Option<StreamInfo> {
        let (Some(key), Some(stats)) = (self.hub.key(id), self.hub.stats(id, self.now)) else { return None };
        let publisher =
            self.sessions.iter().find(|s| matches!(s.part, Part::Publishes { stream, .. } if stream == id));
        let relayed = self.pulls.has(key);
        Some(StreamInfo {
            key: key.to_string(),
            state: if self.is_live(id) { "live" } else { "held" }.to_owned(),
            origin: if relayed { String::new() } else { self.id.0.clone() },
            epoch: stats.epoch.to_string(),
            viewers: self.hub.subscribers(id).count() as u64,
            tracks: self.hub.tracks(id).iter().map(|(_, c)| track_info(&c.params)).collect(),
            bitrate_kbps: stats.bits_per_s / 1000,
            uptime_s: publisher.map_or(0, |s| self.now.since(s.since).as_secs()),
            source: publisher.map_or("relay", |s| s.protocol.name()).to_owned(),
            notices: stats.notices.iter().map(|n| n.text().to_owned()).collect(),
        })
    }

    pub(super) fn api_sessions(&self) -> Sessions {
        Sessions { sessions: self.sessions.iter().map(|s| self.session_info(s)).collect() }
    }

    fn session_info(&self, s: &Session) -> SessionInfo {
        let state = match s.part {
            Part::AsksToPublish | Part::AsksToPlay => "connecting",
            Part::Publishes { .. } => "live",
            Part::Plays { stream, .. } if self.is_live(stream) => "live",
            Part::Plays { .. } => "waiting",
        };
        SessionInfo {
            id: s.name(),
            protocol: s.protocol.name().to_owned(),
            role: if s.is_publisher() { "publish" } else { "play" }.to_owned(),
            stream: s.key.to_string(),
            remote: s.remote.map(|r| r.to_string()).unwrap_or_default(),
            age_s: self.now.since(s.since).as_secs(),
            bytes_in: s.bytes_in,
            bytes_out: s.bytes_out,
            rtt_ms: s.rtt_ms,
            loss: s.loss,
            state: state.to_owned(),
        }
    }
}

fn role_name(role: &super::config::Role) -> String {
    match role {
        super::config::Role::Manager => "manager",
        super::config::Role::Origin => "origin",
        super::config::Role::Edge => "edge",
    }
    .to_owned()
}

fn track_info(params: &CodecParams) -> TrackInfo {
    let codec = params.codec().name().to_owned();
    let mut info = TrackInfo { codec, width: None, height: None, rate: None, channels: None };
    match params {
        CodecParams::H264 { size, .. } => {
            info.width = size.map(|s| s.0);
            info.height = size.map(|s| s.1);
        }
        CodecParams::Opus { channels } => {
            info.rate = Some(48_000);
            info.channels = Some(*channels);
        }
        CodecParams::Aac { rate, channels, .. } => {
            info.rate = Some(*rate);
            info.channels = Some(*channels);
        }
    }
    info
}
