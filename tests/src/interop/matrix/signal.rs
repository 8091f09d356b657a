//! The picture and the sound that a publisher of the matrix sends, and how they are read back.
//!
//! The picture is a number: 16 columns, the lowest bit on the left, white above black for 1 and black above white for 0, so
//! that each bit is there twice and damage is told from a number. The sound is a quiet tone, and a pip that begins with
//! each picture whose number is a multiple of [`EVERY`].

/// Pictures a second.
pub const FPS: u32 = 25;
/// Width of the picture.
pub const WIDTH: u32 = 320;
/// Height of the picture.
pub const HEIGHT: u32 = 180;
/// Microseconds of a picture.
pub const PICTURE_US: i64 = 1_000_000 / FPS as i64;
/// Pictures from pip to pip.
pub const EVERY: u32 = 50;
/// After so many pictures the numbers begin again: a multiple of [`EVERY`].
pub const NUMBERS: u32 = 65_500;
/// The tone, Hz.
pub const TONE_HZ: f64 = 440.0;
/// The pip, Hz.
pub const PIP_HZ: f64 = 2000.0;
/// How long a pip is, seconds.
pub const PIP_S: f64 = 0.1;
/// Samples a second that players hand over.
pub const RATE: u32 = 48_000;
/// The least difference of brightness between the halves of a column.
const CONTRAST: u8 = 64;

/// The picture as a source of ffmpeg's lavfi: numbers from one on, so many a second.
pub fn ffmpeg_picture(from: u32, fps: u32) -> String {
    format!(
        "color=black:size=16x2:rate={fps},format=gray,\
         geq=lum='255*mod(floor(mod(N+{from},{NUMBERS})/pow(2,X))+Y,2)',\
         scale={WIDTH}:{HEIGHT}:flags=neighbor,setsar=1,format=yuv420p"
    )
}

/// The sound as a source of ffmpeg's lavfi, with so many samples a second.
pub fn ffmpeg_sound(rate: u32) -> String {
    let seconds = f64::from(EVERY) / f64::from(FPS);
    format!(
        "aevalsrc='0.1*sin(2*PI*{TONE_HZ}*t)+0.5*sin(2*PI*{PIP_HZ}*t)*lt(mod(t,{seconds}),{PIP_S})':s={rate}"
    )
}

/// The number of a picture that was scaled to 16×2 points of brightness; `None` if it is damaged.
pub fn number(points: &[u8]) -> Option<u16> {
    let (above, below) = points.split_at_checked(16)?;
    let mut number = 0;
    for (bit, (&a, &b)) in above.iter().zip(below).enumerate() {
        if a.abs_diff(b) < CONTRAST {
            return None;
        }
        number |= u16::from(a > b) << bit;
    }
    (below.len() == 16).then_some(number)
}

/// A piece of sound without holes.
#[derive(Clone, Debug, Default)]
pub struct Sound {
    /// When samples are heard, on the player's clock, microseconds: of the first, and of others that the player told of.
    marks: Vec<(usize, i64)>,
    samples: Vec<i16>,
}

impl Sound {
    /// More samples, mono and [`RATE`] a second, the first of which is heard at `at_us`.
    pub fn add(&mut self, at_us: i64, samples: &[i16]) {
        self.marks.push((self.samples.len(), at_us));
        self.samples.extend_from_slice(samples);
    }

    /// Samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sound.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// When the first sample after it would be heard.
    pub fn end_us(&self) -> i64 {
        self.time(self.samples.len())
    }

    fn time(&self, sample: usize) -> i64 {
        let after = self.marks.partition_point(|m| m.0 <= sample);
        let (from, at_us) = after.checked_sub(1).and_then(|n| self.marks.get(n)).copied().unwrap_or((0, 0));
        at_us + (sample - from) as i64 * 1_000_000 / i64::from(RATE)
    }
}

