//! What is said of a publisher and a player.

use super::publish::Publisher;
use super::seen::{Measure, Seen, measure};
use super::signal::TONE_HZ;
use super::watch::{Player, Wants};
use crate::interop::log::{Log, Mark};
use serde_json::{Value, json};

/// Sound and picture may be so far apart before it is a fault, milliseconds. What is measured in a page is measured by the
/// clocks of a page, of which one is that of screen refreshes; and a browser takes its time to bring both together, while
/// the buffer of its sound finds its length.
const LIPS_MS: f64 = 40.0;
const LIPS_PAGE_MS: f64 = 150.0;

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Everything arrived as it was sent.
    Passed,
    /// The sound or the picture was made into another codec on the way: which.
    Bridged(String),
    /// The player gets less than was sent, and is told why.
    Refused(String),
    /// The player is without a decoder or depayloader for what it was sent.
    Unable(String),
    /// Anything else.
    Failed(String),
}

/// One publisher with one player.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Who sent.
    pub publisher: Publisher,
    /// Who played.
    pub player: Player,
    /// What became of it.
    pub outcome: Outcome,
    /// What was measured.
    pub measure: Measure,
    /// Milliseconds to the first picture.
    pub start_ms: Option<u64>,
    /// The codecs that arrived.
    pub codecs: [String; 2],
    /// What processes said, if it failed.
    pub told: String,
}

impl Cell {
    /// The publisher did not come to publish.
    pub fn unpublished(publisher: Publisher, player: Player, why: &str) -> Cell {
        Cell {
            publisher,
            player,
            outcome: Outcome::Failed(format!("not published: {why}")),
            measure: Measure::default(),
            start_ms: None,
            codecs: Default::default(),
            told: String::new(),
        }
    }

    /// What failed, if something did.
    pub fn failed(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let (outcome, why) = match &self.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Bridged(what) => ("bridged", what.as_str()),
            Outcome::Refused(why) => ("refused", why.as_str()),
            Outcome::Unable(why) => ("unable", why.as_str()),
            Outcome::Failed(why) => ("failed", why.as_str()),
        };
        json!({
            "publisher": self.publisher.name, "player": self.player.name(), "outcome": outcome, "why": why,
            "sent": [self.publisher.video, self.publisher.audio], "arrived": self.codecs,
            "start_ms": self.start_ms, "measured": self.measure.json(),
        })
    }
}

/// A codec's name as tables call it.
fn codec(name: &str) -> String {
    let known = match name.to_lowercase().as_str() {
        "h264" | "avc1" => "H.264",
        "hevc" | "h265" => "H.265",
        "av1" => "AV1",
        "vp8" => "VP8",
        "vp9" => "VP9",
        "aac" | "mp4a-latm" | "mpeg4-generic" => "AAC",
        "opus" => "Opus",
        // RTP says only that it is MPEG audio.
        "mp3" | "mp3float" | "mpa" | "mp2" => "MP3",
        "pcm_alaw" | "pcma" => "G.711 A-law",
        "pcm_mulaw" | "pcmu" => "G.711 µ-law",
        _ => name,
    };
    known.to_owned()
}

/// The first line of the edge's log that says why a player of this kind gets less than all. Of one who `plays` nobody says
/// that it is refused: that is another one of its kind.
pub fn reason(log: &Log, from: Mark, (player, plays): (Player, bool), stream: &str) -> Option<String> {
    const WORDS: [&str; 5] = ["gets no", "no sound", "no pictures", "refused", "left out"];
    let says = |line: &str| {
        line.contains(stream)
            && !(plays && line.contains("refused"))
            && WORDS.iter().any(|w| line.contains(w))
            && line.to_lowercase().contains(player.protocol())
    };
    let line = log.wait(from, std::time::Duration::ZERO, says)?;
    Some(line.split_once(stream).map_or(line.as_str(), |l| l.1.trim()).to_owned())
}

