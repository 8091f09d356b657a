//! The stream that is published: made-up pictures of one size, each with the time at which it was handed to the connection.

use bytes::Bytes;
use proto_core::io::Level;
use proto_core::limits::Limits;
use proto_core::machine::Machine as _;
use proto_core::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use proto_core::media::track::{CodecParams, TrackId};
use proto_core::rand::Rng;
use proto_core::rtmp::client::{Client, Input, Output};
use proto_core::time::Time;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// In front of each stamp.
const MAGIC: &[u8] = b"HWSTAMP:";
/// Hexadecimal digits of a stamp: they never look like the start of a NAL unit.
const DIGITS: usize = 16;
/// Pictures from one key frame to the next.
const GOP: u64 = 60;
/// A packet of sound, milliseconds.
pub(super) const SOUND_MS: u64 = 20;
/// Bytes of a packet of sound: 64 kbit/s.
pub(super) const SOUND_BYTES: usize = 160;

/// Now, nanoseconds since the Unix epoch.
pub(in crate::bench) fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// The stamps in some bytes, and how old they are, nanoseconds. One that is cut off is not found.
pub(in crate::bench) fn ages(bytes: &[u8], now: u64) -> impl Iterator<Item = u64> {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, w)| *w == MAGIC);
    starts.filter_map(move |(at, _)| {
        let digits = bytes.get(at + MAGIC.len()..at + MAGIC.len() + DIGITS)?;
        let then = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some(now.saturating_sub(then))
    })
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Stream {
    pub(in crate::bench) fps: u64,
    pub(in crate::bench) kbps: u64,
    /// Sound as Opus, for players by WebRTC; else as AAC.
    pub(in crate::bench) opus: bool,
}

/// What was published so far.
#[derive(Debug, Default)]
pub(in crate::bench) struct Published {
    pub(super) pictures: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) ready: AtomicBool,
    pub(super) over: AtomicBool,
}

fn media(track: TrackId, kind: FrameKind, at: Duration, payload: Vec<u8>) -> Ingest {
    let at = at.as_nanos() as i64;
    Ingest::Frame(NewFrame {
        track,
        dts: at,
        pts: at,
        kind,
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: Bytes::from(payload),
    })
}

fn picture(key: bool, len: usize) -> Vec<u8> {
    let len = len.max(MAGIC.len() + DIGITS + 8);
    let mut out = vec![0x55; len];
    out[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    out[4] = if key { 0x65 } else { 0x41 };
    out[5] = 0x88;
    out[6..6 + MAGIC.len()].copy_from_slice(MAGIC);
    let digits = format!("{:016x}", wall());
    out[6 + MAGIC.len()..6 + MAGIC.len() + DIGITS].copy_from_slice(digits.as_bytes());
    out
}

impl Stream {
    fn configs(self) -> [Ingest; 2] {
        let sps = vec![Bytes::from_static(&[
            0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe8, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00,
            0x00, 0x0c, 0x83, 0xc6, 0x0c, 0xa8,
        ])];
        let pps = vec![Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80])];
        let video = CodecParams::H264 { sps, pps, size: Some((1280, 720)), reorders: false };
        let audio = if self.opus {
            CodecParams::Opus { channels: 2 }
        } else {
            CodecParams::Aac { asc: Bytes::from_static(&[0x11, 0x90]), rate: 48_000, channels: 2 }
        };
        [(TrackId::VIDEO, video), (TrackId::AUDIO, audio)]
            .map(|(track, params)| Ingest::Config { track, params })
    }

    fn picture_at(self, n: u64) -> Duration {
        Duration::from_nanos(n * 1_000_000_000 / self.fps)
    }
}

/// Publishes to `rtmp://HOST[:PORT]/APP/NAME` until `published.over`.
///
/// # Errors
/// Why it ended before.
pub(super) fn publish(
    (host, port, app, name): (&str, u16, &str, &str),
    stream: Stream,
    published: &Arc<Published>,
) -> Result<(), String> {
    let at = format!("{host}:{port}");
    let mut socket = TcpStream::connect((host, port)).map_err(|e| format!("no connection to {at}: {e}"))?;
    let set_up =
        socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(Duration::from_millis(1))));
    set_up.map_err(|e| format!("the connection to {at} cannot be set up: {e}"))?;
    let mut client = Client::new(&at, app, name, Limits::default(), Rng::new([9; 32]), Time::ZERO);
    let begun = Instant::now();
    let now = || Time::ZERO + begun.elapsed();
    client.handle(Input::Writable(8 << 20), now());
    let mut playing: Option<Instant> = None;
    let (mut pictures, mut sounds) = (0, 0);
    let mut buffer = vec![0; 16 << 10];
    loop {
        while let Some(said) = client.poll() {
            match said {
                Output::Send(bytes) => {
                    socket.write_all(&bytes).map_err(|e| format!("{at}: cannot send: {e}"))?;
                    client.handle(Input::Writable(8 << 20), now());
                }
                Output::Ready => {
                    playing = Some(Instant::now());
                    stream.configs().iter().for_each(|c| client.handle(Input::Media(c), now()));
                    published.ready.store(true, Relaxed);
                }
                Output::Closed(reason) => return Err(format!("{at}: {reason}")),
                Output::Log(Level::Error | Level::Warn, text) => return Err(format!("{at}: {text}")),
                // A publisher is sent none, and this one does not obey.
                Output::Log(..) | Output::Media(_) | Output::Reconnect(_) => {}
            }
        }
        if published.over.load(Relaxed) {
            return Ok(());
        }
        if let Some(since) = playing {
            let elapsed = since.elapsed();
            if stream.picture_at(pictures) <= elapsed {
                let payload = picture(pictures % GOP == 0, (stream.kbps * 125 / stream.fps) as usize);
                published.bytes.fetch_add(payload.len() as u64, Relaxed);
                published.pictures.fetch_add(1, Relaxed);
                let kind = if pictures % GOP == 0 { FrameKind::Key } else { FrameKind::Delta };
                let frame = media(TrackId::VIDEO, kind, stream.picture_at(pictures), payload);
                pictures += 1;
                client.handle(Input::Media(&frame), now());
                continue;
            }
            let sound_at = Duration::from_millis(sounds * SOUND_MS);
            if sound_at <= elapsed {
                sounds += 1;
                // 0xfc: CELT, 20 ms, stereo, one frame (RFC 6716, 3.1).
                let mut payload = vec![0x5a; SOUND_BYTES];
                payload[0] = 0xfc;
                published.bytes.fetch_add(payload.len() as u64, Relaxed);
                let frame = media(TrackId::AUDIO, FrameKind::Audio, sound_at, payload);
                client.handle(Input::Media(&frame), now());
                continue;
            }
        }
        match socket.read(&mut buffer) {
            Ok(0) => return Err(format!("{at}: the server closed the connection")),
            Ok(n) => client.handle(Input::Received(&buffer[..n]), now()),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(format!("{at}: cannot receive: {e}")),
        }
        client.handle(Input::Tick, now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again_and_one_that_is_cut_off_is_not() {
        let frame = picture(true, 2_000);
        assert_eq!(frame.len(), 2_000);
        let ages: Vec<u64> = ages(&frame, wall() + 5_000_000_000).collect();
        assert!(ages.len() == 1 && (5_000_000_000..6_000_000_000).contains(&ages[0]), "{ages:?}");
        assert_eq!(super::ages(&frame[..20], wall()).count(), 0);
    }
}
