//! What a player saw and heard, and what that says.

use super::signal::{self, EVERY, NUMBERS, PICTURE_US, Sound};
use serde_json::{Value, json};

/// A picture that was shown.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// When it is to be shown, on the clock that sound has too, microseconds.
    pub at_us: i64,
    /// When the player had it, on any clock, microseconds.
    pub came_us: i64,
    /// Its number; `None`: damaged, or `patched`.
    pub number: Option<u16>,
    /// It has no number at the points that were looked at, but is one as a whole, though perhaps not its own.
    pub patched: bool,
}

/// All that a player told.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Pictures, in the order in which they were shown.
    pub pictures: Vec<Picture>,
    /// Sound, piece by piece.
    pub sound: Vec<Sound>,
    /// Milliseconds from the beginning to the first picture.
    pub start_ms: Option<u64>,
    /// The codec of the pictures, as the player calls it.
    pub video: String,
    /// The codec of the sound, as the player calls it.
    pub audio: String,
    /// Pictures that were shown, but not to us: the page was busy.
    pub unseen: u64,
    /// What the player complained of, if it did not play.
    pub complaint: Option<String>,
}

impl Seen {
    /// One who does not play, and why.
    pub fn failed(complaint: String) -> Seen {
        Seen { complaint: Some(complaint), ..Seen::default() }
    }

    /// Whether there is neither a picture nor sound.
    pub fn nothing(&self) -> bool {
        self.pictures.is_empty() && self.sound.is_empty()
    }

    /// Adds sound that was said to be heard at `at_us`. Within 20 ms of where the last piece ends it goes on with that.
    pub fn hear(&mut self, at_us: i64, samples: &[i16]) {
        if self.sound.last().is_none_or(|last| (last.end_us() - at_us).abs() >= 20_000) {
            self.sound.push(Sound::default());
        }
        if let Some(last) = self.sound.last_mut() {
            last.add(at_us, samples);
        }
    }
}

/// What is judged and written in tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measure {
    /// Pictures.
    pub pictures: u64,
    /// Numbers that were left out between the first and the last picture, less those that the page missed.
    pub missing: u64,
    /// Before which picture the first is missing, counted from 0.
    pub missing_at: Option<usize>,
    /// Of the missing those between the first picture and the second.
    pub missing_first: u64,
    /// Pictures with the number of the one before.
    pub repeated: u64,
    /// Pictures with a lower number than one before.
    pub disordered: u64,
    /// Pictures that are no number.
    pub damaged: u64,
    /// Which picture was the first that is damaged, counted from 0.
    pub damaged_at: Option<usize>,
    /// Pictures that are a number as a whole and not at every point.
    pub patched: u64,
    /// The longest time without a new picture after the first second, milliseconds.
    pub frozen_ms: u64,
    /// How much later the sound is heard than its picture is shown, milliseconds: the median over all pips.
    pub offset_ms: Option<f64>,
    /// The same for the first and for the last pips.
    pub offset_ends_ms: Option<(f64, f64)>,
    /// Pips.
    pub pips: u64,
    /// The tone.
    pub tone_hz: Option<f64>,
    /// Holes in the sound, as the player's timestamps tell.
    pub sound_breaks: u64,
}

/// The middle of some values.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// How far on `b` is from `a`, in a circle of so many.
fn ahead(a: u32, b: u32, circle: u32) -> i64 {
    let half = i64::from(circle / 2);
    (i64::from(b) - i64::from(a) + half).rem_euclid(i64::from(circle)) - half
}

/// How much later than its picture a pip is heard, microseconds: the median over the pictures about it.
fn offset(pictures: &[Picture], pip: i64) -> Option<f64> {
    let near = pictures.iter().filter(|p| (p.at_us - pip).abs() < 500_000);
    let of = |p: &Picture| {
        let since = ahead(0, u32::from(p.number?) % EVERY, EVERY);
        Some((pip - (p.at_us - since * PICTURE_US)) as f64)
    };
    let mut all: Vec<f64> = near.filter_map(of).collect();
    if all.len() < 5 { None } else { median(&mut all) }
}