/// How strong a frequency is among samples: its amplitude as a share of full scale (Goertzel's algorithm).
fn amplitude(samples: &[i16], hz: f64) -> f64 {
    let turn = 2.0 * (2.0 * std::f64::consts::PI * hz / f64::from(RATE)).cos();
    let (mut a, mut b) = (0.0, 0.0);
    for &sample in samples {
        (a, b) = (f64::from(sample) + turn * a - b, a);
    }
    let power = (a * a + b * b - turn * a * b).max(0.0);
    2.0 * power.sqrt() / samples.len() as f64 / 32_768.0
}

/// When pips begin in a piece of sound, to a millisecond or two. One that was there from the first sample is left out.
pub fn pips(sound: &Sound) -> Vec<i64> {
    /// Five milliseconds, ten turns of the pip.
    const WINDOW: usize = 240;
    const HOP: usize = 24;
    let levels: Vec<f64> =
        sound.samples.windows(WINDOW).step_by(HOP).map(|window| amplitude(window, PIP_HZ)).collect();
    let top = levels.iter().copied().fold(0.0, f64::max);
    if top < 0.05 {
        return Vec::new();
    }
    let mut found = Vec::new();
    // Silent hops before this one.
    let mut quiet = 0;
    for (hop, &level) in levels.iter().enumerate() {
        if level > top / 2.0 {
            // Half of the window is filled.
            if quiet * HOP >= RATE as usize / 4 {
                found.push(sound.time(hop * HOP + WINDOW / 2));
            }
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    found
}

/// The strongest frequency between two pips, Hz; `None` without a second of sound.
pub fn tone(sound: &Sound) -> Option<f64> {
    const WINDOW: usize = 4_800;
    let quiet = sound.samples.chunks_exact(WINDOW).filter(|w| amplitude(w, PIP_HZ) < 0.01);
    let mut strengths = vec![0.0; 300];
    let mut windows = 0;
    for window in quiet.take(20) {
        windows += 1;
        for (n, strength) in strengths.iter_mut().enumerate() {
            *strength += amplitude(window, 100.0 + n as f64 * 5.0);
        }
    }
    let (best, strength) = strengths.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (windows >= 10 && strength / f64::from(windows) > 0.01).then_some(100.0 + best as f64 * 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of a number.
    fn points(number: u16) -> Vec<u8> {
        let bit = |n: u16| if number >> n & 1 == 1 { 235 } else { 16 };
        (0..16).map(bit).chain((0..16).map(|n| 251 - bit(n))).collect()
    }

    /// Sound of the signal from `from` seconds on.
    fn sound(from: f64, seconds: f64) -> Sound {
        let sample = |n: u32| {
            let t = from + f64::from(n) / f64::from(RATE);
            let turn = 2.0 * std::f64::consts::PI * t;
            let pip = if t % 2.0 < PIP_S { 0.5 * (turn * PIP_HZ).sin() } else { 0.0 };
            ((0.1 * (turn * TONE_HZ).sin() + pip) * 32_767.0) as i16
        };
        let n = (seconds * f64::from(RATE)) as u32;
        let mut sound = Sound::default();
        sound.add((from * 1e6) as i64, &(0..n).map(sample).collect::<Vec<_>>());
        sound
    }

    #[test]
    fn a_number_is_read_back_and_a_half_picture_is_damage() {
        for n in [0, 1, 0x8000, 0xffff, 12_345, 65_499] {
            assert_eq!(number(&points(n)), Some(n));
        }
        let mut grey = points(77);
        grey[3] = 128;
        grey[19] = 120;
        assert_eq!(number(&grey), None);
        assert_eq!(number(&points(77)[..31]), None);
    }

    #[test]
    fn pips_are_found_where_they_begin_and_the_tone_between_them() {
        let heard = sound(0.7, 6.0);
        let found = pips(&heard);
        assert_eq!(found.len(), 3, "{found:?}");
        for (pip, at) in found.iter().zip([2_000_000, 4_000_000, 6_000_000]) {
            assert!((pip - at).abs() < 2_000, "{pip} {at}");
        }
        assert_eq!(tone(&heard), Some(TONE_HZ));
        let mut silence = Sound::default();
        silence.add(0, &[0; 96_000]);
        assert!(pips(&silence).is_empty());
        assert_eq!(tone(&silence), None);
    }
}
