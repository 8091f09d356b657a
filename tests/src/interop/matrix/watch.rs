//! The players of the matrix, and what they tell.

use super::publish::{Pages, Publisher};
use super::seen::{Picture, Seen};
use super::signal;
use crate::interop::aiortc::Aiortc;
use crate::interop::browser::Page;
use crate::interop::cluster::Place;
use crate::interop::ffmpeg::Ffmpeg;
use crate::interop::gstreamer::Pipeline;
use crate::interop::log::Log;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A kind of player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    /// ffmpeg by RTMP, which says that it takes the codecs of Enhanced RTMP.
    Rtmp,
    /// ffmpeg by RTMP as players are that know H.264 and AAC only.
    RtmpPlain,
    /// ffmpeg by RTSP over TCP.
    RtspTcp,
    /// ffmpeg by RTSP over UDP.
    RtspUdp,
    /// GStreamer's rtspsrc, over TCP.
    Gstreamer,
    /// Chromium by WHEP.
    Chromium,
    /// Firefox by WHEP.
    Firefox,
    /// aiortc by WHEP.
    Aiortc,
    /// ffmpeg by RTSP over TCP, which sets up sound alone.
    RtspSound,
    /// ffmpeg by RTSP over TCP, which sets up pictures alone.
    RtspPictures,
    /// Chromium by WHEP, which offers to take sound alone.
    ChromiumSound,
    /// Chromium by WHEP, which offers to take pictures alone.
    ChromiumPictures,
}

/// What a cell is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// The publisher sends pictures and the player asks for them.
    pub pictures: bool,
    /// The same of sound.
    pub sound: bool,
}

impl Wants {
    /// Of this publisher with this player.
    pub fn of(publisher: &Publisher, player: Player) -> Wants {
        let (pictures, sound) = (player.only() != "audio", player.only() != "video");
        Wants {
            pictures: pictures && !publisher.video.is_empty(),
            sound: sound && !publisher.audio.is_empty(),
        }
    }

    /// Whether it asks for anything that is sent.
    pub fn anything(self) -> bool {
        self.pictures || self.sound
    }

    /// Whether a line of a player's log is about what the cell waits for: pictures, and without those sound.
    fn comes(self, line: &str) -> bool {
        if self.pictures {
            is_picture(line) || line.starts_with("picture ")
        } else {
            line.contains("Parsed_ashowinfo") && line.contains(" pts:") || line.starts_with("sound ")
        }
    }
}

impl Player {
    /// All of them.
    pub const ALL: [Player; 12] = [
        Player::Rtmp,
        Player::RtmpPlain,
        Player::RtspTcp,
        Player::RtspUdp,
        Player::Gstreamer,
        Player::Chromium,
        Player::Firefox,
        Player::Aiortc,
        Player::RtspSound,
        Player::RtspPictures,
        Player::ChromiumSound,
        Player::ChromiumPictures,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Player::Rtmp => "rtmp",
            Player::RtmpPlain => "rtmp-plain",
            Player::RtspTcp => "rtsp-tcp",
            Player::RtspUdp => "rtsp-udp",
            Player::Gstreamer => "gstreamer",
            Player::Chromium => "chromium",
            Player::Firefox => "firefox",
            Player::Aiortc => "aiortc",
            Player::RtspSound => "rtsp-sound",
            Player::RtspPictures => "rtsp-pictures",
            Player::ChromiumSound => "chromium-sound",
            Player::ChromiumPictures => "chromium-pictures",
        }
    }

    /// What stands in the table.
    pub fn title(self) -> &'static str {
        match self {
            Player::Rtmp => "ffmpeg RTMP (Enhanced)",
            Player::RtmpPlain => "ffmpeg RTMP (plain)",
            Player::RtspTcp => "ffmpeg RTSP/TCP",
            Player::RtspUdp => "ffmpeg RTSP/UDP",
            Player::Gstreamer => "GStreamer rtspsrc",
            Player::Chromium => "Chromium WHEP",
            Player::Firefox => "Firefox WHEP",
            Player::Aiortc => "aiortc WHEP",
            Player::RtspSound => "ffmpeg RTSP/TCP, sound",
            Player::RtspPictures => "ffmpeg RTSP/TCP, pictures",
            Player::ChromiumSound => "Chromium WHEP, sound",
            Player::ChromiumPictures => "Chromium WHEP, pictures",
        }
    }

    /// Whether it is a page.
    pub fn is_page(self) -> bool {
        self == Player::Firefox || self.is_chromium()
    }

    /// Whether it needs Chromium.
    pub fn is_chromium(self) -> bool {
        matches!(self, Player::Chromium | Player::ChromiumSound | Player::ChromiumPictures)
    }

    /// The only kind of media that it asks for, as descriptions call it; empty: it asks for both.
    fn only(self) -> &'static str {
        match self {
            Player::RtspSound | Player::ChromiumSound => "audio",
            Player::RtspPictures | Player::ChromiumPictures => "video",
            _ => "",
        }
    }

    /// The same as `headwater` calls the way in its log.
    pub fn protocol(self) -> &'static str {
        match self {
            Player::Rtmp | Player::RtmpPlain => "rtmp",
            Player::RtspTcp
            | Player::RtspUdp
            | Player::Gstreamer
            | Player::RtspSound
            | Player::RtspPictures => "rtsp",
            _ => "whep",
        }
    }
}

