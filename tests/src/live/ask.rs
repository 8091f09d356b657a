//! What is asked of a client whatever its protocol.

use super::{Id, Live};
use crate::world::actors::player::Player;
use crate::world::actors::publisher::Publisher;
use crate::world::actors::rtsp::{RtspPlayer, RtspPublisher};
use crate::world::actors::webrtc::{Whep, Whip};
use proto_core::time::Time;

/// How a player fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// When its last picture came.
    pub picture: Option<Time>,
    /// Places where frames are missing.
    pub gaps: usize,
    /// Connections or calls that it began.
    pub connections: u64,
}

/// How a publisher fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// A node takes its stream now.
    pub ready: bool,
    /// How often one did or was asked to.
    pub times: usize,
}

impl Live {
    /// How a player fared so far.
    pub fn played(&self, id: Id) -> Played {
        if let Some(p) = self.actor::<Player>(id) {
            let picture = p.last_picture().map(|s| s.at);
            return Played { picture, gaps: p.gaps.len(), connections: p.connections };
        }
        if let Some(p) = self.actor::<RtspPlayer>(id) {
            let picture = p.last_picture().map(|s| s.at);
            return Played { picture, gaps: p.gaps.len(), connections: p.connections };
        }
        self.actor::<Whep>(id).map_or_else(Played::default, |p| Played {
            picture: p.last_picture().map(|s| s.at),
            gaps: p.gaps.len(),
            connections: p.calls().len() as u64,
        })
    }

    /// When each picture came to a player.
    pub fn pictures(&self, id: Id) -> Vec<Time> {
        if let Some(p) = self.actor::<Player>(id) {
            return p.seen.iter().filter(|s| s.label.track == 'v').map(|s| s.at).collect();
        }
        if let Some(p) = self.actor::<RtspPlayer>(id) {
            return p.seen.iter().filter(|s| s.label.track == 'v').map(|s| s.at).collect();
        }
        let whep = self.actor::<Whep>(id);
        whep.into_iter().flat_map(|p| &p.seen).filter(|s| s.picture).map(|s| s.at).collect()
    }

    /// How a publisher fares.
    pub fn published(&self, id: Id) -> Published {
        if let Some(p) = self.actor::<Publisher>(id) {
            return Published { ready: p.is_ready(), times: p.accepted() };
        }
        if let Some(p) = self.actor::<RtspPublisher>(id) {
            return Published { ready: p.is_ready(), times: p.accepted() };
        }
        self.actor::<Whip>(id)
            .map_or_else(Published::default, |p| Published { ready: p.is_ready(), times: p.calls().len() })
    }

    /// Has a client connect anew; what it has open is dropped.
    pub fn connect(&mut self, id: Id) {
        self.with(id, |p: &mut Player, now| p.connect(now));
        self.with(id, |p: &mut RtspPlayer, now| p.connect(now));
        self.with(id, |p: &mut Whep, now| p.connect(now));
        self.with(id, |p: &mut Publisher, now| p.connect(now));
        self.with(id, |p: &mut RtspPublisher, now| p.connect(now));
        self.with(id, |p: &mut Whip, now| p.connect(now));
    }
}
