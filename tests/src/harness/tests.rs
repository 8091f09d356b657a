//! The harness, held to its own promise: a good machine passes, and each planted fault is found.

use super::*;
use std::collections::VecDeque;

/// What is wrong with a toy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Takes the pieces for messages.
    PerPiece,
    /// Forgets the first byte of a length that comes in two pieces.
    SplitLength,
    /// Says something at each tick.
    ChattyTick,
    /// Counts its idle time in ticks.
    CountsTicks,
    /// Trusts the length byte.
    Panics,
    /// Answers one bad byte with a thousand outputs.
    Floods,
    /// Never stops answering.
    Endless,
    /// Leaves a due deadline standing.
    Stuck,
    /// Asks to be woken again in a microsecond, for ever.
    Hasty,
}

#[derive(Debug, PartialEq)]
enum Out {
    Send(Vec<u8>),
    Message(Vec<u8>),
    Idle,
    Closed(&'static str),
}

enum In<'a> {
    Received(&'a [u8]),
    Tick,
}

/// Messages of a length byte (1 to 100) and as many bytes, each echoed; anything else closes. Says once that it is
/// idle after a second without bytes.
struct Toy {
    flaw: Flaw,
    held: Vec<u8>,
    out: VecDeque<Out>,
    idle_at: Option<Time>,
    ticks: u32,
}

impl Toy {
    fn message(&mut self, message: &[u8]) {
        let (first, rest) = message.split_at(message.len() / 2);
        self.out.push_back(Out::Message(message.to_vec()));
        self.out.push_back(Out::Send(first.to_vec()));
        self.out.push_back(Out::Send(rest.to_vec()));
    }

    fn parse(&mut self) {
        while let Some(&length) = self.held.first() {
            if length == 0 || length > 100 {
                assert!(self.flaw != Flaw::Panics || length != 255, "a length of 255");
                let n = if self.flaw == Flaw::Floods { 1000 } else { 0 };
                self.out.extend((0..n).map(|_| Out::Idle));
                self.out.push_back(Out::Closed("bad length"));
                self.held.clear();
                return;
            }
            let end = 1 + usize::from(length);
            if self.held.len() < end {
                return;
            }
            let message: Vec<u8> = self.held.drain(..end).skip(1).collect();
            self.message(&message);
        }
    }
}

impl Machine for Toy {
    type Input<'a> = In<'a>;
    type Output = Out;

    fn handle(&mut self, input: In<'_>, now: Time) {
        match input {
            In::Received(bytes) if self.flaw == Flaw::PerPiece => self.message(bytes),
            In::Received(bytes) => {
                if self.flaw == Flaw::SplitLength && self.held.len() == 1 {
                    self.held.clear();
                }
                self.held.extend_from_slice(bytes);
                self.idle_at = Some(now + Duration::from_secs(1));
                self.parse();
            }
            In::Tick => {
                self.ticks += 1;
                if self.flaw == Flaw::ChattyTick || (self.flaw == Flaw::CountsTicks && self.ticks == 3) {
                    self.out.push_back(Out::Idle);
                }
                if self.idle_at.is_some_and(|at| at <= now) {
                    match self.flaw {
                        Flaw::Stuck => {}
                        Flaw::Hasty => self.idle_at = Some(now + Duration::from_micros(1)),
                        _ => {
                            self.idle_at = None;
                            self.out.push_back(Out::Idle);
                        }
                    }
                }
            }
        }
    }

    fn poll(&mut self) -> Option<Out> {
        if self.flaw == Flaw::Endless && !self.held.is_empty() {
            return Some(Out::Idle);
        }
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        self.idle_at.map(|at| Deadline::new(at, "idle"))
    }
}

struct ToySubject(Flaw);

impl Subject for ToySubject {
    type Machine = Toy;
    type Seen = (Vec<u8>, Vec<Out>);

    fn make(&self) -> Toy {
        Toy { flaw: self.0, held: Vec::new(), out: VecDeque::new(), idle_at: None, ticks: 0 }
    }

    fn received<'a>(&self, bytes: &'a [u8]) -> In<'a> {
        In::Received(bytes)
    }

    fn tick<'a>(&self) -> In<'a> {
        In::Tick
    }

    fn see(&self, outputs: Vec<Out>) -> Self::Seen {
        let mut seen = (Vec::new(), Vec::new());
        for output in outputs {
            match output {
                Out::Send(bytes) => seen.0.extend(bytes),
                other => seen.1.push(other),
            }
        }
        seen
    }

    fn ends(&self, output: &Out) -> bool {
        matches!(output, Out::Closed(_))
    }
}

fn transcript() -> Vec<u8> {
    (1..40u8).flat_map(|n| std::iter::once(n).chain((0..n).map(move |i| i ^ n))).collect()
}

fn findings(flaw: Flaw) -> Vec<Finding> {
    let harness = Harness::new(ToySubject(flaw), 7).rounds(60);
    let stream = transcript();
    [harness.rechunk(&stream), harness.ticks(&stream), harness.garbage(&stream)]
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

fn laws(flaw: Flaw) -> Vec<&'static str> {
    findings(flaw).iter().map(|f| f.law).collect()
}

#[test]
fn a_good_machine_passes() {
    Harness::new(ToySubject(Flaw::None), 1).check(&transcript());
    Harness::new(ToySubject(Flaw::None), 2).rounds(20).check(&[]);
    Harness::new(ToySubject(Flaw::None), 3).rounds(20).check(&[1]);
}

#[test]
fn each_planted_fault_is_found_by_its_law() {
    for (flaw, law) in [
        (Flaw::PerPiece, "rechunk"),
        (Flaw::SplitLength, "rechunk"),
        (Flaw::ChattyTick, "ticks"),
        (Flaw::CountsTicks, "ticks"),
        (Flaw::Panics, "panic"),
        (Flaw::Floods, "flood"),
        (Flaw::Stuck, "busy_loop"),
        (Flaw::Hasty, "busy_loop"),
        (Flaw::Endless, "endless"),
    ] {
        let found = laws(flaw);
        assert!(found.contains(&law), "{flaw:?}: wanted {law}, found {found:?}");
    }
}

#[test]
fn a_finding_names_seed_and_the_one_cut_that_matters() {
    let finding = findings(Flaw::SplitLength).remove(0);
    assert_eq!((finding.seed, finding.cuts.len()), (7, 1), "{finding:?}");
    let words = format!("{finding:?}");
    assert!(words.contains("7") && words.contains(&format!("cuts {:?}", finding.cuts)), "{words}");
}

#[test]
#[should_panic(expected = "again with Harness::new(subject, 7)")]
fn check_panics_with_the_finding() {
    Harness::new(ToySubject(Flaw::PerPiece), 7).check(&transcript());
}
