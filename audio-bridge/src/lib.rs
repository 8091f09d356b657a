//! Sound bridges: AAC, MP3 and G.711 into Opus for WebRTC, Opus into AAC for players that know nothing else, anything into
//! G.711 for phones.
//!
//! A [`Workshop`] does the work that a node asks for ([`proto_core::bridge`]): the runtime runs it on threads of its
//! own, the simulator within its one thread. It is a function of what it is given: no clock, no randomness.
//!
//! What a bridge promises (each is tested beside it): times come from the source's, with all codec delays taken back,
//! so that a click in comes out within a few milliseconds; gaps, jumps and drift of the source are followed; what
//! cannot be decoded is silence of the same length; a packet that makes a codec panic ends its bridge and no other.
#![forbid(unsafe_code)]

mod bridge;
mod decode;
mod encode;
mod line;
mod mix;
#[cfg(test)]
mod tests;

use bridge::Bridge;
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged};
use proto_core::guard::guard;
use std::collections::BTreeMap;
use std::fmt;

/// The bridges of one worker.
#[derive(Default)]
pub struct Workshop {
    bridges: BTreeMap<BridgeId, Bridge>,
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workshop").field("bridges", &self.bridges.len()).finish()
    }
}

impl Workshop {
    /// Does one piece of work. Works of one bridge must come in the order in which the node asked for them.
    pub fn work(&mut self, work: BridgeWork) -> Bridged {
        let BridgeWork { bridge: id, job } = work;
        // The codecs are other people's code over other people's bytes: what panics there ends this bridge alone.
        let done = match job {
            BridgeJob::Open { from, to } => {
                let old = self.bridges.remove(&id);
                guard(|| match old {
                    Some(bridge) => bridge.reopen(&from, to),
                    None => Bridge::open(&from, to),
                })
                .map(|opened| {
                    opened.map(|bridge| {
                        let made = Some(bridge.made());
                        self.bridges.insert(id, bridge);
                        Bridged { made, ..Bridged::default() }
                    })
                })
            }
            BridgeJob::Convert(packets) => match self.bridges.get_mut(&id) {
                Some(bridge) => guard(|| bridge.convert(&packets)),
                None => Ok(Err("there is no such bridge".to_owned())),
            },
            BridgeJob::KeyFrame => Ok(Err("sound has no key frames".to_owned())),
            BridgeJob::Close => {
                self.bridges.remove(&id);
                Ok(Ok(Bridged::default()))
            }
        };
        done.unwrap_or_else(|panicked| Err(format!("the codec failed: {}", panicked.text))).unwrap_or_else(
            |why| {
                self.bridges.remove(&id);
                Bridged { failed: Some(why), ..Bridged::default() }
            },
        )
    }

    /// How many bridges there are.
    pub fn len(&self) -> usize {
        self.bridges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bridges.is_empty()
    }
}
