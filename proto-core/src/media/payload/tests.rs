use super::*;
use crate::media::frame::Rotation;
use crate::media::h264::h264_params;
use crate::media::h265::h265_params;
use crate::media::track::TrackId;
use crate::wire::av1::{Obu, ObuType};
use crate::wire::h264::put_nal;
use crate::wire::latm::MuxConfig;
use crate::wire::vp9::Vp9Format;
use bytes::BytesMut;
use proptest::prelude::*;

mod h264;
mod others;

fn frame(kind: FrameKind, payload: impl Into<Bytes>) -> NewFrame {
    NewFrame {
        track: TrackId::VIDEO,
        dts: 0,
        pts: 0,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: payload.into(),
    }
}

fn nals(nals: &[Vec<u8>]) -> Bytes {
    let mut out = BytesMut::new();
    nals.iter().for_each(|n| put_nal(&mut out, n));
    out.freeze()
}

fn depay(format: &Format) -> Depay {
    Depay::new(format, 4 << 20, 4096)
}

fn push_all(d: &mut Depay, payloads: &[Bytes], timestamp: u32) -> Vec<Unit> {
    let mut out = Vec::new();
    for (i, p) in payloads.iter().enumerate() {
        d.push(p, timestamp, i + 1 == payloads.len(), |u| out.push(u));
    }
    out
}