/// Judges what a player saw. `reason` is what the node said of it, if anything.
pub fn judge(publisher: Publisher, player: Player, seen: &Seen, reason: Option<String>) -> Cell {
    let measure = measure(seen);
    let codecs = [codec(&seen.video), codec(&seen.audio)];
    // Pages and aiortc repeat the node's answer.
    let answered = seen.complaint.clone().filter(|c| c.contains("422") || c.starts_with("refused"));
    let (refused, why) = (reason.or(answered), seen.complaint.clone());
    let wants = Wants::of(&publisher, player);
    let (blind, silent) = (wants.pictures && measure.pictures == 0, wants.sound && measure.pips == 0);
    let outcome = if blind || silent || seen.nothing() {
        let what = if blind { "no pictures" } else { "no sound" };
        match refused {
            Some(why) if names_remedy(&why) => Outcome::Refused(why),
            Some(why) => Outcome::Failed(format!("{what}, and no remedy is named: {why}")),
            None if why.as_deref().is_some_and(|w| w.contains("missing a plug-in")) => {
                Outcome::Unable(why.unwrap_or_default())
            }
            None => Outcome::Failed(format!("{what}: {}", why.unwrap_or_default())),
        }
    } else {
        let made = !codecs[0].is_empty() && wants.pictures && codecs[0] != publisher.video;
        let faults = faults(publisher, player, made, &measure);
        let sent = [publisher.video, publisher.audio];
        let bridged: Vec<String> = sent
            .iter()
            .zip(&codecs)
            .filter(|(sent, got)| !got.is_empty() && !sent.is_empty() && *sent != got)
            .map(|(sent, got)| format!("{sent} → {got}"))
            .collect();
        match (faults.is_empty(), bridged.is_empty()) {
            (false, _) => Outcome::Failed(faults.join(", ")),
            (true, false) => Outcome::Bridged(bridged.join(", ")),
            (true, true) => Outcome::Passed,
        }
    };
    Cell { publisher, player, outcome, measure, start_ms: seen.start_ms, codecs, told: String::new() }
}

/// Whether a refusal says what to do.
fn names_remedy(why: &str) -> bool {
    ["publish", "send", "ask for", "add ?", "use "].iter().any(|word| why.contains(word))
}

/// `made`: the pictures are what a bridge made.
fn faults(publisher: Publisher, player: Player, made: bool, m: &Measure) -> Vec<String> {
    let mut faults = Vec::new();
    let mut count = |n: u64, what: &str| {
        if n > 0 {
            faults.push(format!("{n} {what}"));
        }
    };
    count(m.damaged, "damaged");
    // Chromium's encoder of AV1 leaves a block of some pictures as it was (docs/matrix.md).
    if publisher.steady {
        count(m.patched, "with a patch that is not theirs");
    }
    count(m.disordered, "out of order");
    // A page reads what its screen shows: where that is late, one picture is read twice and the next is not seen.
    if publisher.steady && !player.is_page() {
        count(m.repeated, "repeated");
        // A bridge that begins codes of the cached group the first picture and the end: the rest would be shown in a moment.
        count(m.missing - if made { m.missing_first.min(m.missing) } else { 0 }, "missing");
    }
    let wants = Wants::of(&publisher, player);
    if wants.sound {
        if m.tone_hz.is_none_or(|hz| (hz - TONE_HZ).abs() > 10.0) {
            faults.push(format!("a tone of {} Hz", m.tone_hz.unwrap_or_default()));
        }
        let lips = if player.is_page() || !publisher.steady { LIPS_PAGE_MS } else { LIPS_MS };
        // Firefox's sound goes through the buffers of a sound server, as long as that likes: it is told, and not judged.
        let firefox = player == Player::Firefox || publisher.needs().1;
        let lips = if firefox { f64::INFINITY } else { lips };
        let apart = if player.is_page() { m.offset_ends_ms.map(|e| e.1) } else { m.offset_ms };
        if wants.pictures && apart.is_none_or(|ms| ms.abs() > lips) {
            faults.push(format!("sound {} ms after the picture", apart.unwrap_or(f64::NAN).round()));
        }
    }
    faults
}
