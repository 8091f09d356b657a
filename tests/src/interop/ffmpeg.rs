//! ffmpeg as publisher and player, ffprobe as witness.

use super::cluster::signal;
use super::log::Log;
use super::matrix::signal;
use super::wait;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The sound that a publisher sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sound {
    /// None.
    None,
    /// A tone as AAC.
    Aac,
    /// A tone as Opus (only into containers that can hold it).
    Opus,
}

/// What a publisher sends: a moving test picture in H.264 in real time.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    /// Pictures a second.
    pub fps: u32,
    /// Pictures from one key frame to the next.
    pub gop: u32,
    /// B-frames in a row; 0 as WebRTC needs it.
    pub b_frames: u32,
    /// The sound.
    pub sound: Sound,
    /// Noise in the picture, so that it needs about 2 MB a second: fills the buffers of one who does not read.
    pub heavy: bool,
    /// Seconds until the clip ends by itself; 0: never.
    pub seconds: u32,
    /// In place of the test picture a number, one more each picture, from this on, as `matrix/signal.rs` describes it
    /// (`hw.numbers` in a page reads it).
    pub numbered: Option<u32>,
    /// More words for x264; of words that contradict each other the last count.
    pub x264: &'static str,
}

impl Default for Clip {
    /// 25 pictures a second, a key frame each 4 s, no B-frames, AAC, without end.
    fn default() -> Self {
        Clip {
            fps: 25,
            gop: 100,
            b_frames: 0,
            sound: Sound::Aac,
            heavy: false,
            seconds: 0,
            numbered: None,
            x264: "",
        }
    }
}

/// A running ffmpeg; it is killed when this is dropped.
#[derive(Debug)]
pub struct Ffmpeg {
    /// What it says.
    pub log: Log,
    /// Its counters, as `frame=12`.
    progress: Log,
    child: Child,
    what: String,
}

impl Ffmpeg {
    /// Publishes a clip to an `rtmp://` or `rtmps://` URL (as FLV) or an `rtsp://` or `rtsps://` URL (over TCP), or writes it to a path
    /// (container by its ending).
    pub fn publish(to: &str, clip: Clip) -> Ffmpeg {
        Ffmpeg::publish_over(to, clip, "tcp")
    }

    /// Publishes a clip to an `rtsp://` URL over `tcp` or `udp`.
    pub fn publish_over(to: &str, clip: Clip, transport: &str) -> Ffmpeg {
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &str| args.extend(words.split_whitespace().map(str::to_owned));
        let rtmp = to.starts_with("rtmp://") || to.starts_with("rtmps://");
        let rtsp = to.starts_with("rtsp://") || to.starts_with("rtsps://");
        if rtmp || rtsp {
            add("-re");
        }
        if clip.heavy {
            add(&format!("-f lavfi -i testsrc2=size=640x360:rate={},noise=alls=40:allf=t", clip.fps));
        } else if let Some(from) = clip.numbered {
            add(&format!("-f lavfi -i {}", signal::ffmpeg_picture(from, clip.fps)));
        } else {
            add(&format!("-f lavfi -i testsrc2=size=320x180:rate={}", clip.fps));
        }
        if clip.sound != Sound::None {
            if rtmp || rtsp {
                add("-re");
            }
            add("-f lavfi -i sine=frequency=440:sample_rate=48000");
        }
        let rate = if clip.heavy { "16M" } else { "400k" };
        add(&format!("-c:v libx264 -preset ultrafast -pix_fmt yuv420p -profile:v main -b:v {rate}"));
        add(&format!("-g {0} -keyint_min {0} -sc_threshold 0 -bf {1}", clip.gop, clip.b_frames));
        if clip.b_frames == 0 {
            add("-tune zerolatency");
        }
        add(clip.x264);
        match clip.sound {
            Sound::None => add("-an"),
            Sound::Aac => add("-c:a aac -b:a 64k"),
            Sound::Opus => add("-c:a libopus -b:a 48k -ac 2"),
        }
        if clip.seconds > 0 {
            add(&format!("-t {}", clip.seconds));
        }
        if rtmp {
            add("-f flv");
        }
        if rtsp {
            add(&format!("-f rtsp -rtsp_transport {transport}"));
        }
        args.extend(["-y".to_owned(), to.to_owned()]);
        Ffmpeg::run(format!("ffmpeg that publishes to {to}"), &args)
    }

