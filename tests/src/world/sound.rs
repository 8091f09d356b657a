//! The sound bridges of a world. Frames here are labels in codec wrapping, not sound: by default a bridge moves the label
//! from one wrapping into the other, so that players can check what a bridge made as they check all else.

use super::media::{ASC, MADE_OF_AAC};
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Made, Sound};
use proto_core::media::track::Codec;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the work of a bridge takes, decoding and encoding included.
pub(super) const CONVERTS: Duration = Duration::from_millis(2);

/// The bridges of one node.
pub(super) enum Workshop {
    /// Labels go from one wrapping into the other.
    Labels(BTreeMap<BridgeId, Codec>),
    /// The codecs that nodes run with.
    Real(audio_bridge::Workshop),
}

impl Workshop {
    pub(super) fn new(real: bool) -> Workshop {
        if real {
            Workshop::Real(audio_bridge::Workshop::default())
        } else {
            Workshop::Labels(BTreeMap::new())
        }
    }

    pub(super) fn work(&mut self, work: BridgeWork) -> Bridged {
        let bridges = match self {
            Workshop::Real(shop) => return shop.work(work),
            Workshop::Labels(bridges) => bridges,
        };
        let mut done = Bridged::default();
        match work.job {
            BridgeJob::Open { to, .. } => {
                bridges.insert(work.bridge, to);
                let config = if to == Codec::Aac { Bytes::from_static(&ASC) } else { Bytes::new() };
                done.made = Some(Made { config, rate: 48_000, channels: 2 });
            }
            BridgeJob::Convert(sound) => match bridges.get(&work.bridge) {
                Some(to) => done.sound = sound.into_iter().map(|s| rewrap(*to, s)).collect(),
                None => done.failed = Some("there is no such bridge".to_owned()),
            },
            BridgeJob::Close => {
                bridges.remove(&work.bridge);
            }
        }
        done
    }
}

fn rewrap(to: Codec, sound: Sound) -> Sound {
    let data = match to {
        Codec::Opus => {
            let mut data = BytesMut::with_capacity(sound.data.len() + 1);
            data.put_u8(MADE_OF_AAC);
            data.put_slice(&sound.data);
            data.freeze()
        }
        // Some publishers send labels without the first byte of Opus.
        _ if sound.data.starts_with(b"HW|") => sound.data.clone(),
        _ => sound.data.slice(1.min(sound.data.len())..),
    };
    Sound { data, ..sound }
}
