//! Samples with a source's times and rate become frames at the encoder's rate with steady times of their own.
//!
//! The times of a source are rounded (RTMP: to milliseconds), drift against its samples, have gaps and jump. Frames that
//! come out stand exactly one frame apart, as encoders and players want it, and follow the source: slowly, by resampling
//! a little faster or slower, where it drifts; at once, by silence or a cut, where it jumps.

use audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction};
use std::collections::VecDeque;

/// Taps of the resampler's filter where the rate rises; where it falls, as many more as it falls, so that what the lower
/// rate cannot carry is taken out as sharply. The filter's delay, half its length, is taken back.
const TAPS: usize = 64;
/// From 96 kHz down to 8 kHz.
const MOST_TIMES: u32 = 12;
/// Samples that the resampler takes in one go at most.
const CHUNK: usize = 2_048;
/// How far the ratio may be bent: 0.5 % is heard by nobody and makes good 5 ms in a second.
const BEND: f64 = 0.005;
/// A steady distance from the source below this is left alone, nanoseconds: RTMP's rounding is no more.
const CLOSE: f64 = 1e6;
/// A distance over which what is left of it halves in about this many seconds by bending.
const PATIENCE: f64 = 2e9;
/// Frames of the source over which its distance is averaged.
const AVERAGE: f64 = 16.0;
/// A distance beyond this in several frames of the source on end is a lost packet or a jump, and made good at once.
const OFF: f64 = 12e6;
/// How many frames on end.
const AGREED: usize = 4;
/// A distance beyond this is no jitter, nanoseconds.
const FAR: f64 = 60e6;
/// A distance beyond this is not filled with silence; times begin anew, nanoseconds.
const ANEW: f64 = 1e9;

/// A frame that is ready for the encoder.
pub(crate) struct Ready {
    /// Time of its first sample, nanoseconds.
    pub(crate) pts: i64,
    /// One plane per channel.
    pub(crate) planes: Vec<Vec<f32>>,
}

/// What to do about the distance of the source from where we are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Go on.
    Follow,
    /// Put in so much silence first, nanoseconds.
    Fill(f64),
    /// Leave out so much of what comes, nanoseconds.
    Cut(f64),
    /// Begin anew.
    Anew,
}

pub(crate) struct Line {
    channels: usize,
    frame: usize,
    /// Samples a second of what comes out.
    made: u32,
    /// Samples a second of the source.
    rate: u32,
    taps: usize,
    resampler: Option<Async<f32>>,
    /// The time of the first sample since times began anew.
    start: Option<i64>,
    /// Samples that left in frames since then.
    taken: u64,
    waiting: Vec<Vec<f32>>,
    recent: VecDeque<f64>,
    mean: f64,
    /// Samples of the source still to be left out.
    skip: usize,
    frames: VecDeque<Ready>,
}

impl Line {
    /// A line of one or two channels whose frames have `frame` samples each, `made` of them a second.
    pub(crate) fn new(channels: usize, frame: usize, made: u32) -> Line {
        Line {
            channels,
            frame,
            made,
            rate: 0,
            taps: TAPS,
            resampler: None,
            start: None,
            taken: 0,
            waiting: vec![Vec::new(); channels],
            recent: VecDeque::new(),
            mean: 0.0,
            skip: 0,
            frames: VecDeque::new(),
        }
    }

    /// The next frame, where one is complete.
    pub(crate) fn pop(&mut self) -> Option<Ready> {
        self.frames.pop_front()
    }

    /// The time at which the next sample of the source is expected.
    fn expected(&self) -> Option<f64> {
        let so_far = self.taken + self.waiting.first().map_or(0, |w| w.len() as u64);
        Some(self.start? as f64 + so_far as f64 * 1e9 / f64::from(self.made))
    }

    /// Takes samples of the source whose first stands at `pts`.
    pub(crate) fn push(&mut self, pts: i64, rate: u32, planes: &[Vec<f32>]) -> Result<(), String> {
        if rate != self.rate {
            self.begin_anew(rate)?;
        }
        let len = planes.first().map_or(0, Vec::len);
        let second = 1e9 / f64::from(rate);
        if let Some(expected) = self.expected() {
            let distance = pts as f64 + self.skip as f64 * second - expected;
            match self.judge(distance) {
                Step::Follow => {}
                Step::Fill(gap) => self.silence((gap / second) as usize)?,
                Step::Cut(ahead) => self.skip += (ahead / second) as usize,
                Step::Anew => self.begin_anew(rate)?,
            }
        }
        let skipped = self.skip.min(len);
        self.skip -= skipped;
        if self.start.is_none() {
            self.start = Some(pts + (skipped as f64 * second) as i64);
        }
        let bend = if self.mean.abs() > CLOSE { (self.mean / PATIENCE).clamp(-BEND, BEND) } else { 0.0 };
        if let Some(r) = self.resampler.as_mut().and_then(|r| Resampler::as_adjustable(r)) {
            r.set_resample_ratio_relative(1.0 + bend, true).map_err(|e| e.to_string())?;
        }
        let rest: Vec<Vec<f32>> =
            planes.iter().map(|p| p.get(skipped..).unwrap_or_default().to_vec()).collect();
        self.feed(&rest)?;
        self.cut_frames();
        Ok(())
    }

