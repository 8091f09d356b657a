//! Any number of channels into one or two.

/// What the centre and the surround channels count for on each side (ITU-R BS.775: 3 dB less).
const SIDE: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// How much of each channel goes to the left and to the right. Channels stand in the order that the decoder gives:
/// left, right, centre, then (from six on) the low-frequency channel, then those beside and behind the listener.
fn gains(channels: usize, channel: usize) -> (f32, f32) {
    match (channels, channel) {
        (1, _) => (1.0, 1.0),
        (_, 0) => (1.0, 0.0),
        (_, 1) => (0.0, 1.0),
        (_, 2) => (SIDE, SIDE),
        // Four channels: one behind. From six on the fourth is for low frequencies, and left out (BS.775, annex 4).
        (4, 3) => (SIDE, SIDE),
        (6.., 3) => (0.0, 0.0),
        (5, n) => side(n - 3),
        (_, n) => side(n - 4),
    }
}

fn side(nth: usize) -> (f32, f32) {
    if nth.is_multiple_of(2) { (SIDE, 0.0) } else { (0.0, SIDE) }
}

/// Mixes `planes` into `out`, which has one or two planes, and appends. Scaled so that it cannot clip where the source
/// did not.
pub(crate) fn mix(planes: &[Vec<f32>], out: &mut [Vec<f32>]) {
    match (planes, out) {
        ([one], out) => out.iter_mut().for_each(|o| o.extend_from_slice(one)),
        ([left, right], [mono]) => mono.extend(left.iter().zip(right).map(|(l, r)| (l + r) / 2.0)),
        ([left, right], [to_left, to_right]) => {
            to_left.extend_from_slice(left);
            to_right.extend_from_slice(right);
        }
        (planes, out) => {
            let n = planes.first().map_or(0, Vec::len);
            let sides = out.len();
            let sum: f32 = (0..planes.len()).map(|c| gains(planes.len(), c).0).sum();
            for (side, out) in out.iter_mut().enumerate() {
                let start = out.len();
                out.resize(start + n, 0.0);
                for (c, plane) in planes.iter().enumerate() {
                    let (left, right) = gains(planes.len(), c);
                    let gain = match (sides, side) {
                        (1, _) => (left + right) / 2.0,
                        (_, 0) => left,
                        _ => right,
                    } / sum.max(1.0);
                    for (o, s) in out.iter_mut().skip(start).zip(plane) {
                        *o += s * gain;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(channels: usize, loud: usize, to: usize) -> Vec<f32> {
        let planes: Vec<Vec<f32>> = (0..channels).map(|c| vec![f32::from(c == loud); 3]).collect();
        let mut out = vec![vec![]; to];
        mix(&planes, &mut out);
        assert!(out.iter().all(|o| o.len() == 3));
        out.iter().map(|o| o[1]).collect()
    }

    #[test]
    fn one_and_two_channels_stay_what_they_are() {
        assert_eq!(mixed(1, 0, 1), [1.0]);
        assert_eq!(mixed(1, 0, 2), [1.0, 1.0]);
        assert_eq!(mixed(2, 0, 2), [1.0, 0.0]);
        assert_eq!(mixed(2, 1, 1), [0.5]);
    }

    #[test]
    fn five_point_one_keeps_sides_and_drops_the_low_frequencies() {
        let side = |v: Vec<f32>| (v[0] > 0.2, v[1] > 0.2);
        assert_eq!(side(mixed(6, 0, 2)), (true, false));
        assert_eq!(side(mixed(6, 1, 2)), (false, true));
        assert_eq!(side(mixed(6, 2, 2)), (true, true));
        assert_eq!(side(mixed(6, 3, 2)), (false, false));
        assert_eq!(side(mixed(6, 4, 2)), (true, false));
        assert_eq!(side(mixed(6, 5, 2)), (false, true));
    }

    #[test]
    fn nothing_clips_that_did_not_clip() {
        for channels in 1..=8 {
            let planes = vec![vec![1.0f32]; channels];
            let mut out = vec![vec![], vec![]];
            mix(&planes, &mut out);
            assert!(out.iter().all(|o| o[0] <= 1.001), "{channels}: {out:?}");
        }
    }
}
