//! H.264 as the media model sees it: a track's parameters out of its parameter sets, and the watch for B-frames.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::frame::NewFrame;
use super::track::{Codec, CodecParams};
use crate::wire::h264::length_prefixed;
use crate::wire::h264_sps::{inspect, is_b_slice};
use bytes::Bytes;

/// The parameters of a track from its parameter sets (bare NAL units with header).
///
/// The size is that of the first sequence parameter set that can be read. `reorders` says what the sets announce;
/// whether pictures are really reordered is seen by [`BFrameWatch`].
pub fn h264_params(sps: Vec<Bytes>, pps: Vec<Bytes>) -> CodecParams {
    let info = sps.iter().find_map(|nal| inspect(nal));
    CodecParams::H264 {
        sps,
        pps,
        size: info.map(|i| (i.width, i.height)),
        reorders: info.is_some_and(|i| i.announces_reordering()),
    }
}

/// How B-frames gave themselves away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BFrames {
    /// A B slice was seen.
    Slice,
    /// A picture is shown before one that was coded earlier.
    Order,
}

/// Recognises a track that has B-frames, from what is really in it.
///
/// A constant distance of pts and dts is no proof (some muxers add one); a pts that goes back is, and so is a B
/// slice.
#[derive(Clone, Debug, Default)]
pub struct BFrameWatch {
    last_pts: Option<i64>,
    found: bool,
}

impl BFrameWatch {
    /// Looks at the next picture in coding order. Answers once, with the first proof. Frames that are no pictures
    /// are ignored. Only slices of H.264 are looked into. Times must be free of jumps (those of the stream's own clock are).
    pub fn observe(&mut self, codec: Codec, frame: &NewFrame) -> Option<BFrames> {
        if self.found || !frame.is_video() {
            return None;
        }
        let back = self.last_pts.is_some_and(|last| frame.pts < last);
        self.last_pts = Some(frame.pts);
        let proof = if back {
            BFrames::Order
        } else if codec == Codec::H264
            && length_prefixed(&frame.payload, 4).map_while(Result::ok).any(is_b_slice)
        {
            BFrames::Slice
        } else {
            return None;
        };
        self.found = true;
        Some(proof)
    }

    /// Whether B-frames were seen.
    pub fn found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::media::frame::{FrameKind, Rotation};
    use crate::media::track::TrackId;

    fn picture(dts: i64, pts: i64, slice: u8) -> NewFrame {
        NewFrame {
            track: TrackId::VIDEO,
            dts,
            pts,
            kind: FrameKind::Delta,
            discardable: false,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload: Bytes::copy_from_slice(&[0, 0, 0, 1, 9, 0, 0, 0, 2, 0x41, slice]),
        }
    }
    /// slice_type 5: P.
    const P: u8 = 0b1001_1000;
    /// slice_type 6: B.
    const B: u8 = 0b1001_1100;

    #[test]
    fn a_constant_distance_of_pts_and_dts_is_no_b_frame() {
        let mut w = BFrameWatch::default();
        assert!((0..50).all(|n| w.observe(Codec::H264, &picture(n * 40, n * 40 + 80, P)).is_none()));
        assert!(!w.found());
    }

    #[test]
    fn a_b_slice_is_reported_once() {
        let mut w = BFrameWatch::default();
        assert_eq!(w.observe(Codec::H264, &picture(0, 0, P)), None);
        assert_eq!(w.observe(Codec::H264, &picture(1, 1, B)), Some(BFrames::Slice));
        assert_eq!(w.observe(Codec::H264, &picture(2, 2, B)), None);
        assert!(w.found());
    }

    #[test]
    fn a_pts_that_goes_back_is_a_b_frame_even_where_slices_cannot_be_read() {
        let mut w = BFrameWatch::default();
        assert_eq!(w.observe(Codec::H264, &picture(0, 120, 0)), None);
        assert_eq!(w.observe(Codec::H264, &picture(40, 40, 0)), Some(BFrames::Order));
    }

    #[test]
    fn unreadable_sets_give_no_size_and_no_claim() {
        let params = h264_params(vec![Bytes::from_static(&[0x67])], vec![]);
        assert!(matches!(params, CodecParams::H264 { size: None, reorders: false, .. }));
    }
}
