//! The bridges of a world. Frames of sound here are labels in codec wrapping, not sound: by default a bridge moves the label
//! from one wrapping into the other, so that players can check what a bridge made as they check all else.

use super::media::{ASC, MADE_OF_AAC};
use super::pictures::Pictures;
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Made, Packet};
use proto_core::media::track::Codec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the work of a bridge takes, decoding and encoding included.
pub(super) const CONVERTS: Duration = Duration::from_millis(2);

/// How the codecs of a node are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codecs {
    /// They do what they are asked; labels in the wrapping of pictures are no pictures to them.
    #[default]
    Work,
    /// They do what they are asked of labels in the wrapping of pictures, too.
    AllWork,
    /// They refuse everything.
    Fail,
    /// They do not answer.
    Hang,
}

/// The bridges of one node.
pub(super) struct Workshop {
    sound: Sounds,
    /// Pictures are always converted by the codecs that nodes run with.
    pictures: video_bridge::Workshop,
    of_pictures: BTreeSet<BridgeId>,
    /// Bridges of pictures that are labels.
    of_labels: BTreeMap<BridgeId, Pictures>,
    pub(super) codecs: Codecs,
    /// Bridges that were begun.
    pub(super) begun: u64,
    /// What an abandoned bridge was asked before, and never answered.
    hung: BTreeSet<BridgeId>,
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
        Workshop {
            sound,
            pictures: video_bridge::Workshop::default(),
            of_pictures: BTreeSet::new(),
            of_labels: BTreeMap::new(),
            codecs: Codecs::default(),
            begun: 0,
            hung: BTreeSet::new(),
        }
    }

    /// Does a piece of work. `None`: no answer comes.
    pub(super) fn work(&mut self, work: BridgeWork) -> Option<Bridged> {
        self.begun += u64::from(matches!(work.job, BridgeJob::Open { .. }));
        match (&work.job, self.codecs) {
            (BridgeJob::Close | BridgeJob::Abandon, _) | (_, Codecs::Work | Codecs::AllWork) => {}
            (_, Codecs::Fail) => {
                let why = "this codec does not work today".to_owned();
                return Some(Bridged { failed: Some(why), ..Bridged::default() });
            }
            (_, Codecs::Hang) => {
                self.hung.insert(work.bridge);
            }
        }
        // What hangs once hangs for good.
        (!self.hung.contains(&work.bridge)).then(|| self.convert(work))
    }

    fn convert(&mut self, work: BridgeWork) -> Bridged {
        if matches!(work.job, BridgeJob::Open { to: Codec::H264, .. }) {
            self.of_pictures.insert(work.bridge);
        }
        if self.of_pictures.contains(&work.bridge) {
            if self.codecs == Codecs::AllWork {
                return self.picture(work);
            }
            // Labels in the wrapping of pictures are nothing that could be decoded.
            if let BridgeJob::Convert(packets) = &work.job
                && packets.iter().any(|p| p.data.windows(3).any(|w| w == b"HW|"))
            {
                return Bridged { failed: Some("this is no picture".to_owned()), ..Bridged::default() };
            }
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
            BridgeJob::Convert(packets) => match bridges.get(&work.bridge) {
                Some(to) => done.packets = packets.into_iter().map(|p| rewrap(*to, p)).collect(),
                None => done.failed = Some("there is no such bridge".to_owned()),
            },
            BridgeJob::KeyFrame => done.failed = Some("sound has no key frames".to_owned()),
            BridgeJob::Close | BridgeJob::Abandon => {
                bridges.remove(&work.bridge);
            }
        }
        done
    }
}

impl Workshop {
    /// Does a piece of work with pictures that are labels.
    fn picture(&mut self, work: BridgeWork) -> Bridged {
        let bridge = self.of_labels.entry(work.bridge).or_default();
        match work.job {
            BridgeJob::Open { .. } => *bridge = Pictures::default(),
            BridgeJob::Convert(packets) => return bridge.convert(&packets),
            BridgeJob::KeyFrame => bridge.key_frame(),
            BridgeJob::Close | BridgeJob::Abandon => drop(self.of_labels.remove(&work.bridge)),
        }
        Bridged::default()
    }
}

fn rewrap(to: Codec, packet: Packet) -> Packet {
    let data = match to {
        Codec::Opus => {
            let mut data = BytesMut::with_capacity(packet.data.len() + 1);
            data.put_u8(MADE_OF_AAC);
            data.put_slice(&packet.data);
            data.freeze()
        }
        // Some publishers send labels without the first byte of Opus.
        _ if packet.data.starts_with(b"HW|") => packet.data.clone(),
        _ => packet.data.slice(1.min(packet.data.len())..),
    };
    Packet { data, ..packet }
}
