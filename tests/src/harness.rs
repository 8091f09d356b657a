//! The generic machine harness: holds any [`Machine`] that takes stream bytes to the laws of its trait.
//!
//! * **Re-chunking**: the same bytes, cut anywhere, give the same outputs.
//! * **Ticks**: ticks that come too early, or twice, change nothing.
//! * **Garbage**: mutated transcripts and noise never panic, never make more outputs than the bytes pay for, and
//!   never leave a deadline that stays due (a busy loop).
//!
//! Everything random comes from one seed; a finding names the seed, the round and where the stream was cut.

use proto_core::machine::Machine;
use proto_core::rand::Rng;
use proto_core::time::{Deadline, Time};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How to drive one kind of machine.
pub trait Subject {
    /// The machine.
    type Machine: Machine;
    /// What the outputs of a run are boiled down to before two runs are compared, such as all sent bytes in one
    /// piece and the events in order.
    type Seen: PartialEq + fmt::Debug;

    /// A new machine at [`Time::ZERO`], with whatever inputs it needs before stream bytes (write credit).
    fn make(&self) -> Self::Machine;

    /// The input that brings stream bytes.
    fn received<'a>(&self, bytes: &'a [u8]) -> <Self::Machine as Machine>::Input<'a>;

    /// The input that says that time passed.
    fn tick<'a>(&self) -> <Self::Machine as Machine>::Input<'a>;

    /// Boils down all outputs of a run.
    fn see(&self, outputs: Vec<<Self::Machine as Machine>::Output>) -> Self::Seen;

    /// Answers an output as the machine's surroundings would (accept a publisher, renew credit).
    fn react(&self, machine: &mut Self::Machine, output: &<Self::Machine as Machine>::Output, now: Time) {
        let _ = (machine, output, now);
    }

    /// Whether this output ends the session; a driver hands it nothing more after that.
    fn ends(&self, output: &<Self::Machine as Machine>::Output) -> bool {
        let _ = output;
        false
    }
}

/// A broken law, with all that is needed to see it again.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which law: `rechunk`, `ticks`, `panic`, `flood`, `endless`, `busy_loop`.
    pub law: &'static str,
    /// The seed of the harness.
    pub seed: u64,
    /// The round under that seed.
    pub round: u32,
    /// Where the stream was cut.
    pub cuts: Vec<usize>,
    /// What was seen.
    pub text: String,
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { law, seed, round, cuts, text } = self;
        write!(f, "{law}: {text}\n  again with Harness::new(subject, {seed}), round {round}, cuts {cuts:?}")
    }
}

/// Outputs of one `poll` loop beyond which it is taken for endless.
const ENDLESS: usize = 1_000_000;
/// Ticks at one moment after which a deadline that is still due is taken for a busy loop.
const STUCK: u32 = 16;
/// Deadlines met in the quiet after a stream.
const QUIET_DEADLINES: u32 = 200;
/// How long a driver goes on after the stream ended.
const QUIET: Duration = Duration::from_secs(120);
/// Time between two pieces where time passes.
const STEP: Duration = Duration::from_millis(7);

/// Drives machines of one kind.
#[derive(Debug)]
pub struct Harness<S> {
    subject: S,
    seed: u64,
    rounds: u32,
    free_outputs: usize,
    outputs_per_byte: usize,
}

type OutputOf<S> = <<S as Subject>::Machine as Machine>::Output;

/// One machine while it is driven.
struct Run<'s, S: Subject> {
    subject: &'s S,
    machine: S::Machine,
    outputs: Vec<OutputOf<S>>,
    now: Time,
    ended: bool,
}

impl<'s, S: Subject> Run<'s, S> {
    fn new(subject: &'s S) -> Result<Self, String> {
        let machine = subject.make();
        let mut run = Run { subject, machine, outputs: Vec::new(), now: Time::ZERO, ended: false };
        run.drain()?;
        Ok(run)
    }

