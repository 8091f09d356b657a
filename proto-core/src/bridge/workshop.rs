//! The room in which bridges work, whatever they convert: it keeps them apart from each other and from their own panics.

use super::{BridgeId, BridgeJob, BridgeWork, Bridged, Made, Packet};
use crate::guard::guard;
use crate::media::track::{Codec, CodecParams};
use std::collections::BTreeMap;
use std::fmt;

/// One bridge: a decoder, an encoder, and what keeps the times. A function of what it is given: no clock, no randomness.
pub trait Convert: Sized {
    /// A bridge that makes `to` of a source that announced `from`, and what it says of what comes out, where it knows that
    /// already. `before` is the same bridge before the source's configuration changed.
    ///
    /// # Errors
    /// In words for an operator, if that cannot be made.
    fn open(from: &CodecParams, to: Codec, before: Option<Self>) -> Result<(Self, Option<Made>), String>;

    /// Converts packets, whose times may have gaps, jump and drift.
    ///
    /// # Errors
    /// In words, if the bridge cannot go on. What cannot be decoded is no error.
    fn convert(&mut self, packets: &[Packet]) -> Result<Bridged, String>;

    /// The next picture that comes out is to be a key frame.
    ///
    /// # Errors
    /// In words, if nothing that it makes is one.
    fn key_frame(&mut self) -> Result<(), String>;
}

/// The bridges of one worker. The runtime has a workshop on each thread of bridges, the simulator one for each node.
pub struct Workshop<B> {
    bridges: BTreeMap<BridgeId, B>,
}

impl<B> Default for Workshop<B> {
    fn default() -> Self {
        Workshop { bridges: BTreeMap::new() }
    }
}

impl<B> fmt::Debug for Workshop<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workshop").field("bridges", &self.bridges.len()).finish()
    }
}

impl<B: Convert> Workshop<B> {
    /// Does one piece of work. Works of one bridge must come in the order in which the node asked for them.
    pub fn work(&mut self, work: BridgeWork) -> Bridged {
        let BridgeWork { bridge: id, job } = work;
        let bridges = &mut self.bridges;
        // The codecs are other people's code over other people's bytes: what panics there ends this bridge alone.
        let done = guard(|| match job {
            BridgeJob::Open { from, to } => {
                let before = bridges.remove(&id);
                B::open(&from, to, before).map(|(bridge, made)| {
                    bridges.insert(id, bridge);
                    Bridged { made, ..Bridged::default() }
                })
            }
            BridgeJob::Convert(packets) => known(bridges, id)?.convert(&packets),
            BridgeJob::KeyFrame => known(bridges, id)?.key_frame().map(|()| Bridged::default()),
            BridgeJob::Close | BridgeJob::Abandon => {
                bridges.remove(&id);
                Ok(Bridged::default())
            }
        });
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

fn known<B>(bridges: &mut BTreeMap<BridgeId, B>, id: BridgeId) -> Result<&mut B, String> {
    bridges.get_mut(&id).ok_or_else(|| "there is no such bridge".to_owned())
}
