//! Decoding times out of the times at which pictures are shown: RTP carries only those.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The most pictures that may be coded before another and shown after it (ITU-T H.264, A.3.1: 16 frames).
const DEPTH_MAX: usize = 16;
/// A step beyond this is a new start, nanoseconds.
const JUMP: i64 = 10_000_000_000;

/// Gives pictures in coding order a time at which they are decoded: always rising, and never after they are shown, but
/// for the first pictures of a track that reorders more than was announced, and for those that are shown before the
/// first one of all (leading pictures, which a decoder that begins there leaves out).
#[derive(Clone, Debug, Default)]
pub struct DecodeOrder {
    /// The newest times shown, one more than `depth` of them, in rising order.
    window: Vec<i64>,
    depth: usize,
    last: Option<i64>,
}

impl DecodeOrder {
    /// Says how many pictures may be coded before another and shown after it. It only rises.
    pub fn announce(&mut self, depth: u32) {
        self.depth = self.depth.max(depth as usize).min(DEPTH_MAX);
    }

    /// The decoding time of the next picture, which is shown at `pts`, nanoseconds.
    pub fn dts(&mut self, pts: i64) -> i64 {
        let newest = self.window.last().copied();
        if newest.is_some_and(|n| pts.saturating_sub(n).saturating_abs() > JUMP) {
            self.window.clear();
            self.last = None;
        }
        let at = self.window.partition_point(|t| *t < pts);
        // So many pictures that are shown after this one came before it.
        let passed = self.window.len() - at;
        self.depth = self.depth.max(passed).min(DEPTH_MAX);
        self.window.insert(at, pts);
        while self.window.len() > self.depth + 1 {
            self.window.remove(0);
        }
        let oldest = self.window.first().copied().unwrap_or(pts);
        // Until the window is full, the oldest of it would come again and again.
        let dts = self.last.map_or(oldest, |last| oldest.max(last.saturating_add(1)));
        self.last = Some(dts);
        dts
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_reordering_both_times_are_the_same() {
        let mut d = DecodeOrder::default();
        for pts in [100, 140, 180, 181] {
            assert_eq!(d.dts(pts), pts);
        }
    }

    #[test]
    fn b_frames_of_two_levels_are_decoded_in_time() {
        let mut d = DecodeOrder::default();
        d.announce(2);
        // I P B b b, in steps of 40.
        let shown = [0, 160, 80, 40, 120, 320, 240, 200, 280];
        let decoded: Vec<i64> = shown.iter().map(|pts| d.dts(*pts)).collect();
        assert!(decoded.windows(2).all(|w| w[0] < w[1]), "{decoded:?}");
        assert!(decoded.iter().zip(&shown).all(|(d, p)| d <= p), "{decoded:?}");
        assert_eq!(decoded[5..], [120, 160, 200, 240]);
    }

    proptest! {
        /// Any order within the announced depth: rising, and never after it is shown.
        #[test]
        fn announced_reordering_never_makes_a_picture_late(
            depth in 0usize..5, picks in proptest::collection::vec(0usize..5, 1..100),
        ) {
            let mut d = DecodeOrder::default();
            d.announce(depth as u32);
            // Pictures that wait, in the order in which they are shown: when, and how many passed over each.
            let mut waiting: Vec<(i64, usize)> = (0..=depth as i64).map(|n| (n * 40 + 1_000, 0)).collect();
            let mut last = i64::MIN;
            for (n, pick) in picks.iter().enumerate() {
                // Decoders begin with the picture that is shown first.
                let late = waiting[0].1 >= depth;
                let at = if n == 0 || late { 0 } else { pick % waiting.len() };
                let (pts, _) = waiting.remove(at);
                waiting[..at].iter_mut().for_each(|(_, passed)| *passed += 1);
                waiting.push(((n + depth + 1) as i64 * 40 + 1_000, 0));
                let dts = d.dts(pts);
                prop_assert!(dts > last && dts <= pts, "{} after {}, shown at {}", dts, last, pts);
                last = dts;
            }
        }
    }
}