    fn judge(&mut self, distance: f64) -> Step {
        if distance.abs() > ANEW {
            return Step::Anew;
        }
        if self.recent.len() == AGREED {
            self.recent.pop_front();
        }
        self.recent.push_back(distance);
        let least = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.recent.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let agreed = self.recent.len() == AGREED;
        let step = if distance > FAR {
            Step::Fill(distance)
        } else if distance < -FAR {
            Step::Cut(-distance)
        } else if agreed && least > OFF {
            Step::Fill(least)
        } else if agreed && most < -OFF {
            Step::Cut(-most)
        } else {
            Step::Follow
        };
        if step == Step::Follow {
            self.mean += (distance - self.mean) / AVERAGE;
        } else {
            self.recent.clear();
            self.mean = 0.0;
        }
        step
    }

    /// Ends what was under way with silence, and takes the next sample's time for a new start.
    fn begin_anew(&mut self, rate: u32) -> Result<(), String> {
        let left = self.waiting.first().map_or(0, Vec::len);
        if left > 0 {
            self.waiting.iter_mut().for_each(|w| w.resize(left.next_multiple_of(self.frame), 0.0));
            self.cut_frames();
        }
        self.start = None;
        self.taken = 0;
        self.skip = 0;
        self.mean = 0.0;
        self.recent.clear();
        if rate == self.rate
            && let Some(r) = &mut self.resampler
        {
            r.reset();
            return Ok(());
        }
        let ratio = f64::from(self.made) / f64::from(rate.max(1));
        self.taps = TAPS * rate.div_ceil(self.made).clamp(1, MOST_TIMES) as usize;
        let parameters = SincInterpolationParameters::new(self.taps, WindowFunction::BlackmanHarris2);
        let made =
            Async::new_sinc(ratio, 1.0 + 2.0 * BEND, &parameters, CHUNK, self.channels, FixedAsync::Input);
        self.resampler = Some(made.map_err(|e| format!("sound of {rate} samples a second: {e}"))?);
        self.rate = rate;
        Ok(())
    }

    fn silence(&mut self, samples: usize) -> Result<(), String> {
        self.feed(&vec![vec![0.0; samples]; self.channels])
    }

    fn feed(&mut self, planes: &[Vec<f32>]) -> Result<(), String> {
        let Some(resampler) = &mut self.resampler else { return Ok(()) };
        let len = planes.first().map_or(0, Vec::len);
        let mut at = 0;
        while at < len {
            let n = (len - at).min(CHUNK);
            let piece: Vec<Vec<f32>> =
                planes.iter().map(|p| p.get(at..at + n).unwrap_or_default().to_vec()).collect();
            at += n;
            if let Some(r) = Resampler::as_resizable(resampler) {
                r.set_chunk_size(n).map_err(|e| e.to_string())?;
            }
            let input = SequentialSliceOfVecs::new(&piece, self.channels, n).map_err(|e| e.to_string())?;
            let made = resampler.process(&input, None).map_err(|e| e.to_string())?;
            for (i, sample) in made.take_data().into_iter().enumerate() {
                if let Some(plane) = self.waiting.get_mut(i % self.channels) {
                    // Decoders and filters overshoot, and broken packets decode to anything.
                    plane.push(if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 });
                }
            }
        }
        Ok(())
    }

    /// Moves whole frames to where [`Line::pop`] finds them.
    fn cut_frames(&mut self) {
        let Some(start) = self.start else { return };
        // The filter gives a sample out half its length after it took it in.
        let delay = (self.taps / 2) as i64 * 1_000_000_000 / i64::from(self.rate.max(1));
        while self.waiting.first().is_some_and(|w| w.len() >= self.frame) {
            let planes = self.waiting.iter_mut().map(|w| w.drain(..self.frame).collect()).collect();
            let since = i128::from(self.taken) * 1_000_000_000 / i128::from(self.made);
            let pts = start.saturating_add(since as i64).saturating_sub(delay);
            self.frames.push_back(Ready { pts, planes });
            self.taken += self.frame as u64;
        }
    }
}