    fn drain(&mut self) -> Result<(), String> {
        for _ in 0..ENDLESS {
            let Some(output) = self.machine.poll() else { return Ok(()) };
            self.subject.react(&mut self.machine, &output, self.now);
            self.ended |= self.subject.ends(&output);
            self.outputs.push(output);
        }
        Err(format!("poll gave {ENDLESS} outputs and no end"))
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        if !self.ended {
            self.machine.handle(self.subject.received(bytes), self.now);
            self.drain()?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), String> {
        if !self.ended {
            self.machine.handle(self.subject.tick(), self.now);
            self.drain()?;
        }
        Ok(())
    }

    fn due(&self) -> Option<Deadline> {
        if self.ended { None } else { self.machine.deadline() }
    }

    /// Goes on to `until`, meeting each deadline on the way as a driver does, at most `most` of them. `spurious`
    /// is called between two deadlines and may add ticks. A deadline that stays due is the error.
    fn advance(
        &mut self,
        until: Time,
        most: u32,
        mut spurious: impl FnMut(&mut Self, Time) -> Result<(), String>,
    ) -> Result<(), String> {
        for _ in 0..most {
            let next = match self.due() {
                Some(d) if d.at <= until => d.at.max(self.now),
                _ => break,
            };
            spurious(self, next)?;
            self.now = next;
            let mut ticks = 0;
            while let Some(d) = self.due().filter(|d| d.at <= self.now) {
                if ticks == STUCK {
                    return Err(format!("{:?} is still due at {} after {STUCK} ticks", d.why, self.now));
                }
                self.tick()?;
                ticks += 1;
            }
        }
        if self.due().is_none_or(|d| d.at > until) {
            spurious(self, until)?;
            self.now = self.now.max(until);
        }
        Ok(())
    }
}

fn pieces<'a>(stream: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(stream.len()));
    starts.zip(ends).filter(|(a, b)| a < b).map(|(a, b)| &stream[a..b])
}

/// Cut positions in `1..len`, sorted: none, everywhere, a few, or many in one small window.
fn cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let below = |rng: &mut Rng, n: usize| rng.below(u32::try_from(n).unwrap_or(u32::MAX)) as usize;
    if len < 2 {
        return Vec::new();
    }
    let mut out: Vec<usize> = match rng.below(4) {
        0 => {
            let step = 1 + below(rng, 7);
            (1..len).step_by(step).take(5_000).collect()
        }
        1 => {
            let from = below(rng, len);
            (from.max(1)..len.min(from + 200)).collect()
        }
        _ => {
            let n = 1 + below(rng, 40);
            (0..n).map(|_| 1 + below(rng, len - 1)).collect()
        }
    };
    out.sort_unstable();
    out.dedup();
    out
}

/// A damaged copy of a transcript, or plain noise.
fn mutate(rng: &mut Rng, stream: &[u8]) -> Vec<u8> {
    let below = |rng: &mut Rng, n: usize| rng.below(u32::try_from(n).unwrap_or(u32::MAX)) as usize;
    let mut out = stream.to_vec();
    if out.is_empty() || rng.below(8) == 0 {
        out = vec![0; below(rng, 4096)];
        rng.fill(&mut out);
        return out;
    }
    for _ in 0..1 + rng.below(8) {
        let len = out.len().max(1);
        let at = below(rng, len).min(out.len());
        let span = below(rng, 64).min(out.len() - at);
        match rng.below(7) {
            0 => out.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << (at % 8)),
            1 => out.iter_mut().skip(at).take(1).for_each(|b| *b = [0, 0xff, 0x7f, 0x80][at % 4]),
            2 => out.iter_mut().skip(at).take(span.min(4)).for_each(|b| *b = 0xff),
            3 => drop(out.drain(at..at + span)),
            4 => {
                let again = out[at..at + span].to_vec();
                out.splice(at..at, again);
            }
            5 => {
                let mut noise = vec![0; span];
                rng.fill(&mut noise);
                out.splice(at..at, noise);
            }
            _ => out.truncate(at),
        }
    }
    out
}