/// Measures.
pub fn measure(seen: &Seen) -> Measure {
    let mut out = Measure { pictures: seen.pictures.len() as u64, ..Measure::default() };
    let mut highest: Option<u32> = None;
    let mut last = None;
    for (n, picture) in seen.pictures.iter().enumerate() {
        let Some(number) = picture.number.map(u32::from) else {
            if picture.patched {
                out.patched += 1;
            } else {
                out.damaged += 1;
                out.damaged_at.get_or_insert(n);
            }
            continue;
        };
        if let Some(before) = highest {
            match ahead(before, number, NUMBERS) {
                0 if last == Some(number) => out.repeated += 1,
                n if n <= 0 => out.disordered += 1,
                1 => {}
                more => {
                    out.missing += more as u64 - 1;
                    out.missing_at.get_or_insert(n);
                    if n == 1 {
                        out.missing_first = more as u64 - 1;
                    }
                }
            }
        }
        if highest.is_none_or(|before| ahead(before, number, NUMBERS) > 0) {
            highest = Some(number);
        }
        last = Some(number);
    }
    // One that was late was counted as missing first.
    out.missing = out.missing.saturating_sub(out.disordered).saturating_sub(seen.unseen);
    if let Some(first) = seen.pictures.first() {
        let late = seen.pictures.iter().filter(|p| p.came_us - first.came_us > 1_000_000);
        let came: Vec<i64> = late.map(|p| p.came_us).collect();
        out.frozen_ms = came.windows(2).map(|w| (w[1] - w[0]) as u64 / 1_000).max().unwrap_or(0);
    }
    let pips: Vec<i64> = seen.sound.iter().flat_map(signal::pips).collect();
    out.pips = pips.len() as u64;
    out.sound_breaks = seen.sound.len().saturating_sub(1) as u64;
    let mut offsets: Vec<f64> =
        pips.iter().filter_map(|&pip| offset(&seen.pictures, pip)).map(|us| us / 1_000.0).collect();
    let few = offsets.len().min(5);
    out.offset_ends_ms =
        median(&mut offsets[..few].to_vec()).zip(median(&mut offsets[offsets.len() - few..].to_vec()));
    out.offset_ms = median(&mut offsets);
    out.tone_hz = seen.sound.iter().max_by_key(|s| s.len()).and_then(signal::tone);
    out
}

impl Measure {
    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "pictures": self.pictures, "missing": self.missing, "missing_at": self.missing_at, "repeated": self.repeated,
            "disordered": self.disordered, "damaged": self.damaged,
            "damaged_at": self.damaged_at, "patched": self.patched, "frozen_ms": self.frozen_ms,
            "offset_ms": self.offset_ms, "offset_first_ms": self.offset_ends_ms.map(|e| e.0),
            "offset_last_ms": self.offset_ends_ms.map(|e| e.1), "pips": self.pips, "tone_hz": self.tone_hz,
            "sound_breaks": self.sound_breaks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(numbers: &[Option<u16>]) -> Seen {
        let picture = |(n, &number): (usize, &Option<u16>)| Picture {
            at_us: n as i64 * PICTURE_US,
            came_us: n as i64 * PICTURE_US,
            number,
            patched: false,
        };
        Seen { pictures: numbers.iter().enumerate().map(picture).collect(), ..Seen::default() }
    }

    #[test]
    fn what_is_missing_repeated_late_or_damaged_is_told_apart_and_the_end_of_the_numbers_is_no_fault() {
        let got = measure(&pictures(&[65_498, 65_499, 0, 1, 1, 4, 3, 5].map(Some)));
        assert_eq!((got.missing, got.repeated, got.disordered, got.damaged), (1, 1, 1, 0));
        assert_eq!(got.missing_at, Some(5));
        let got = measure(&pictures(&[Some(1), None, Some(3)]));
        assert_eq!((got.missing, got.damaged), (1, 1));
    }

    #[test]
    fn sound_that_comes_late_is_measured_even_where_the_picture_of_the_pip_is_missing() {
        let mut seen = pictures(&(0..200).map(Some).collect::<Vec<_>>());
        seen.pictures.remove(50);
        let pip = |n: u32| n % 96_000 < 4_800;
        let sample = |n: u32| if pip(n) { (f64::from(n) * 0.2618).sin() * 16_000.0 } else { 0.0 };
        let samples: Vec<i16> = (24_000..360_000).map(|n| sample(n) as i16).collect();
        // The samples begin half a second into the signal, and are heard 30 ms late.
        seen.hear(530_000, &samples);
        let got = measure(&seen);
        assert_eq!(got.pips, 3);
        assert!((got.offset_ms.expect("an offset") - 30.0).abs() < 2.0, "{got:?}");
    }
}
