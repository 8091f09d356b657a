//! `/api/v1/…`: what the node knows, in the shapes of `http::api`.

use super::Node;
use super::session::{Part, Session};
use crate::cluster::manager;
use crate::cluster::placement::FULL_PPM;
use crate::cluster::registry;
use crate::http::api::{BridgeInfo, NodeInfo, Nodes, SessionInfo, Sessions, StreamInfo, Streams, TrackInfo};
use crate::http::event::{Action, EventQuery};
use crate::hub::{Notice, StreamId};
use crate::media::key::StreamKey;
use crate::media::track::{CodecParams, TrackId};
use crate::time::Time;
use crate::wire::link::{StreamFacts, TrackFacts};
use std::collections::BTreeMap;

/// A pairing question for the manager.
pub(super) fn pair_input(req: u64, query: &EventQuery) -> manager::Input {
    let pairing = manager::Pairing {
        action: match query.action {
            Action::Broadcast => manager::Action::Broadcast,
            Action::Subscribe => manager::Action::Subscribe,
        },
        key: query.key.clone(),
        regions: query.regions.clone(),
        strict: query.strict,
        count: query.endpoints.map_or(1, |n| n as usize),
        leaves: None,
    };
    manager::Input::Pair { req, pairing }
}

impl Node {
    pub(super) fn api_nodes(&self) -> Nodes {
        let nodes = match &self.manager {
            Some(manager) => manager
                .registry()
                .nodes()
                .values()
                .map(|n| {
                    let draining = n.draining();
                    NodeInfo {
                        id: n.info.id.0.clone(),
                        roles: n.info.roles.iter().map(role_name).collect(),
                        region: n.info.region.clone(),
                        address: n.info.advertised.host(),
                        http_port: n.info.advertised.http,
                        https_port: n.info.advertised.https,
                        rtmp_port: n.info.advertised.rtmp,
                        rtsp_port: n.info.advertised.rtsp,
                        rtsps_port: n.info.advertised.rtsps,
                        webrtc_port: n.info.advertised.webrtc,
                        version: n.info.version.clone(),
                        state: match (manager.registry().alive(&n.info.id, self.now), draining) {
                            (false, _) => "lost",
                            (true, true) => "draining",
                            (true, false) => "in_service",
                        }
                        .to_owned(),
                        load: n.used_ppm(&self.limits) as f64 / FULL_PPM as f64,
                        sessions: u64::from(n.load.sessions),
                        streams: n.owns.iter().filter(|k| !n.relays.contains_key(*k)).count() as u64
                            + n.relays.len() as u64,
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
            http_port: self.config.http.port,
            https_port: if self.config.advertise.https { self.config.https.port } else { 0 },
            rtmp_port: self.config.rtmp.port,
            rtsp_port: self.config.rtsp.port,
            rtsps_port: self.config.rtsps.port,
            webrtc_port: self.config.webrtc.port,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: if self.draining { "draining" } else { "in_service" }.to_owned(),
            load: self.load.egress_bps as f64 / (f64::from(self.config.node.capacity_mbps.max(1)) * 1e6),
            sessions: self.clients() as u64,
            streams: self.hub.streams().count() as u64,
        }
    }

    pub(super) fn api_streams(&self) -> Streams {
        let viewers = self.viewers();
        let mut streams: BTreeMap<String, StreamInfo> = self
            .hub
            .streams()
            .filter_map(|(id, key)| {
                let viewers = viewers.get(&id).copied().unwrap_or(0);
                Some((key.to_string(), self.stream_info(id, u64::from(viewers))?))
            })
            .collect();
        if let Some(manager) = &self.manager {
            let elsewhere = manager.registry().viewers(&self.id);
            for (key, s) in manager.registry().streams() {
                let owner = s.owner.as_ref().map(|n| n.0.clone()).unwrap_or_default();
                let elsewhere = elsewhere.get(key).copied().unwrap_or(0);
                match streams.get_mut(key.as_str()) {
                    Some(here) if here.origin == self.id.0 && s.owner.as_ref() == Some(&self.id) => {
                        here.viewers += elsewhere;
                    }
                    // The origin knows its stream better than a node that relays it.
                    here => {
                        let viewers = elsewhere + here.map_or(0, |here| here.viewers);
                        streams.insert(key.to_string(), reported_stream(key, s, owner, viewers, self.now));
                    }
                }
            }
        }
        Streams { streams: streams.into_values().collect() }
    }

    fn stream_info(&self, id: StreamId, viewers: u64) -> Option<StreamInfo> {
        let key = self.hub.key(id)?;
        let facts = self.stream_facts(id);
        let relayed = !self.is_ours(key);
        Some(StreamInfo {
            key: key.to_string(),
            state: if self.is_live(id) { "live" } else { "held" }.to_owned(),
            origin: if relayed { String::new() } else { self.id.0.clone() },
            epoch: self.hub.epoch(id).map(|e| e.to_string()).unwrap_or_default(),
            viewers,
            tracks: facts.tracks.iter().map(track_info).zip(self.track_rates(id)).map(with_rate).collect(),
            bitrate_kbps: facts.bits_per_s / 1000,
            uptime_s: facts.uptime_s,
            source: if relayed { "relay".to_owned() } else { facts.source },
            notices: notices(&facts.notices),
            bridges: self
                .bridges
                .of_stream(id)
                .map(|(from, to, works)| BridgeInfo {
                    from: from.name().to_owned(),
                    to: to.name().to_owned(),
                    state: if works { "works" } else { "failed" }.to_owned(),
                })
                .collect(),
        })
    }

    /// What each of a stream's tracks brings now, bits a second, in the order of [`crate::hub::Hub::tracks`].
    fn track_rates(&self, id: StreamId) -> Vec<u64> {
        let all = self.hub.stats(id, self.now).map(|s| s.tracks).unwrap_or_default();
        let rate = |t: &TrackId| all.iter().find(|s| s.track == *t).map_or(0, |s| s.bits_per_s);
        self.hub.tracks(id).iter().map(|(t, _)| rate(t)).collect()
    }

    /// What this node can say about a stream of its own hub.
    pub(super) fn stream_facts(&self, id: StreamId) -> StreamFacts {
        let Some(stats) = self.hub.stats(id, self.now) else { return StreamFacts::default() };
        let publisher =
            self.sessions.iter().find(|s| matches!(s.part, Part::Publishes { stream, .. } if stream == id));
        StreamFacts {
            bits_per_s: if self.is_live(id) { stats.bits_per_s } else { 0 },
            source: publisher.map_or("", |s| s.protocol.name()).to_owned(),
            uptime_s: publisher.map_or(0, |s| self.now.since(s.since).as_secs()),
            tracks: self.hub.tracks(id).iter().map(|(_, c)| track_facts(&c.params)).collect(),
            notices: stats.notices.iter().map(|n| n.code().to_owned()).collect(),
        }
    }

    pub(super) fn api_sessions(&self) -> Sessions {
        Sessions { sessions: self.sessions.iter().map(|s| self.session_info(s)).collect() }
    }

    fn session_info(&self, s: &Session) -> SessionInfo {
        let shown = match s.part {
            Part::Plays { subscriber, .. } => self.hub.subscriber_stats(subscriber).and_then(|n| n.shown),
            _ => None,
        };
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
            bytes_out: self.bytes_out(s),
            rtt_ms: s.rtt_ms,
            loss: s.loss,
            state: state.to_owned(),
            picture: shown.and_then(|s| s.size).map(|(w, h)| format!("{w}x{h}")),
            thin: shown.is_some_and(|s| s.thin),
            srtp: s.srtp.map(str::to_owned),
            room_kbps: s.rtc.and_then(|r| r.room).map(|bits| bits / 1_000),
        }
    }
}

pub(super) fn role_name(role: &super::config::Role) -> String {
    match role {
        super::config::Role::Manager => "manager",
        super::config::Role::Origin => "origin",
        super::config::Role::Edge => "edge",
    }
    .to_owned()
}

/// A stream as its origin reported it to this manager.
fn reported_stream(
    key: &StreamKey,
    s: &registry::Stream,
    origin: String,
    viewers: u64,
    now: Time,
) -> StreamInfo {
    let held = s.state == registry::StreamState::Held;
    let unheard = if held { 0 } else { now.since(s.since).as_secs() };
    StreamInfo {
        key: key.to_string(),
        state: if held { "held" } else { "live" }.to_owned(),
        origin,
        epoch: s.epoch.to_string(),
        viewers,
        tracks: s.about.tracks.iter().map(track_info).collect(),
        bitrate_kbps: if held { 0 } else { s.about.bits_per_s / 1000 },
        // An older node does not report it.
        uptime_s: if s.about.uptime_s > 0 { s.about.uptime_s } else { unheard },
        source: s.about.source.clone(),
        notices: notices(&s.about.notices),
        bridges: Vec::new(),
    }
}

/// Codes as sentences. What a newer node noticed has only its code here.
fn notices(codes: &[String]) -> Vec<String> {
    codes.iter().map(|c| Notice::from_code(c).map_or(c.clone(), |n| n.text().to_owned())).collect()
}

fn track_facts(params: &CodecParams) -> TrackFacts {
    let mut facts = TrackFacts { codec: params.codec().name().to_owned(), ..TrackFacts::default() };
    (facts.width, facts.height) = params.size().unwrap_or_default();
    (facts.rate, facts.channels) = params.sound().unwrap_or_default();
    facts
}

fn track_info(facts: &TrackFacts) -> TrackInfo {
    let known = |n: u32| Some(n).filter(|n| *n > 0);
    TrackInfo {
        codec: facts.codec.clone(),
        width: known(facts.width),
        height: known(facts.height),
        kbps: None,
        rate: known(facts.rate),
        channels: Some(facts.channels).filter(|n| *n > 0),
    }
}

fn with_rate((mut info, bits): (TrackInfo, u64)) -> TrackInfo {
    info.kbps = Some(bits / 1_000);
    info
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::{Epoch, NodeId};
    use std::collections::BTreeSet;

    fn stream(state: registry::StreamState) -> registry::Stream {
        registry::Stream {
            epoch: Epoch { term: 7, count: 1 },
            owner: Some(NodeId("o".to_owned())),
            identity: String::new(),
            state,
            viewers: 2,
            about: StreamFacts {
                bits_per_s: 1_234_567,
                source: "rtmp".to_owned(),
                uptime_s: 90,
                tracks: vec![
                    TrackFacts { codec: "H.264".to_owned(), width: 640, height: 360, ..Default::default() },
                    TrackFacts { codec: "Zed".to_owned(), channels: 2, ..Default::default() },
                ],
                notices: vec!["sound_not_bridged".to_owned(), "of_a_newer_node".to_owned()],
            },
            since: Time::from_millis(1_000),
            taken_over: None,
            askers: BTreeSet::new(),
        }
    }

    #[test]
    fn a_reported_stream_shows_what_its_origin_said() {
        let key = StreamKey::parse("live/x").unwrap();
        let now = Time::from_millis(5_000);
        let live = reported_stream(&key, &stream(registry::StreamState::Live), "o".to_owned(), 5, now);
        assert_eq!((live.viewers, live.bitrate_kbps, live.uptime_s), (5, 1_234, 90));
        assert_eq!((live.tracks[0].width, live.tracks[0].channels), (Some(640), None));
        assert_eq!((live.tracks[1].codec.as_str(), live.tracks[1].channels), ("Zed", Some(2)));
        assert!(live.notices[0].starts_with("the sound is not converted"));
        assert_eq!(live.notices[1], "of_a_newer_node");
        let held = reported_stream(&key, &stream(registry::StreamState::Held), String::new(), 5, now);
        assert_eq!((held.state.as_str(), held.bitrate_kbps), ("held", 0));
        let older = registry::Stream { about: StreamFacts::default(), ..stream(registry::StreamState::Live) };
        assert_eq!(reported_stream(&key, &older, String::new(), 0, now).uptime_s, 4);
    }
}
