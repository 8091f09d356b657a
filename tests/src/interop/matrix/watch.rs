//! The players of the matrix, and what they tell.

use super::publish::Pages;
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
}

impl Player {
    /// All of them.
    pub const ALL: [Player; 8] = [
        Player::Rtmp,
        Player::RtmpPlain,
        Player::RtspTcp,
        Player::RtspUdp,
        Player::Gstreamer,
        Player::Chromium,
        Player::Firefox,
        Player::Aiortc,
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
        }
    }

    /// Whether it is a page.
    pub fn is_page(self) -> bool {
        matches!(self, Player::Chromium | Player::Firefox)
    }

    /// The same as `headwater` calls the way in its log.
    pub fn protocol(self) -> &'static str {
        match self {
            Player::Rtmp | Player::RtmpPlain => "rtmp",
            Player::RtspTcp | Player::RtspUdp | Player::Gstreamer => "rtsp",
            _ => "whep",
        }
    }
}

/// A player that runs.
pub struct Watching<'a> {
    player: Player,
    began: Instant,
    files: PathBuf,
    client: Client<'a>,
}

enum Client<'a> {
    Ffmpeg(Ffmpeg),
    Pipeline(Pipeline),
    Aiortc(Aiortc),
    Page { page: &'a dyn Page, name: String, refused: Option<String> },
    Missing,
}

/// Starts a player; `silent`: of a stream without sound. `files` is a directory of its own for what it writes. Where it is a page, this returns with the first picture.
pub fn start<'a>(
    (player, silent): (Player, bool),
    at: &Place,
    pages: Pages<'a>,
    files: PathBuf,
    within: Duration,
) -> Watching<'a> {
    drop(fs::create_dir_all(&files));
    let (video, audio) = (files.join("video"), files.join("audio"));
    let times = files.join("times");
    let sound = (!silent).then_some((audio.as_path(), times.as_path()));
    let began = Instant::now();
    let ffmpeg = |from: &str, input: &str| Client::Ffmpeg(Ffmpeg::measure(from, input, &video, sound));
    let page = |page: Option<&'a dyn Page>| {
        let Some(page) = page else { return Client::Missing };
        let name = format!("player-{}", player.name());
        let (whep, ms) = (&at.whep, within.as_millis());
        let got = page.try_eval(&format!("await hw.matrix.watch('{name}', '{whep}', {{ms: {ms}}})"));
        Client::Page { page, name, refused: got.err() }
    };
    let client = match player {
        Player::Rtmp => ffmpeg(&at.rtmp, "-rtmp_enhanced_codecs hvc1,av01,vp09,Opus"),
        Player::RtmpPlain => ffmpeg(&at.rtmp, ""),
        Player::RtspTcp => ffmpeg(&at.rtsp, "-rtsp_transport tcp"),
        Player::RtspUdp => ffmpeg(&at.rtsp, "-rtsp_transport udp"),
        Player::Gstreamer => Client::Pipeline(Pipeline::measure(&at.rtsp, "tcp", &audio)),
        Player::Aiortc => Client::Aiortc(Aiortc::measure(&at.whep, &audio)),
        Player::Chromium => page(pages.chromium),
        Player::Firefox => page(pages.firefox),
    };
    Watching { player, began, files, client }
}

