//! Picture bridges: H.264 with B-frames that others refer to into H.264 without any, for viewers by WebRTC.
//!
//! A [`Workshop`] does the work that a node asks for ([`proto_core::bridge`]): the runtime runs each bridge on a thread of
//! its own, the simulator within its one thread. It is a function of what it is given: no clock, no randomness.
//!
//! What a bridge promises (each is tested): pictures come out in the order in which they are shown, at the times of the
//! source, none of them made of a picture that was damaged or missing; a key frame at each of the source's and when asked
//! for; the bit rate follows the source's; what cannot be converted is refused in words; a stream that makes a codec panic
//! ends its bridge and no other.
#![forbid(unsafe_code)]

mod bridge;
mod encode;
mod order;
#[cfg(test)]
mod tests;

use bridge::Bridge;
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged};
use proto_core::guard::guard;
use proto_core::media::track::Codec;
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
        let gone = || Err("there is no such bridge".to_owned());
        // The codecs are other people's code over other people's bytes: what panics there ends this bridge alone.
        let done = match job {
            BridgeJob::Open { from, to: Codec::H264 } => {
                let last = self.bridges.remove(&id).and_then(|old| old.last());
                guard(|| Bridge::open(&from, last)).map(|opened| {
                    opened.map(|bridge| {
                        self.bridges.insert(id, bridge);
                        Bridged::default()
                    })
                })
            }
            BridgeJob::Open { to, .. } => Ok(Err(format!("no bridge of pictures makes {}", to.name()))),
            BridgeJob::Convert(pictures) => match self.bridges.get_mut(&id) {
                Some(bridge) => guard(|| bridge.convert(&pictures)),
                None => Ok(gone()),
            },
            BridgeJob::KeyFrame => match self.bridges.get_mut(&id) {
                Some(bridge) => {
                    bridge.key_frame();
                    Ok(Ok(Bridged::default()))
                }
                None => Ok(gone()),
            },
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