    /// Publishes moving pictures and a tone by RTMP, or by RTSP over TCP, coded as the arguments for both encoders say.
    pub fn publish_coded(to: &str, video: &str, audio: &str) -> Ffmpeg {
        let carried = if to.starts_with("rtmp") { "-f flv" } else { "-f rtsp -rtsp_transport tcp" };
        let args = format!(
            "-re -f lavfi -i testsrc2=size=320x180:rate=25 -re -f lavfi -i sine=frequency=440:sample_rate=48000 \
             -pix_fmt yuv420p {video} -g 50 {audio} {carried} {to}"
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Ffmpeg::run(format!("ffmpeg that publishes {video} and {audio} to {to}"), &args)
    }

    /// Plays the pictures of a URL or file: decodes and counts them.
    pub fn play(from: &str) -> Ffmpeg {
        let args = ["-i", from, "-map", "0:v", "-fps_mode", "passthrough", "-f", "null", "-"];
        Ffmpeg::run(format!("ffmpeg that plays {from}"), &args.map(str::to_owned))
    }

    /// Plays an `rtsp://` URL over `tcp` or `udp` for some seconds: decodes pictures and sound, and counts the pictures.
    pub fn play_rtsp(from: &str, transport: &str, seconds: u32) -> Ffmpeg {
        let words = format!(
            "-rtsp_transport {transport} -i {from} -map 0:v -map 0:a -t {seconds} -fps_mode passthrough -f null -"
        );
        let args: Vec<String> = words.split(' ').map(str::to_owned).collect();
        Ffmpeg::run(format!("ffmpeg that plays {from} over {transport}"), &args)
    }

    /// Listens on an `rtmp://` URL as a server for one publisher, and decodes and counts what comes: an independent
    /// peer for our clients.
    pub fn listen(on: &str) -> Ffmpeg {
        let args = ["-listen", "1", "-i", on, "-map", "0:v", "-fps_mode", "passthrough", "-f", "null", "-"];
        Ffmpeg::run(format!("ffmpeg that listens on {on}"), &args.map(str::to_owned))
    }

    /// Publishes a moving picture in real time by Enhanced RTMP, with Opus; `video` are the encoder's arguments. For this a
    /// newer ffmpeg is needed than distributions have.
    pub fn publish_enhanced(to: &str, video: &str) -> Ffmpeg {
        let args = format!(
            "-re -f lavfi -i testsrc2=size=320x180:rate=25 -re -f lavfi -i sine=frequency=440:sample_rate=48000 \
             -pix_fmt yuv420p {video} -g 50 -c:a libopus -b:a 48k -f flv {to}"
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Ffmpeg::run_with(newer(), format!("ffmpeg that publishes {video} to {to}"), &args)
    }

    /// Publishes one moving picture in three sizes (640x360, 320x180, 160x90) and two tones, as tracks of one stream, by
    /// Enhanced RTMP v2. For this a newer ffmpeg is needed than distributions have.
    pub fn publish_tracks(to: &str) -> Ffmpeg {
        let args = format!(
            "-re -f lavfi -i testsrc2=size=640x360:rate=25 -re -f lavfi -i sine=frequency=440:sample_rate=48000 \
             -re -f lavfi -i sine=frequency=880:sample_rate=48000 \
             -filter_complex [0:v]split=3[a][b][c];[b]scale=320:180[b2];[c]scale=160:90[c2] \
             -map [a] -map [b2] -map [c2] -map 1:a -map 2:a -pix_fmt yuv420p -c:v libx264 -preset ultrafast \
             -tune zerolatency -bf 0 -g 25 -c:a aac -b:a 64k -f flv {to}"
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Ffmpeg::run_with(newer(), format!("ffmpeg that publishes several tracks to {to}"), &args)
    }

    /// Publishes a moving picture (H.264) and a tone (Opus) in real time by WHIP. For this a newer ffmpeg is needed than
    /// distributions have.
    pub fn publish_whip(to: &str) -> Ffmpeg {
        let args = format!(
            "-re -f lavfi -i testsrc2=size=320x180:rate=25 -re -f lavfi -i sine=frequency=440:sample_rate=48000 \
             -pix_fmt yuv420p -c:v libx264 -profile:v baseline -preset ultrafast -tune zerolatency -bf 0 -g 50 \
             -c:a libopus -ar 48000 -ac 2 -b:a 48k -f whip {to}"
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Ffmpeg::run_with(newer(), format!("ffmpeg that publishes to {to}"), &args)
    }

    /// Plays the pictures of an `rtmp://` URL and says that it takes the codecs of Enhanced RTMP.
    pub fn play_enhanced(from: &str) -> Ffmpeg {
        let args = ["-rtmp_enhanced_codecs", "hvc1,av01,vp09,Opus", "-i", from, "-map", "0:v", "-map", "0:a"];
        let sink = ["-fps_mode", "passthrough", "-f", "null", "-"];
        let args: Vec<String> = args.into_iter().chain(sink).map(str::to_owned).collect();
        Ffmpeg::run_with(newer(), format!("ffmpeg that plays {from}"), &args)
    }

    /// The loudest sample of the sound of a URL over some seconds, in decibels below full scale.
    ///
    /// # Errors
    /// What ffmpeg said, if there was no sound that it could decode.
    pub fn loudest(from: &str, seconds: u32) -> Result<f64, String> {
        let limit = seconds.to_string();
        let args =
            ["-nostdin", "-t", &limit, "-i", from, "-map", "0:a", "-af", "volumedetect", "-f", "null", "-"];
        let got = Command::new("ffmpeg")
            .arg("-hide_banner")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("ffmpeg is not installed; run ./check ({e})"))?;
        let said = String::from_utf8_lossy(&got.stderr).into_owned();
        let level = said.split("max_volume: ").nth(1).and_then(|l| l.split(' ').next()?.parse().ok());
        level.ok_or(said)
    }

    /// Publishes the signal of the matrix in real time: `video` and `audio` are encoders' arguments, `output` the muxer's and
    /// where to. `more` are filters between the picture and its encoder.
    pub fn publish_signal(video: &str, audio: &str, output: &str, filters: &[&str], rate: u32) -> Ffmpeg {
        let picture = [&[signal::ffmpeg_picture(0, signal::FPS).as_str()], filters].concat().join(",");
        let args = format!(
            "-re -f lavfi -i {picture} -re -f lavfi -i {} {video} {audio} {output}",
            signal::ffmpeg_sound(rate)
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Ffmpeg::run_with(newer(), format!("ffmpeg that publishes {video} {audio} {output}"), &args)
    }

    /// Publishes the signal of the matrix in real time with pictures that change their size: `each` seconds of one, then of the
    /// next, for `seconds` at least. They are coded beforehand into `files`; encoders do not change their size by themselves.
    ///
    /// # Errors
    /// What ffmpeg said.
    pub fn publish_sizes(
        video: &str,
        audio: &str,
        sizes: &[&str],
        (each, seconds): (u32, u64),
        files: &Path,
        output: &str,
    ) -> Result<Ffmpeg, String> {
        let make = |args: String| {
            let args = format!("-hide_banner -nostdin -loglevel error -y {args}");
            let got =
                Command::new(newer()).args(args.split_whitespace()).output().map_err(|e| e.to_string())?;
            if got.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&got.stderr).into_owned()) }
        };
        let parts = u32::try_from(seconds).unwrap_or(u32::MAX) / each + 1;
        let mut list = String::new();
        for (n, size) in (0..parts).zip(sizes.iter().cycle()) {
            let part = files.join(format!("part-{n}.ts"));
            let picture = signal::ffmpeg_picture(n * each * signal::FPS, signal::FPS);
            let scale = format!("scale={size}:flags=neighbor");
            make(format!("-f lavfi -i {picture},{scale} {video} -t {each} {}", part.display()))?;
            writeln!(list, "file '{}'\nduration {each}", part.display()).map_err(|e| e.to_string())?;
        }
        let (listed, sound) = (files.join("parts.txt"), files.join("sound.m4a"));
        std::fs::write(&listed, list).map_err(|e| e.to_string())?;
        let all = parts * each;
        make(format!(
            "-f lavfi -i {} {audio} -t {all} {}",
            signal::ffmpeg_sound(signal::RATE),
            sound.display()
        ))?;
        let args = format!(
            "-re -f concat -safe 0 -i {} -re -i {} -map 0:v -map 1:a -c copy {output}",
            listed.display(),
            sound.display()
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Ok(Ffmpeg::run_with(
            newer(),
            format!("ffmpeg that publishes pictures of several sizes {output}"),
            &args,
        ))
    }

    /// Writes the signal of the matrix into a file, as fast as it can.
    ///
    /// # Errors
    /// What ffmpeg said.
    pub fn write_signal(video: &str, audio: &str, file: &Path, seconds: u64) -> Result<(), String> {
        let args = format!(
            "-hide_banner -nostdin -loglevel error -f lavfi -i {} -f lavfi -i {} {video} {audio} -t {seconds} -y {}",
            signal::ffmpeg_picture(0, signal::FPS),
            signal::ffmpeg_sound(signal::RATE),
            file.display()
        );
        let got = Command::new(newer()).args(args.split_whitespace()).output().map_err(|e| e.to_string())?;
        if got.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&got.stderr).into_owned()) }
    }

    /// Plays a URL and writes what it sees into files: pictures scaled to 16×2 points, sound as 16 bits, mono, 48 kHz, and the
    /// times of pieces of sound as lines of ffmpeg's `framecrc` (the two paths of `sound`). Its log tells the times of pictures, or
    /// without those of sound.
    pub fn measure(from: &str, input: &str, video: Option<&Path>, sound: Option<(&Path, &Path)>) -> Ffmpeg {
        let mut words = format!("{input} -i {from}");
        if let Some(video) = video {
            words.push_str(&format!(
                " -map 0:v -vf scale=16:2:flags=area,format=gray,showinfo=checksum=0 -fps_mode passthrough \
                 -flush_packets 1 -f rawvideo -y {}",
                video.display()
            ));
        }
        if let Some((samples, times)) = sound {
            // Without pictures it tells of sound.
            let told = if video.is_none() { ",ashowinfo" } else { "" };
            for (format, path, told) in [("s16le", samples, told), ("framecrc", times, "")] {
                words.push_str(&format!(
                    " -map 0:a -c:a pcm_s16le -af aresample=48000,aformat=sample_fmts=s16:channel_layouts=mono{told} \
                     -flush_packets 1 -f {format} -y {}",
                    path.display()
                ));
            }
        }
        let args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Ffmpeg::run_with(newer(), format!("ffmpeg that plays {from}"), &args)
    }

    fn run(what: String, args: &[String]) -> Ffmpeg {
        Ffmpeg::run_with("ffmpeg".into(), what, args)
    }

    fn run_with(binary: PathBuf, what: String, args: &[String]) -> Ffmpeg {
        let mut child = Command::new(binary)
            .args(
                "-hide_banner -nostdin -nostats -loglevel info -stats_period 0.1 -progress pipe:1".split(' '),
            )
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ffmpeg is not installed; run ./check");
        let (log, progress) = (Log::default(), Log::default());
        progress.capture(child.stdout.take().expect("stdout is piped"));
        log.capture(child.stderr.take().expect("stderr is piped"));
        Ffmpeg { log, progress, child, what }
    }

    /// Pictures that it has encoded or decoded so far.
    pub fn frames(&self) -> u64 {
        let mut most = 0;
        self.progress.each(|line| most = frame_count(line).unwrap_or(most));
        most
    }

    /// Waits until it has done `n` more pictures than at the call.
    pub fn wait_more_frames(&mut self, n: u64, within: Duration) {
        let (from, goal) = (self.progress.mark(), self.frames() + n);
        if self.progress.wait(from, within, |l| frame_count(l).is_some_and(|f| f >= goal)).is_none() {
            let (got, ended) = (self.frames(), self.child.try_wait());
            panic!(
                "{}: {got} of {goal} pictures within {within:?} ({ended:?})\n{}",
                self.what,
                self.log.tail(30)
            );
        }
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let look = || child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it still runs".to_owned());
        wait::try_until(within, look)
            .unwrap_or_else(|e| panic!("{} did not end: {e}\n{}", self.what, self.log.tail(30)))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops its clock (SIGSTOP): the connection stays, and nothing comes or goes.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the end of {}:\n{}", self.what, self.log.tail(20));
        }
    }
}

/// The newer ffmpeg that `./check` installs.
fn newer() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/ffmpeg");
    assert!(path.exists(), "{} is not there; run ./check", path.display());
    path
}

fn frame_count(line: &str) -> Option<u64> {
    line.strip_prefix("frame=")?.trim().parse().ok()
}

/// What ffprobe sees: the object with `streams` and `format`.
pub fn probe(from: &str) -> Result<Value, String> {
    let got = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_streams", "-show_format", from])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("ffprobe is not installed; run ./check ({e})"))?;
    if !got.status.success() {
        return Err(String::from_utf8_lossy(&got.stderr).into_owned());
    }
    serde_json::from_slice(&got.stdout).map_err(|e| e.to_string())
}
