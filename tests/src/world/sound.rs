//! The bridges of a world. Frames of sound here are labels in codec wrapping, not sound: by default a bridge moves the label
//! from one wrapping into the other, so that players can check what a bridge made as they check all else.

use super::media::{ASC, MADE_OF_AAC};
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Made, Sound};
use proto_core::media::track::Codec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the work of a bridge takes, decoding and encoding included.
pub(super) const CONVERTS: Duration = Duration::from_millis(2);

/// The bridges of one node.
pub(super) struct Workshop {
    sound: Sounds,
    /// Pictures are always converted by the codecs that nodes run with.
    pictures: video_bridge::Workshop,
    of_pictures: BTreeSet<BridgeId>,
}

enum Sounds {
    /// Labels go from one wrapping into the other.
    Labels(BTreeMap<BridgeId, Codec>),
    /// The codecs that nodes run with.
    Real(audio_bridge::Workshop),
}

impl Workshop {
    pub(super) fn new(real: bool) -> Workshop {
        let sound = match real {
            true => Sounds::Real(audio_bridge::Workshop::default()),
            false => Sounds::Labels(BTreeMap::new()),
        };
        Workshop { sound, pictures: video_bridge::Workshop::default(), of_pictures: BTreeSet::new() }
    }

    pub(super) fn work(&mut self, work: BridgeWork) -> Bridged {
        if matches!(work.job, BridgeJob::Open { to: Codec::H264, .. }) {
            self.of_pictures.insert(work.bridge);
        }
        if self.of_pictures.contains(&work.bridge) {
            return self.pictures.work(work);
        }
        let bridges = match &mut self.sound {
            Sounds::Real(shop) => return shop.work(work),
            Sounds::Labels(bridges) => bridges,
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
            BridgeJob::KeyFrame => done.failed = Some("sound has no key frames".to_owned()),
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
