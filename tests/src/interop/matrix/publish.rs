//! The publishers of the matrix.

use super::signal;
use crate::interop::aiortc::Aiortc;
use crate::interop::browser::Page;
use crate::interop::cluster::Place;
use crate::interop::ffmpeg::Ffmpeg;
use crate::interop::gstreamer::Pipeline;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

const X264: &str =
    "-c:v libx264 -preset ultrafast -tune zerolatency -profile:v main -bf 0 -g 50 -sc_threshold 0 -b:v 400k";
const OPUS: &str = "-c:a libopus -b:a 64k -ac 2";
const AAC: &str = "-c:a aac -b:a 96k -ac 2";
const A_LAW: &str = "G.711 A-law";
const MU_LAW: &str = "G.711 µ-law";
/// Seconds of each size, and the sizes, where they change.
const EACH_S: u32 = 3;
const SIZES: [&str; 2] = ["320:180", "480:272"];

/// How a publisher gets its media to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// ffmpeg by RTMP, the encoders' arguments.
    Rtmp(&'static str, &'static str),
    /// ffmpeg by RTSP over this transport, the encoders' arguments.
    Rtsp(&'static str, &'static str, &'static str),
    /// ffmpeg by this protocol, the muxer's arguments: pictures of two sizes by turns.
    Sizes(&'static str),
    /// ffmpeg by WHIP.
    Whip,
    /// GStreamer by RTSP over this transport.
    Gstreamer(&'static str),
    /// Chromium by WHIP with this codec of pictures; the only kind of media that it sends, if it is one.
    Chromium(&'static str, &'static str),
    /// Firefox by WHIP with this codec.
    Firefox(&'static str),
    /// aiortc by WHIP with this codec.
    Aiortc(&'static str),
}

/// One kind of publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Its name on the command line and in stream names.
    pub name: &'static str,
    /// What stands in the table.
    pub title: &'static str,
    /// The codec of its pictures, as tables call it.
    pub video: &'static str,
    /// The codec of its sound.
    pub audio: &'static str,
    /// Whether the publisher sends all pictures that it makes, and says to the millisecond when they were: browsers leave some
    /// out when their machine is busy, and aiortc's sender reports have the times at which it was done with encoding.
    pub steady: bool,
    /// Samples of sound a second.
    rate: u32,
    /// Filters between picture and encoder.
    filters: &'static [&'static str],
    way: Way,
}

const fn publisher(
    name: &'static str,
    title: &'static str,
    codecs: [&'static str; 2],
    way: Way,
) -> Publisher {
    let steady = !matches!(way, Way::Chromium(..) | Way::Firefox(_) | Way::Aiortc(_));
    let [video, audio] = codecs;
    Publisher { name, title, video, audio, steady, rate: signal::RATE, filters: &[], way }
}

/// All of them.
pub const ALL: &[Publisher] = &[
    publisher("rtmp", "ffmpeg RTMP", ["H.264", "AAC"], Way::Rtmp(X264, AAC)),
    publisher(
        "rtmp-hevc",
        "ffmpeg Enhanced RTMP",
        ["H.265", "Opus"],
        Way::Rtmp(
            "-c:v libx265 -preset ultrafast -x265-params log-level=error:bframes=0 -g 50 -b:v 400k",
            OPUS,
        ),
    ),
    publisher(
        "rtmp-av1",
        "ffmpeg Enhanced RTMP",
        ["AV1", "Opus"],
        Way::Rtmp("-c:v libsvtav1 -preset 12 -svtav1-params lp=1:pred-struct=1 -g 50", OPUS),
    ),
    publisher(
        "rtmp-vp9",
        "ffmpeg Enhanced RTMP",
        ["VP9", "Opus"],
        Way::Rtmp("-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50 -b:v 400k", OPUS),
    ),
    publisher("rtsp-tcp", "ffmpeg RTSP/TCP", ["H.264", "AAC"], Way::Rtsp("tcp", X264, AAC)),
    publisher("rtsp-tcp-opus", "ffmpeg RTSP/TCP", ["H.264", "Opus"], Way::Rtsp("tcp", X264, OPUS)),
    publisher("rtsp-udp", "ffmpeg RTSP/UDP", ["H.264", "AAC"], Way::Rtsp("udp", X264, AAC)),
    publisher("rtsp-udp-opus", "ffmpeg RTSP/UDP", ["H.264", "Opus"], Way::Rtsp("udp", X264, OPUS)),
    publisher("gstreamer", "GStreamer rtspclientsink (LATM)", ["H.264", "AAC"], Way::Gstreamer("tcp")),
    publisher("ffmpeg-whip", "ffmpeg WHIP", ["H.264", "Opus"], Way::Whip),
    publisher("chromium-h264", "Chromium WHIP", ["H.264", "Opus"], Way::Chromium("H264", "")),
    publisher("chromium-vp8", "Chromium WHIP", ["VP8", "Opus"], Way::Chromium("VP8", "")),
    publisher("chromium-vp9", "Chromium WHIP", ["VP9", "Opus"], Way::Chromium("VP9", "")),
    publisher("chromium-av1", "Chromium WHIP", ["AV1", "Opus"], Way::Chromium("AV1", "")),
    publisher("firefox-vp8", "Firefox WHIP", ["VP8", "Opus"], Way::Firefox("VP8")),
    publisher("aiortc-h264", "aiortc WHIP", ["H.264", "Opus"], Way::Aiortc("H264")),
    publisher("aiortc-vp8", "aiortc WHIP", ["VP8", "Opus"], Way::Aiortc("VP8")),
    // What is unusual, in the most usual way.
    Publisher {
        rate: 44_100,
        ..publisher(
            "rtmp-mono44",
            "ffmpeg RTMP, 44.1 kHz mono",
            ["H.264", "AAC"],
            Way::Rtmp(X264, "-c:a aac -b:a 64k -ac 1"),
        )
    },
    publisher(
        "rtmp-slices",
        "ffmpeg RTMP, 4 slices a picture",
        ["H.264", "AAC"],
        Way::Rtmp(
            "-c:v libx264 -preset ultrafast -tune zerolatency -bf 0 -g 50 -x264-params slices=4:sliced-threads=0",
            AAC,
        ),
    ),
    Publisher {
        filters: &["scale=318:178:flags=neighbor"],
        ..publisher("rtmp-odd", "ffmpeg RTMP, 318×178", ["H.264", "AAC"], Way::Rtmp(X264, AAC))
    },
    publisher("rtmp-video-only", "ffmpeg RTMP, no sound", ["H.264", ""], Way::Rtmp(X264, "")),
    publisher("rtsp-video-only", "ffmpeg RTSP/TCP, no sound", ["H.264", ""], Way::Rtsp("tcp", X264, "")),
    publisher(
        "chromium-video-only",
        "Chromium WHIP, no sound",
        ["H.264", ""],
        Way::Chromium("H264", "video"),
    ),
    publisher("rtmp-audio-only", "ffmpeg RTMP, no pictures", ["", "AAC"], Way::Rtmp("", AAC)),
    publisher("rtsp-audio-only", "ffmpeg RTSP/TCP, no pictures", ["", "Opus"], Way::Rtsp("tcp", "", OPUS)),
    publisher(
        "chromium-audio-only",
        "Chromium WHIP, no pictures",
        ["", "Opus"],
        Way::Chromium("H264", "audio"),
    ),
    Publisher {
        rate: 44_100,
        ..publisher(
            "rtmp-mp3",
            "ffmpeg RTMP",
            ["H.264", "MP3"],
            Way::Rtmp(X264, "-c:a libmp3lame -b:a 96k -ac 2"),
        )
    },
    Publisher {
        rate: 8_000,
        ..publisher("rtmp-g711", "ffmpeg RTMP", ["H.264", A_LAW], Way::Rtmp(X264, "-c:a pcm_alaw -ac 1"))
    },
    Publisher {
        rate: 8_000,
        ..publisher(
            "rtsp-g711",
            "ffmpeg RTSP/TCP",
            ["H.264", MU_LAW],
            Way::Rtsp("tcp", X264, "-c:a pcm_mulaw -ac 1"),
        )
    },
    publisher("rtmp-sizes", "ffmpeg RTMP, another size each 3 s", ["H.264", "AAC"], Way::Sizes("flv")),
    publisher(
        "rtsp-sizes",
        "ffmpeg RTSP/TCP, another size each 3 s",
        ["H.264", "AAC"],
        Way::Sizes("rtsp -rtsp_transport tcp"),
    ),
];

/// A publisher that runs; it ends when this is dropped.
pub enum Running<'a> {
    /// ffmpeg.
    Ffmpeg(Ffmpeg),
    /// GStreamer.
    Pipeline(Pipeline),
    /// aiortc.
    Aiortc(Aiortc),
    /// A session in a page.
    Page(&'a dyn Page, String),
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Running::Page(page, name) = self {
            drop(page.try_eval(&format!("return await hw.end('{name}')")));
        }
    }
}

/// The browsers that a run has, if it has them. Both publish and watch in one page.
#[derive(Clone, Copy, Default)]
pub struct Pages<'a> {
    /// Chromium.
    pub chromium: Option<&'a dyn Page>,
    /// Firefox.
    pub firefox: Option<&'a dyn Page>,
}

impl Publisher {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Publisher> {
        ALL.iter().copied().find(|p| p.name == name)
    }

    /// Whether it needs Chromium, or Firefox.
    pub fn needs(&self) -> (bool, bool) {
        (matches!(self.way, Way::Chromium(..)), matches!(self.way, Way::Firefox(_)))
    }

    /// Starts it. `files` is a directory for what it needs; `seconds` is how long it must last at least.
    ///
    /// # Errors
    /// What a page said.
    pub fn start<'a>(
        &self,
        to: &Place,
        pages: Pages<'a>,
        files: &Path,
        seconds: u64,
    ) -> Result<Running<'a>, String> {
        let ffmpeg = |video: &str, audio: &str, output: &str| {
            let video = if video.is_empty() { "-map 1:a" } else { video };
            let audio = if audio.is_empty() { "-map 0:v" } else { audio };
            Ffmpeg::publish_signal(video, audio, output, self.filters, self.rate)
        };
        let page = |page: Option<&'a dyn Page>, codec: &str, only: &str| {
            let page = page.ok_or("this run has no such browser")?;
            let name = format!("publisher-{}", self.name);
            let (whip, what) = (&to.whip, format!("video/{codec}"));
            let how = format!("'{name}', '{whip}', '{what}', {{only: '{only}'}}");
            page.try_eval(&format!("return await hw.matrix.publish({how})"))?;
            Ok::<_, String>(Running::Page(page, name))
        };
        Ok(match self.way {
            Way::Rtmp(video, audio) => Running::Ffmpeg(ffmpeg(video, audio, &format!("-f flv {}", to.rtmp))),
            Way::Rtsp(transport, video, audio) => {
                let output = format!("-f rtsp -rtsp_transport {transport} {}", to.rtsp);
                Running::Ffmpeg(ffmpeg(video, audio, &output))
            }
            Way::Sizes(muxer) => {
                let to = if muxer == "flv" { &to.rtmp } else { &to.rtsp };
                let made = Ffmpeg::publish_sizes(
                    X264,
                    AAC,
                    &SIZES,
                    (EACH_S, seconds),
                    files,
                    &format!("-f {muxer} {to}"),
                );
                made.map(Running::Ffmpeg)?
            }
            Way::Whip => {
                let video = X264.replace("main", "baseline");
                Running::Ffmpeg(ffmpeg(&video, OPUS, &format!("-f whip {}", to.whip)))
            }
            Way::Gstreamer(transport) => {
                let file = files.join("signal.flv");
                let made = Ffmpeg::write_signal(X264, AAC, &file, seconds);
                made.map(|()| Running::Pipeline(Pipeline::publish_file(&to.rtsp, transport, &file)))?
            }
            Way::Chromium(codec, only) => page(pages.chromium, codec, only)?,
            Way::Firefox(codec) => page(pages.firefox, codec, "")?,
            Way::Aiortc(codec) => {
                let aiortc = Aiortc::publish(&to.whip, &format!("video/{codec}"));
                aiortc.wait_line("connected", LONG);
                Running::Aiortc(aiortc)
            }
        })
    }
}

impl Running<'_> {
    /// The end of what it said, for a failure.
    pub fn said(&self) -> String {
        match self {
            Running::Ffmpeg(it) => it.log.tail(5),
            Running::Pipeline(it) => it.log.tail(5),
            Running::Aiortc(it) => it.log.tail(5),
            Running::Page(..) => String::new(),
        }
    }
}