impl<S: Subject> Harness<S> {
    /// A harness with a seed, 200 rounds a law, and room for 64 outputs plus 4 a byte.
    pub fn new(subject: S, seed: u64) -> Harness<S> {
        Harness { subject, seed, rounds: 200, free_outputs: 64, outputs_per_byte: 4 }
    }

    /// Sets the rounds a law.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets how many outputs damaged bytes may cause: `free` in all and `per_byte` for each byte.
    pub fn outputs(mut self, free: usize, per_byte: usize) -> Self {
        (self.free_outputs, self.outputs_per_byte) = (free, per_byte);
        self
    }

    /// Checks every law with this transcript. Panics with the finding.
    pub fn check(&self, stream: &[u8]) {
        for found in [self.rechunk(stream), self.ticks(stream), self.garbage(stream)] {
            if let Err(finding) = found {
                panic!("{finding:?}");
            }
        }
    }

    fn rng(&self, law: &str, round: u32) -> Rng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        Rng::new(seed).fork(law, u64::from(round))
    }

    fn finding(&self, law: &'static str, round: u32, cuts: &[usize], text: String) -> Finding {
        Finding { law, seed: self.seed, round, cuts: cuts.to_vec(), text }
    }

    /// All of the stream at one moment, cut at `cuts`.
    fn at_once(&self, stream: &[u8], cuts: &[usize]) -> Result<S::Seen, String> {
        let mut run = Run::new(&self.subject)?;
        for piece in pieces(stream, cuts) {
            run.receive(piece)?;
        }
        Ok(self.subject.see(run.outputs))
    }

    /// Re-chunking: whole against cut. A finding's cuts are reduced to those that matter.
    pub fn rechunk(&self, stream: &[u8]) -> Result<(), Finding> {
        let whole = self.at_once(stream, &[]).map_err(|e| self.finding("endless", 0, &[], e))?;
        let differs = |cuts: &[usize]| match self.at_once(stream, cuts) {
            Ok(seen) if seen == whole => None,
            Ok(seen) => Some(first_difference(&format!("{whole:?}"), &format!("{seen:?}"))),
            Err(e) => Some(e),
        };
        for round in 0..self.rounds {
            let mut cuts = cuts(&mut self.rng("rechunk", round), stream.len());
            if let Some(mut text) = differs(&cuts) {
                let mut span = cuts.len().div_ceil(2);
                while span > 0 && !cuts.is_empty() {
                    let mut at = 0;
                    while at < cuts.len() {
                        let mut fewer = cuts.clone();
                        fewer.drain(at..fewer.len().min(at + span));
                        match differs(&fewer) {
                            Some(t) => (cuts, text) = (fewer, t),
                            None => at += span,
                        }
                    }
                    span = if span == 1 { 0 } else { span.div_ceil(2) };
                }
                return Err(self.finding("rechunk", round, &cuts, text));
            }
        }
        Ok(())
    }

    /// The stream over time, cut at `cuts`, and the quiet after it, with more ticks than needed where `extra`.
    fn over_time(&self, stream: &[u8], cuts: &[usize], mut extra: Option<Rng>) -> Result<S::Seen, String> {
        let mut run = Run::new(&self.subject)?;
        let mut spurious = |run: &mut Run<'_, S>, before: Time| -> Result<(), String> {
            let Some(rng) = &mut extra else { return Ok(()) };
            for _ in 0..rng.below(4) {
                let room = before.since(run.now).as_nanos() as u64;
                // Strictly before the next deadline, so that none of these ticks has anything to do.
                let later = run.now + Duration::from_nanos(rng.u64() % room.max(1));
                if run.due().is_none_or(|d| later < d.at) {
                    run.now = later;
                    run.tick()?;
                    run.tick()?;
                }
            }
            Ok(())
        };
        let mut at = Time::ZERO;
        for piece in pieces(stream, cuts) {
            at += STEP;
            run.advance(at, u32::MAX, &mut spurious)?;
            run.receive(piece)?;
        }
        run.advance(at + QUIET, QUIET_DEADLINES, &mut spurious)?;
        Ok(self.subject.see(run.outputs))
    }

    /// Spurious ticks: needed ticks only against more of them.
    pub fn ticks(&self, stream: &[u8]) -> Result<(), Finding> {
        for round in 0..self.rounds {
            let mut rng = self.rng("ticks", round);
            let cuts = cuts(&mut rng, stream.len());
            let stuck = |e| self.finding("busy_loop", round, &cuts, e);
            let needed = self.over_time(stream, &cuts, None).map_err(stuck)?;
            let more = self.over_time(stream, &cuts, Some(rng)).map_err(stuck)?;
            if needed != more {
                let text = format!("needed ticks gave {needed:?}\n  more ticks gave   {more:?}");
                return Err(self.finding("ticks", round, &cuts, text));
            }
        }
        Ok(())
    }

    /// Garbage: damaged copies of the stream.
    pub fn garbage(&self, stream: &[u8]) -> Result<(), Finding> {
        for round in 0..self.rounds {
            let mut rng = self.rng("garbage", round);
            let bytes = mutate(&mut rng, stream);
            let cuts = cuts(&mut rng, bytes.len());
            let ran = catch_unwind(AssertUnwindSafe(|| self.survive(&bytes, &cuts)));
            let ran = ran.unwrap_or_else(|panic| {
                let words = panic.downcast_ref::<String>().cloned();
                let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
                Err(("panic", words.unwrap_or_else(|| "panicked without words".to_owned())))
            });
            ran.map_err(|(law, text)| self.finding(law, round, &cuts, text))?;
        }
        Ok(())
    }

    fn survive(&self, bytes: &[u8], cuts: &[usize]) -> Result<(), (&'static str, String)> {
        let mut run = Run::new(&self.subject).map_err(|e| ("endless", e))?;
        let (mut at, mut given) = (Time::ZERO, 0);
        for piece in pieces(bytes, cuts) {
            at += STEP;
            run.advance(at, u32::MAX, |_, _| Ok(())).map_err(|e| ("busy_loop", e))?;
            let before = run.outputs.len();
            run.receive(piece).map_err(|e| ("endless", e))?;
            given += piece.len();
            let most = self.free_outputs + self.outputs_per_byte * given;
            if run.outputs.len() > most {
                let (now, all) = (run.outputs.len() - before, run.outputs.len());
                return Err((
                    "flood",
                    format!("{all} outputs for {given} bytes, {now} for the last {piece:02x?}"),
                ));
            }
        }
        let mut met = Vec::new();
        let meet = |_: &mut Run<'_, S>, next| {
            met.push(next);
            Ok(())
        };
        run.advance(at + QUIET, QUIET_DEADLINES, meet).map_err(|e| ("busy_loop", e))?;
        let hasty = met.len() >= QUIET_DEADLINES as usize
            && met.last().zip(met.first()).is_some_and(|(b, a)| b.since(*a) < Duration::from_secs(1));
        if hasty {
            let why = run.due().map(|d| d.why);
            return Err(("busy_loop", format!("{} wake-ups in a second of silence, for {why:?}", met.len())));
        }
        Ok(())
    }
}

/// Two long texts, from a little before the place where they part.
fn first_difference(whole: &str, cut: &str) -> String {
    const BEFORE: usize = 60;
    const SHOWN: usize = 400;
    let same = whole.chars().zip(cut.chars()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(BEFORE);
    let part = |text: &str| text.chars().skip(from).take(SHOWN).collect::<String>();
    format!("from character {from} on\n  whole gave {}\n  cut gave   {}", part(whole), part(cut))
}

#[cfg(test)]
mod tests;