impl Watching<'_> {
    /// Waits until pictures came for so long, or until it is clear that they do not come.
    pub fn wait(&mut self, span: Duration, within: Duration) {
        match &mut self.client {
            Client::Ffmpeg(it) => {
                let over = |l: &str| {
                    l.contains("Error opening") || l.contains("matches no streams") || l.contains("Exiting")
                };
                it.log.wait_span(within, span, is_picture, over);
            }
            Client::Pipeline(it) => {
                it.log.wait_span(within, span, is_told, |l| l.starts_with("error"));
            }
            Client::Aiortc(it) => {
                let over = |l: &str| l.starts_with("refused") || l == "failed";
                it.log.wait_span(within, span, is_told, over);
            }
            Client::Page { page, name, refused: None } => {
                let (span, ms) = (span.as_millis(), within.as_millis());
                drop(page.try_eval(&format!("await hw.matrix.lasts('{name}', {span}, {ms})")));
            }
            Client::Page { .. } | Client::Missing => {}
        }
    }

    /// Ends it, and tells what it saw.
    pub fn end(self) -> Seen {
        let (video, audio) = (self.files.join("video"), self.files.join("audio"));
        let seen = match self.client {
            Client::Ffmpeg(it) => {
                let log = it.log.clone();
                drop(it);
                let times = String::from_utf8_lossy(&read(&self.files.join("times"))).into_owned();
                of_ffmpeg(&log, self.began, &read(&video), &samples(&read(&audio)), &times)
            }
            Client::Pipeline(it) => {
                let log = it.log.clone();
                drop(it);
                of_lines(&log, self.began, &samples(&read(&audio)))
            }
            Client::Aiortc(it) => {
                let log = it.log.clone();
                drop(it);
                of_lines(&log, self.began, &samples(&read(&audio)))
            }
            Client::Page { page, name, refused } => {
                let seen = match refused {
                    Some(why) => Seen::failed(why.lines().next().unwrap_or_default().to_owned()),
                    None => match page.try_eval(&format!("return await hw.matrix.seen('{name}')")) {
                        Ok(told) => of_page(&told),
                        Err(why) => Seen::failed(why),
                    },
                };
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

/// A line of our own players about a picture.
fn is_told(line: &str) -> bool {
    line.starts_with("picture ")
}

/// The number after a name and colon in a line of ffmpeg.
fn value(line: &str, name: &str) -> Option<i64> {
    let rest = line.split_once(name)?.1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// What ffmpeg's log says, with the files that it wrote.
fn of_ffmpeg(log: &Log, began: Instant, video: &[u8], audio: &[i16], times: &str) -> Seen {
    let mut seen = Seen::default();
    let mut points = video.chunks_exact(32);
    let mut base = (1, 1_000);
    log.each_at(|at, line| {
        if line.contains("Parsed_showinfo") && line.contains("config in time_base:") {
            let (a, b) = (value(line, "time_base:"), value(line, "/"));
            base = a.zip(b).unwrap_or(base);
        } else if is_picture(line) {
            let (Some(pts), Some(points)) = (value(line, " pts:"), points.next()) else { return };
            let came_us = at.duration_since(began).as_micros() as i64;
            seen.start_ms.get_or_insert(came_us as u64 / 1_000);
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
    if seen.pictures.is_empty() {
        let mut said = String::new();
        log.each(|line| {
            if line.contains("rror") || line.contains("matches no streams") {
                said = line.to_owned();
            }
        });
        seen.complaint = Some(if said.is_empty() { "no picture".to_owned() } else { said });
    }
    seen
}

/// What our players in Python say, with the samples that they wrote.
fn of_lines(log: &Log, began: Instant, audio: &[i16]) -> Seen {
    let mut seen = Seen::default();
    let mut heard = 0;
    log.each_at(|at, line| {
        let came_us = at.duration_since(began).as_micros() as i64;
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("picture"), Some(at_us), Some(points)) => {
                seen.start_ms.get_or_insert(came_us as u64 / 1_000);
                let number = signal::number(&unhex(points));
                let at_us = at_us.parse().unwrap_or_default();
                seen.pictures.push(Picture { at_us, came_us, number, patched: false });
            }
            (Some("first"), Some("video"), _) => seen.start_ms = Some(came_us as u64 / 1_000),
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
    if seen.pictures.is_empty() {
        seen.complaint.get_or_insert_with(|| "no picture".to_owned());
    }
    seen
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap_or_default() as u8;
    text.as_bytes().chunks_exact(2).map(|b| digit(b[0]) << 4 | digit(b[1])).collect()
}

/// What a page says.
fn of_page(told: &Value) -> Seen {
    let number = |v: &Value| v.as_f64().unwrap_or_default();
    let mut seen = Seen { unseen: told["unseen"].as_u64().unwrap_or_default(), ..Seen::default() };
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
        seen.hear((zero_us + number(frame) * 1e6 / f64::from(signal::RATE)) as i64, samples);
    }
    let codec = |of: &str| {
        let mime = told["codecs"][of].as_str().unwrap_or_default();
        mime.split_once('/').map_or(mime, |m| m.1).to_owned()
    };
    (seen.video, seen.audio) = (codec("video"), codec("audio"));
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_picture_of_a_page_that_lacks_a_patch_is_told_from_a_grey_one() {
        let whole = format!("{}{}", "ff".repeat(16), "00".repeat(16));
        let (patched, grey) = (whole.replacen("ff", "00", 1), "80".repeat(32));
        let told =
            json!({"pictures": [[whole, whole, 40, 41], [patched, whole, 80, 81], [grey, grey, 120, 121]]});
        let seen = of_page(&told);
        let got: Vec<_> = seen.pictures.iter().map(|p| (p.number, p.patched, p.came_us)).collect();
        assert_eq!(got, [(Some(0xffff), false, 41_000), (None, true, 81_000), (None, false, 121_000)]);
    }
}
