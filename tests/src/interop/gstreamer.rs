//! GStreamer as another independent publisher (`gst-launch-1.0`) and player (`py/gst_player.py`).

use super::log::Log;
use super::wait;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The player.
const PLAYER: &str = include_str!("py/gst_player.py");
/// What pictures go through that are measured: points of brightness in which a counter is read.
const SEEN: &str = "queue name=q ! decodebin ! videoconvert ! videoscale ! video/x-raw,format=GRAY8,width=16,height=2 \
                    ! fakesink name=s sync=true";
/// What sound goes through that is measured.
const HEARD: &str = "queue name=q ! decodebin ! audioconvert ! audioresample \
                     ! audio/x-raw,format=S16LE,rate=48000,channels=1 ! fakesink name=s sync=true";

/// A running pipeline; it is killed when this is dropped.
#[derive(Debug)]
pub struct Pipeline {
    /// What it says.
    pub log: Log,
    child: Child,
    what: String,
}

impl Pipeline {
    /// Starts a pipeline as `gst-launch-1.0` reads it (no part of it may have a space in it).
    pub fn run(what: &str, pipeline: &str) -> Pipeline {
        let mut launch = Command::new("gst-launch-1.0");
        launch.args(["-e", "-m"]).args(pipeline.split_whitespace());
        Pipeline::spawn(launch, what.to_owned())
    }

    fn spawn(mut command: Command, what: String) -> Pipeline {
        // Warnings of its libraries: the RTSP connection says there why it did not write.
        command.envs([("GST_DEBUG", "default:2"), ("GST_DEBUG_NO_COLOR", "1")]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("GStreamer is not installed; run ./check");
        let log = Log::default();
        log.capture(child.stdout.take().expect("stdout is piped"));
        log.capture(child.stderr.take().expect("stderr is piped"));
        Pipeline { log, child, what }
    }

    /// Publishes moving pictures (H.264) and a tone (AAC, which GStreamer sends as MP4A-LATM) by `rtspclientsink`.
    pub fn publish(to: &str, transport: &str) -> Pipeline {
        Pipeline::run(
            &format!("rtspclientsink that publishes to {to} over {transport}"),
            &format!(
                "rtspclientsink name=s location={to} protocols={transport} latency=100 \
                 videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1 ! \
                 x264enc tune=zerolatency speed-preset=ultrafast key-int-max=50 bitrate=400 ! h264parse ! s. \
                 audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! s."
            ),
        )
    }

    /// Plays by `rtspsrc`, with these elements for pictures and for sound behind it (`None`: whatever GStreamer chooses), and ends by
    /// itself after so many pictures and buffers of sound. What a depayloader or decoder takes for damage is said as a warning
    /// or an error.
    pub fn play(from: &str, transport: &str, through: Option<(&str, &str)>, ends: (u32, u32)) -> Pipeline {
        let (video, audio) = through.unwrap_or(("rtph264depay ! h264parse ! avdec_h264", "decodebin"));
        let branch = |through: &str, end: u32| {
            format!("queue name=q ! {through} ! identity eos-after={end} ! fakesink name=s sync=true")
        };
        let (video, audio) = (branch(video, ends.0), branch(&format!("{audio} ! audioconvert"), ends.1));
        Pipeline::player(from, transport, &[&video, &audio])
    }

    /// Publishes an FLV file with H.264 and AAC at its own pace by `rtspclientsink`, which sends AAC as MP4A-LATM.
    pub fn publish_file(to: &str, transport: &str, file: &Path) -> Pipeline {
        Pipeline::run(
            &format!("rtspclientsink that publishes {} to {to} over {transport}", file.display()),
            &format!(
                "rtspclientsink name=s location={to} protocols={transport} latency=100 \
                 filesrc location={} ! flvdemux name=m \
                 m. ! queue ! h264parse ! identity sync=true ! s. m. ! queue ! aacparse ! identity sync=true ! s.",
                file.display()
            ),
        )
    }

    /// Plays by `rtspsrc`, and tells what it sees and hears; samples go to a file.
    pub fn measure(from: &str, transport: &str, samples: &Path) -> Pipeline {
        Pipeline::player(from, transport, &[SEEN, HEARD, &samples.to_string_lossy()])
    }

    fn player(from: &str, transport: &str, more: &[&str]) -> Pipeline {
        // The system's Python has the bindings, whatever other there is.
        let mut player = Command::new("/usr/bin/python3");
        player.args(["-u", "-c", PLAYER, from, transport]).args(more);
        Pipeline::spawn(player, format!("rtspsrc that plays {from} over {transport}"))
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let look = || child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it still runs".to_owned());
        wait::try_until(within, look)
            .unwrap_or_else(|e| panic!("{} did not end: {e}\n{}", self.what, self.log.tail(30)))
    }

    /// Waits until a player has come to the end of its pictures and of its sound, and answers what it said before.
    pub fn wait_end(&mut self, within: Duration) -> String {
        let status = self.wait_exit(within);
        let said = self.log.tail(400);
        let end = said.split_once("end audio video");
        let (before, _) =
            end.unwrap_or_else(|| panic!("{} did not come to its end ({status}): {said}", self.what));
        before.to_owned()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the end of {}:\n{}", self.what, self.log.tail(20));
        }
    }
}