/// A player that runs.
pub struct Watching<'a> {
    /// Which.
    pub player: Player,
    wants: Wants,
    began: Instant,
    files: PathBuf,
    client: Client<'a>,
}

enum Client<'a> {
    Ffmpeg(Ffmpeg),
    Pipeline(Pipeline),
    Aiortc(Aiortc),
    /// `seen`: what it has handed over so far; `plays`: there is more to come.
    Page {
        page: &'a dyn Page,
        name: String,
        seen: Seen,
        plays: bool,
    },
    Missing,
}

/// Starts a player. `files` is a directory of its own for what it writes. Where it is a page, this returns with the first picture.
pub fn start<'a>(
    player: Player,
    wants: Wants,
    at: &Place,
    pages: Pages<'a>,
    files: PathBuf,
    within: Duration,
) -> Watching<'a> {
    drop(fs::create_dir_all(&files));
    let (video, audio) = (files.join("video"), files.join("audio"));
    let times = files.join("times");
    let pictures = wants.pictures.then_some(video.as_path());
    let sound = wants.sound.then_some((audio.as_path(), times.as_path()));
    let began = Instant::now();
    let ffmpeg = |from: &str, input: &str| Client::Ffmpeg(Ffmpeg::measure(from, input, pictures, sound));
    let page = |page: Option<&'a dyn Page>| {
        let Some(page) = page else { return Client::Missing };
        let name = format!("player-{}", player.name());
        let (whep, ms, only) = (&at.whep, within.as_millis(), player.only());
        let how = format!("{{ms: {ms}, only: '{only}', pictures: {}}}", wants.pictures);
        let got = page.try_eval(&format!("await hw.matrix.watch('{name}', '{whep}', {how})"));
        let plays = got.is_ok();
        let complains = |why: String| Seen::failed(why.lines().next().unwrap_or_default().to_owned());
        Client::Page { page, name, seen: got.err().map_or_else(Seen::default, complains), plays }
    };
    let client = match player {
        Player::Rtmp => ffmpeg(&at.rtmp, "-rtmp_enhanced_codecs hvc1,av01,vp09,Opus"),
        Player::RtmpPlain => ffmpeg(&at.rtmp, ""),
        Player::RtspTcp => ffmpeg(&at.rtsp, "-rtsp_transport tcp"),
        Player::RtspUdp => ffmpeg(&at.rtsp, "-rtsp_transport udp"),
        Player::RtspSound | Player::RtspPictures => {
            ffmpeg(&at.rtsp, &format!("-rtsp_transport tcp -allowed_media_types {}", player.only()))
        }
        Player::Gstreamer => Client::Pipeline(Pipeline::measure(&at.rtsp, "tcp", &audio)),
        Player::Aiortc => Client::Aiortc(Aiortc::measure(&at.whep, &audio)),
        Player::Chromium | Player::ChromiumSound | Player::ChromiumPictures => page(pages.chromium),
        Player::Firefox => page(pages.firefox),
    };
    Watching { player, wants, began, files, client }
}

