//! Whether the pictures of a track are shown in the order in which they are coded, and if not, whether it would do to
//! leave some out.
//!
//! WebRTC receivers show what they decode as it comes (RFC 7742 leaves B pictures out; libwebrtc has its decoder believe
//! that nothing is reordered). For them a picture that is shown before one that was coded earlier is *late*. Late pictures
//! to which no other refers can be left out, and what is left is in order. Where others refer to one, only decoding and
//! coding anew helps.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::frame::{FrameKind, NewFrame};
use super::track::CodecParams;
use crate::wire::h264::length_prefixed;
use crate::wire::h264_slice::{OrderCount, ParameterSets};
use crate::wire::h265;

/// How a track's pictures are ordered, as far as was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reordering {
    /// None was late.
    #[default]
    None,
    /// Some were late; no other picture refers to them.
    Unreferenced,
    /// Some were late, and others refer to them.
    Referenced,
}

impl Reordering {
    /// A fixed word for the API.
    pub const fn word(self) -> &'static str {
        match self {
            Reordering::None => "none",
            Reordering::Unreferenced => "unreferenced",
            Reordering::Referenced => "referenced",
        }
    }
}

/// What is known of one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it is late (shown before one that was coded earlier and is not late itself), and if so, whether others refer
    /// to it.
    pub late: Reordering,
    /// The track's order is another than was known, from this picture on.
    pub news: Option<Reordering>,
}

/// What the parameter sets have to say about order and references.
#[derive(Clone, Debug, Default)]
enum Sets {
    /// H.264.
    H264(ParameterSets),
    /// H.265, with its temporal layers; 0 where the set could not be read.
    H265(u8),
    /// A codec that shows pictures as they are coded, or nothing is known.
    #[default]
    InOrder,
}

/// Follows the pictures of one track.
///
/// For H.264 with order counts of type 0 (all encoders with B pictures that are known) these decide, together with the slice
/// type or the times; else the times at which pictures are shown do. A constant distance of pts and dts is no sign.
#[derive(Clone, Debug, Default)]
pub struct OrderWatch {
    sets: Sets,
    count: OrderCount,
    /// The highest order count since the last IDR picture, and the highest time, of pictures that were not late.
    high: Option<i64>,
    shown: Option<i64>,
    found: Reordering,
}

impl OrderWatch {
    /// What is known of the track.
    pub fn found(&self) -> Reordering {
        self.found
    }

    /// The parameters of what follows. What was found stays found, unless these leave no room for it.
    pub fn configure(&mut self, params: &CodecParams) {
        self.sets = match params {
            CodecParams::H264 { sps, pps, .. } => Sets::H264(ParameterSets::read(sps, pps)),
            CodecParams::H265 { sps, .. } => {
                let info = sps.iter().find_map(|nal| h265::SpsInfo::parse(nal));
                Sets::H265(info.map_or(0, |i| i.temporal_layers))
            }
            _ => Sets::InOrder,
        };
        let possible = match &self.sets {
            Sets::H264(sets) => {
                sets.sequences().is_empty() || sets.sequences().iter().any(|s| s.may_reorder())
            }
            Sets::H265(_) => true,
            Sets::InOrder => false,
        };
        if !possible {
            self.found = Reordering::None;
        }
        (self.count, self.high, self.shown) = (OrderCount::default(), None, None);
    }

    /// Another source begins: nothing is known of it.
    pub fn forget(&mut self) {
        *self = OrderWatch::default();
    }

    /// Looks at the next picture in coding order. Its times must be free of jumps (those of the stream's own clock are).
    pub fn observe(&mut self, frame: &NewFrame) -> Seen {
        if !frame.is_video() || matches!(self.sets, Sets::InOrder) {
            return Seen::default();
        }
        if frame.kind == FrameKind::Key {
            // What is shown before a key frame and coded after it is compared with that key frame.
            (self.high, self.shown) = (None, None);
        }
        let time_back = self.shown.is_some_and(|shown| frame.pts < shown);
        let mut droppable = frame.discardable;
        let (mut order, mut order_back, mut b) = (None, None, false);
        match &self.sets {
            Sets::H264(sets) => {
                let first =
                    length_prefixed(&frame.payload, 4).map_while(Result::ok).find_map(|n| sets.slice(n));
                if let Some((slice, sps)) = first {
                    b = slice.is_b();
                    order = self.count.next(&slice, sps);
                    order_back = order.map(|o| self.high.is_some_and(|high| o < high));
                }
            }
            Sets::H265(layers) => droppable |= is_droppable_h265(&frame.payload, *layers),
            Sets::InOrder => {}
        }
        let late = match order_back {
            // A P picture whose count goes back alone begins a new count (8.2.1, operation 5).
            Some(back) => back && (b || time_back),
            None => time_back,
        };
        if !late {
            self.high = order.or(self.high);
            self.shown = Some(self.shown.map_or(frame.pts, |shown| shown.max(frame.pts)));
        }
        let late = match (late, droppable) {
            (false, _) => Reordering::None,
            (true, true) => Reordering::Unreferenced,
            (true, false) => Reordering::Referenced,
        };
        let news = (late > self.found).then_some(late);
        self.found = self.found.max(late);
        Seen { late, news }
    }
}