/// How long a page plays before it hands over what it saw and heard. Ten minutes of sound are more than one script can
/// hand over, and than one script may take.
const SLICE: Duration = Duration::from_secs(4);

/// Waits until media came to all of them for so long, or until it is clear that it does not come.
pub fn wait(watching: &mut [Watching<'_>], span: Duration, within: Duration) {
    let end = Instant::now() + within;
    let left = || end.saturating_duration_since(Instant::now());
    // All pages by turns, so that none has to hold more than a few slices.
    loop {
        let playing = watching.iter_mut().map(|it| it.slice(span)).filter(|plays| *plays).count();
        if playing == 0 || left().is_zero() {
            break;
        }
    }
    for it in watching {
        it.wait(span, left());
    }
}

impl Watching<'_> {
    /// Takes from a page what it saw and heard, after a [`SLICE`] or once that was `span` in all; whether there will be more.
    fn slice(&mut self, span: Duration) -> bool {
        let Client::Page { page, name, seen, plays } = &mut self.client else { return false };
        if *plays {
            let (span, ms) = (span.as_millis(), SLICE.as_millis());
            match page.try_eval(&format!("return await hw.matrix.slice('{name}', {span}, {ms})")) {
                Ok(told) => {
                    add_page(seen, &told);
                    *plays = told["over"] != true;
                }
                Err(why) => {
                    seen.complaint = Some(why);
                    *plays = false;
                }
            }
        }
        *plays
    }

    /// Waits until others than pages had media for so long, or until it is clear that it does not come.
    fn wait(&self, span: Duration, within: Duration) {
        let (log, over): (_, fn(&str) -> bool) = match &self.client {
            Client::Ffmpeg(it) => (&it.log, |l| {
                l.contains("Error opening") || l.contains("matches no streams") || l.contains("Exiting")
            }),
            Client::Pipeline(it) => (&it.log, |l| l.starts_with("error")),
            Client::Aiortc(it) => (&it.log, |l| l.starts_with("refused") || l == "failed"),
            Client::Page { .. } | Client::Missing => return,
        };
        log.wait_span(within, span, |line| self.wants.comes(line), over);
    }

    /// Ends it, and tells what it saw.
    pub fn end(self) -> Seen {
        let (video, audio) = (self.files.join("video"), self.files.join("audio"));
        let (began, wants) = (self.began, self.wants);
        let seen = match self.client {
            Client::Ffmpeg(it) => {
                let log = it.log.clone();
                drop(it);
                let times = String::from_utf8_lossy(&read(&self.files.join("times"))).into_owned();
                of_ffmpeg(&log, (began, wants), &read(&video), &samples(&read(&audio)), &times)
            }
            Client::Pipeline(it) => {
                let log = it.log.clone();
                drop(it);
                of_lines(&log, (began, wants), &samples(&read(&audio)))
            }
            Client::Aiortc(it) => {
                let log = it.log.clone();
                drop(it);
                of_lines(&log, (began, wants), &samples(&read(&audio)))
            }
            Client::Page { page, name, mut seen, .. } => {
                if seen.complaint.is_none() {
                    match page.try_eval(&format!("return await hw.matrix.seen('{name}')")) {
                        Ok(told) => add_page(&mut seen, &told),
                        Err(why) => seen.complaint = Some(why),
                    }
                }
                drop(page.try_eval(&format!("return await hw.end('{name}')")));
                seen
            }
            Client::Missing => Seen::failed(format!("this run has no {}", self.player.title())),
        };
        drop(fs::remove_dir_all(&self.files));
        seen
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

/// A line of ffmpeg's `showinfo` about a picture.
fn is_picture(line: &str) -> bool {
    line.contains("Parsed_showinfo") && line.contains(" pts:")
}

/// The number after a name and colon in a line of ffmpeg.
fn value(line: &str, name: &str) -> Option<i64> {
    let rest = line.split_once(name)?.1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// What ffmpeg's log says, with the files that it wrote.
fn of_ffmpeg(log: &Log, (began, wants): (Instant, Wants), video: &[u8], audio: &[i16], times: &str) -> Seen {
    let mut seen = Seen::default();
    let mut points = video.chunks_exact(32);
    let mut base = (1, 1_000);
    log.each_at(|at, line| {
        let came_us = at.duration_since(began).as_micros() as i64;
        if wants.comes(line) {
            seen.start_ms.get_or_insert(came_us as u64 / 1_000);
        }
        if line.contains("Parsed_showinfo") && line.contains("config in time_base:") {
            let (a, b) = (value(line, "time_base:"), value(line, "/"));
            base = a.zip(b).unwrap_or(base);
        } else if is_picture(line) {
            let (Some(pts), Some(points)) = (value(line, " pts:"), points.next()) else { return };
            let at_us = pts * 1_000_000 * base.0 / base.1;
            let number = signal::number(points);
            seen.pictures.push(Picture { at_us, came_us, number, patched: false });
        } else if line.trim_start().starts_with("Stream #0:") && !line.contains("->") {
            let word = |of: &str| {
                let codec = line.split_once(of)?.1.trim_start();
                Some(codec.split([' ', ',']).next()?.to_owned())
            };
            if seen.video.is_empty() {
                seen.video = word("Video:").unwrap_or_default();
            }
            if seen.audio.is_empty() {
                seen.audio = word("Audio:").unwrap_or_default();
            }
        }
    });
    // Lines of framecrc: stream, decoding time, presentation time, duration, bytes, checksum; times in samples.
    let mut heard = 0;
    for line in times.lines().filter(|l| !l.starts_with('#')) {
        let mut fields = line.split(',').map(str::trim).skip(2);
        let (pts, bytes) = (fields.next().and_then(|f| f.parse::<i64>().ok()), fields.nth(1));
        let (Some(pts), Some(n)) = (pts, bytes.and_then(|b| b.parse::<usize>().ok())) else { break };
        let Some(of) = audio.get(heard..heard + n / 2) else { break };
        heard += n / 2;
        seen.hear(pts * 1_000_000 / i64::from(signal::RATE), of);
    }
    if seen.nothing() {
        let mut said = String::new();
        log.each(|line| {
            if line.contains("rror") || line.contains("matches no streams") {
                said = line.to_owned();
            }
        });
        seen.complaint = Some(if said.is_empty() { "nothing came".to_owned() } else { said });
    }
    seen
}

/// What our players in Python say, with the samples that they wrote.
fn of_lines(log: &Log, (began, wants): (Instant, Wants), audio: &[i16]) -> Seen {
    let mut seen = Seen::default();
    let mut heard = 0;
    log.each_at(|at, line| {
        let came_us = at.duration_since(began).as_micros() as i64;
        if wants.comes(line) {
            seen.start_ms.get_or_insert(came_us as u64 / 1_000);
        }
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("picture"), Some(at_us), Some(points)) => {
                let number = signal::number(&unhex(points));
                let at_us = at_us.parse().unwrap_or_default();
                seen.pictures.push(Picture { at_us, came_us, number, patched: false });
            }
            // What it has is told later, once it knows when that was.
            (Some("first"), Some(kind), _) if (kind == "video") == wants.pictures => {
                seen.start_ms.get_or_insert(came_us as u64 / 1_000);
            }
            (Some("sound"), Some(at_us), Some(n)) => {
                let (Ok(at_us), Ok(n)) = (at_us.parse(), n.parse::<usize>()) else { return };
                let Some(of) = audio.get(heard..heard + n) else { return };
                heard += n;
                seen.hear(at_us, of);
            }
            (Some("codec"), Some("video"), Some(name)) => seen.video = name.to_owned(),
            (Some("codec"), Some("audio"), Some(name)) => seen.audio = name.to_owned(),
            (Some("error" | "refused"), _, _) => seen.complaint = Some(line.to_owned()),
            _ => {
                let Some(codec) = line.strip_prefix("codec=") else { return };
                let name = codec.split('/').next().unwrap_or_default().to_owned();
                let place = if codec.contains("/90000") { &mut seen.video } else { &mut seen.audio };
                if place.is_empty() {
                    *place = name;
                }
            }
        }
    });
    if seen.nothing() {
        seen.complaint.get_or_insert_with(|| "nothing came".to_owned());
    }
    seen
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap_or_default() as u8;
    text.as_bytes().chunks_exact(2).map(|b| digit(b[0]) << 4 | digit(b[1])).collect()
}

/// Adds what a page hands over.
fn add_page(seen: &mut Seen, told: &Value) {
    let number = |v: &Value| v.as_f64().unwrap_or_default();
    seen.unseen += told["unseen"].as_u64().unwrap_or_default();
    seen.start_ms = told["startMs"].as_f64().map(|ms| ms as u64);
    for picture in told["pictures"].as_array().into_iter().flatten() {
        let read = |n: usize| signal::number(&unhex(picture[n].as_str().unwrap_or_default()));
        let (points, means) = (read(0), read(1));
        seen.pictures.push(Picture {
            at_us: (number(&picture[2]) * 1_000.0) as i64,
            came_us: (number(&picture[3]) * 1_000.0) as i64,
            number: points,
            patched: points.is_none() && means.is_some(),
        });
    }
    let all = samples(&unhex(told["samples"].as_str().unwrap_or_default()));
    let zero_us = number(&told["zeroMs"]) * 1_000.0;
    for (frame, samples) in told["frames"].as_array().into_iter().flatten().zip(all.chunks(1024)) {
        seen.hear((zero_us + number(frame) * 1e6 / f64::from(signal::RATE)).round() as i64, samples);
    }
    let codec = |of: &str| {
        let mime = told["codecs"][of].as_str().unwrap_or_default();
        mime.split_once('/').map_or(mime, |m| m.1).to_owned()
    };
    (seen.video, seen.audio) = (codec("video"), codec("audio"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sound_that_a_page_hands_over_in_slices_is_one_piece() {
        let slice = |frames: &[u32]| {
            let samples = "0100".repeat(1024 * frames.len());
            json!({"unseen": 1, "zeroMs": 500, "frames": frames, "samples": samples, "startMs": 70})
        };
        let mut seen = Seen::default();
        add_page(&mut seen, &slice(&[0, 1024]));
        add_page(&mut seen, &slice(&[2048]));
        assert_eq!(seen.sound.iter().map(|s| s.len()).collect::<Vec<_>>(), [3072]);
        assert_eq!((seen.sound[0].end_us(), seen.unseen, seen.start_ms), (564_000, 2, Some(70)));
        // A piece that is missing makes another one.
        add_page(&mut seen, &slice(&[6144]));
        assert_eq!(seen.sound.len(), 2);
    }

    #[test]
    fn a_picture_of_a_page_that_lacks_a_patch_is_told_from_a_grey_one() {
        let whole = format!("{}{}", "ff".repeat(16), "00".repeat(16));
        let (patched, grey) = (whole.replacen("ff", "00", 1), "80".repeat(32));
        let told =
            json!({"pictures": [[whole, whole, 40, 41], [patched, whole, 80, 81], [grey, grey, 120, 121]]});
        let mut seen = Seen::default();
        add_page(&mut seen, &told);
        let got: Vec<_> = seen.pictures.iter().map(|p| (p.number, p.patched, p.came_us)).collect();
        assert_eq!(got, [(Some(0xffff), false, 41_000), (None, true, 81_000), (None, false, 121_000)]);
    }
}