/// Whether no picture refers to one of H.265: none of its own temporal layer does, and there is no higher one.
fn is_droppable_h265(payload: &[u8], layers: u8) -> bool {
    let mut slices = length_prefixed(payload, 4)
        .map_while(Result::ok)
        .filter(|nal| h265::NalType::of(nal).is_slice())
        .map(|nal| {
            h265::NalType::of(nal).is_sub_layer_non_reference() && h265::temporal_layer(nal) + 1 == layers
        })
        .peekable();
    slices.peek().is_some() && slices.all(|droppable| droppable)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::media::frame::Rotation;
    use crate::media::track::TrackId;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn picture(key: bool, pts: i64, discardable: bool) -> NewFrame {
        NewFrame {
            track: TrackId::VIDEO,
            dts: 0,
            pts,
            kind: if key { FrameKind::Key } else { FrameKind::Delta },
            discardable,
            temporal_layer: 0,
            rotation: Rotation::R0,
            capture: None,
            payload: Bytes::from_static(&[0, 0, 0, 1, 9]),
        }
    }

    fn watch() -> OrderWatch {
        let mut watch = OrderWatch::default();
        watch.configure(&CodecParams::H264 { sps: vec![], pps: vec![], size: None, reorders: true });
        watch
    }

    fn seen(watch: &mut OrderWatch, pictures: &[(i64, bool)]) -> (Vec<bool>, Reordering) {
        let late = pictures
            .iter()
            .enumerate()
            .map(|(n, (pts, free))| watch.observe(&picture(n == 0, *pts, *free)).late != Reordering::None);
        (late.collect(), watch.found())
    }

    #[test]
    fn pictures_that_nothing_refers_to_are_told_from_those_that_others_need() {
        // I P b b P b b
        let plain =
            [(40, false), (160, false), (80, true), (120, true), (280, false), (200, true), (240, true)];
        let late = vec![false, false, true, true, false, true, true];
        assert_eq!(seen(&mut watch(), &plain), (late, Reordering::Unreferenced));
        // I P B b b: the middle one is referred to.
        let pyramid = [(40, false), (200, false), (120, false), (80, true), (160, true)];
        assert_eq!(
            seen(&mut watch(), &pyramid),
            (vec![false, false, true, true, true], Reordering::Referenced)
        );
    }

    #[test]
    fn a_constant_distance_and_unreferenced_pictures_in_order_are_no_reordering() {
        let forward: Vec<(i64, bool)> = (0..50).map(|n| (n * 40 + 80, n % 2 == 1)).collect();
        assert_eq!(seen(&mut watch(), &forward), (vec![false; 50], Reordering::None));
    }

    #[test]
    fn news_come_once_and_a_new_source_is_not_suspected() {
        let mut w = watch();
        let news: Vec<Option<Reordering>> =
            [(0, false), (120, false), (40, true), (80, true), (60, false), (61, false)]
                .iter()
                .enumerate()
                .map(|(n, (pts, free))| w.observe(&picture(n == 0, *pts, *free)).news)
                .collect();
        let (u, r) = (Some(Reordering::Unreferenced), Some(Reordering::Referenced));
        assert_eq!(news, [None, None, u, None, r, None]);
        w.forget();
        assert_eq!(w.found(), Reordering::None);
    }

    #[test]
    fn parameters_without_room_for_reordering_clear_what_was_found() {
        let mut w = watch();
        seen(&mut w, &[(0, false), (80, false), (40, false)]);
        let sets = |sps: &'static [u8]| CodecParams::H264 {
            sps: vec![Bytes::from_static(sps)],
            pps: vec![],
            size: None,
            reorders: false,
        };
        w.configure(&sets(&[0x67]));
        assert_eq!(w.found(), Reordering::Referenced, "a set that cannot be read says nothing");
        // Constrained Baseline.
        w.configure(&sets(&[0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe4]));
        assert_eq!(w.found(), Reordering::None);
        w.configure(&CodecParams::Vp8 { size: None });
        assert_eq!(seen(&mut w, &[(0, false), (80, false), (40, false)]), (vec![false; 3], Reordering::None));
    }

    #[test]
    fn unreferenced_pictures_of_h265_are_those_of_the_highest_layer_only() {
        let slice = |kind: u8, layer: u8| [0, 0, 0, 3, kind << 1, layer + 1, 0x80];
        assert!(is_droppable_h265(&slice(0, 0), 1), "TRAIL_N");
        assert!(!is_droppable_h265(&slice(1, 0), 1), "TRAIL_R");
        assert!(!is_droppable_h265(&slice(0, 0), 2), "a higher layer may refer to it");
        assert!(is_droppable_h265(&slice(8, 1), 2), "RASL_N");
        assert!(
            !is_droppable_h265(&slice(0, 0), 0) && !is_droppable_h265(&[], 1) && !is_droppable_h265(&[1], 1)
        );
        let two = [slice(0, 0), slice(1, 0)].concat();
        assert!(!is_droppable_h265(&two, 1));
    }

    proptest! {
        /// Whatever comes: what is left without the late pictures is in order, and if the watch says that nothing needs
        /// the late ones, that is so.
        #[test]
        fn what_is_left_is_in_order(all in prop::collection::vec((0i64..30, any::<bool>(), any::<bool>()), 1..60)) {
            let mut w = watch();
            let (mut last, mut needed) = (i64::MIN, false);
            for (n, (pts, free, key)) in all.iter().enumerate() {
                let key = n == 0 || *key;
                let seen = w.observe(&picture(key, *pts, *free));
                if key { last = i64::MIN; }
                match seen.late {
                    Reordering::None => {
                        prop_assert!(*pts >= last);
                        last = *pts;
                    }
                    late => {
                        prop_assert!(!key);
                        prop_assert_eq!(late == Reordering::Unreferenced, *free);
                        needed |= !free;
                    }
                }
            }
            prop_assert_eq!(w.found() == Reordering::Referenced, needed);
        }
    }
}
