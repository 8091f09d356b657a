//! The demo's clip: ten seconds of H.264 and Opus, without end and without a seam.
//!
//! `assets/make-demo-clip.sh` makes both files and says what they promise. Neither needs a container of ours: an
//! Annex B stream of constant frame rate and Ogg Opus of constant packet duration carry exact times by counting.

use bytes::{Bytes, BytesMut};
use ogg::PacketReader;
use proto_core::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use proto_core::media::track::{CodecParams, TrackId};
use proto_core::wire::h264::{NalType, annex_b, nal_ref_idc, put_nal};
use std::io::Cursor;
use std::time::Duration;

/// Pictures a second of `demo.h264`.
const FPS: u32 = 25;

/// What the demo publishes, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Clip {
    params: [Ingest; 2],
    /// One round, by time; times count from the round's start.
    round: Vec<NewFrame>,
    length: Duration,
}

impl Clip {
    /// The clip that is part of the binary.
    ///
    /// # Errors
    /// A sentence if the clip is not what its maker promises, which the tests rule out.
    pub(crate) fn built_in() -> Result<Clip, String> {
        Clip::read(include_bytes!("../../assets/demo.h264"), include_bytes!("../../assets/demo.opus"))
    }

    fn read(h264: &[u8], opus: &[u8]) -> Result<Clip, String> {
        let (video, mut round, length) = pictures(h264)?;
        let (audio, sound) = packets(opus, length)?;
        round.extend(sound);
        // Stable: of two frames of the same moment the picture goes first.
        round.sort_by_key(|f| f.dts);
        let config = |track, params| Ingest::Config { track, params };
        Ok(Clip { params: [config(TrackId::VIDEO, video), config(TrackId::AUDIO, audio)], round, length })
    }

    /// Pictures and sound from the beginning and round and round, each with the moment at which it is due. Times go on
    /// from round to round.
    pub(crate) fn play(&self) -> Play<'_> {
        Play { clip: self, next: 0 }
    }
}

/// A frame or configuration, and when it is due after the start.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    /// The moment, counted from the start of publishing.
    pub(crate) at: Duration,
    /// What is to be sent.
    pub(crate) ingest: Ingest,
}

/// An endless walk through a [`Clip`].
#[derive(Clone, Debug)]
pub(crate) struct Play<'a> {
    clip: &'a Clip,
    next: u64,
}

impl Iterator for Play<'_> {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let n = self.next;
        self.next += 1;
        let params = self.clip.params.len() as u64;
        if n < params {
            let ingest = self.clip.params.get(n as usize)?.clone();
            return Some(Due { at: Duration::ZERO, ingest });
        }
        let frames = self.clip.round.len() as u64;
        let (round, index) = ((n - params).checked_div(frames)?, (n - params) % frames);
        let mut frame = self.clip.round.get(index as usize)?.clone();
        let base = self.clip.length * u32::try_from(round).ok()?;
        frame.dts += base.as_nanos() as i64;
        frame.pts += base.as_nanos() as i64;
        Some(Due { at: Duration::from_nanos(frame.dts as u64), ingest: Ingest::Frame(frame) })
    }
}

/// Parameters, pictures and length of an Annex B stream.
fn pictures(h264: &[u8]) -> Result<(CodecParams, Vec<NewFrame>, Duration), String> {
    let each = Duration::from_secs(1) / FPS;
    let (mut sps, mut pps): (Vec<Bytes>, Vec<Bytes>) = (Vec::new(), Vec::new());
    let mut frames = Vec::new();
    let mut unit = Unit::default();
    for nal in annex_b(h264) {
        match NalType::of(nal) {
            NalType::AUD => frames.extend(std::mem::take(&mut unit).finish(frames.len(), each)),
            // The sets come again before each key frame; the same ones, else one configuration would not do.
            NalType::SPS => keep(&mut sps, nal, "sequence")?,
            NalType::PPS => keep(&mut pps, nal, "picture")?,
            _ => unit.put(nal),
        }
    }
    frames.extend(unit.finish(frames.len(), each));
    if frames.first().is_none_or(|f| f.kind != FrameKind::Key) || sps.is_empty() || pps.is_empty() {
        return Err("the demo's picture does not begin with parameter sets and a key frame".to_owned());
    }
    let length = each * frames.len() as u32;
    Ok((CodecParams::H264 { sps, pps, size: Some((960, 540)), reorders: false }, frames, length))
}

fn keep(sets: &mut Vec<Bytes>, nal: &[u8], what: &str) -> Result<(), String> {
    match sets.first() {
        None => sets.push(Bytes::copy_from_slice(nal)),
        Some(had) if had == nal => {}
        Some(_) => return Err(format!("the demo's picture changes its {what} parameter set midway")),
    }
    Ok(())
}

/// One access unit while its NAL units arrive.
#[derive(Default)]
struct Unit {
    payload: BytesMut,
    key: bool,
    referred_to: bool,
}

impl Unit {
    fn put(&mut self, nal: &[u8]) {
        self.key |= NalType::of(nal) == NalType::IDR;
        self.referred_to |= nal_ref_idc(nal) > 0;
        put_nal(&mut self.payload, nal);
    }

    fn finish(self, index: usize, each: Duration) -> Option<NewFrame> {
        let kind = if self.key { FrameKind::Key } else { FrameKind::Delta };
        let at = each * index as u32;
        let payload = self.payload.freeze();
        (!payload.is_empty()).then(|| frame(TrackId::VIDEO, kind, at, !self.referred_to, payload))
    }
}

/// Parameters and packets of an Ogg Opus file (RFC 7845), as many as fit into `length`.
fn packets(opus: &[u8], length: Duration) -> Result<(CodecParams, Vec<NewFrame>), String> {
    let mut reader = PacketReader::new(Cursor::new(opus));
    let mut next = || reader.read_packet().map_err(|e| format!("the demo's sound is no Ogg: {e}"));
    let head = next()?.filter(|p| p.data.starts_with(b"OpusHead"));
    let channels = head.and_then(|p| p.data.get(9).copied()).ok_or("the demo's sound has no Opus header")?;
    next()?.filter(|p| p.data.starts_with(b"OpusTags")).ok_or("the demo's sound has no Opus tags")?;
    let (mut frames, mut at) = (Vec::new(), Duration::ZERO);
    while let Some(packet) = next()? {
        let lasts = duration(&packet.data).ok_or("the demo's sound has a packet without a duration")?;
        if at + lasts > length {
            break;
        }
        frames.push(frame(TrackId::AUDIO, FrameKind::Audio, at, false, packet.data.into()));
        at += lasts;
    }
    if at != length {
        return Err(format!("the demo's sound lasts {at:?}, its picture {length:?}"));
    }
    Ok((CodecParams::Opus { channels }, frames))
}

/// How long an Opus packet plays (RFC 6716, 3.1 and 3.2): frames of the duration that the TOC byte names.
fn duration(packet: &[u8]) -> Option<Duration> {
    let toc = packet.first()?;
    let config = toc >> 3;
    let micros: u64 = match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config & 3)],
        // Hybrid: 10, 20 ms.
        12..=15 => [10_000, 20_000][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => [2_500, 5_000, 10_000, 20_000][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    (count > 0).then(|| Duration::from_micros(micros * count))
}

fn frame(track: TrackId, kind: FrameKind, at: Duration, discardable: bool, payload: Bytes) -> NewFrame {
    let at = at.as_nanos() as i64;
    NewFrame {
        track,
        dts: at,
        pts: at,
        kind,
        discardable,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::wire::h264::length_prefixed;

    fn frames_of(play: Play<'_>) -> impl Iterator<Item = (Duration, NewFrame)> {
        play.filter_map(|due| match due.ingest {
            Ingest::Frame(frame) => Some((due.at, frame)),
            Ingest::Config { .. } => None,
        })
    }

    #[test]
    fn the_clip_is_what_the_issue_asks_for() {
        let clip = Clip::built_in().unwrap();
        assert_eq!(clip.length, Duration::from_secs(10));
        let size =
            include_bytes!("../../assets/demo.h264").len() + include_bytes!("../../assets/demo.opus").len();
        assert!(size <= 1 << 20, "{size} bytes");
        let (video, audio): (Vec<_>, Vec<_>) = clip.round.iter().partition(|f| f.track == TrackId::VIDEO);
        assert_eq!((video.len(), audio.len()), (250, 500));
        for (i, f) in video.iter().enumerate() {
            assert_eq!(f.kind == FrameKind::Key, i % 50 == 0, "a key frame every two seconds, frame {i}");
            assert!(!f.discardable);
            for nal in length_prefixed(&f.payload, 4) {
                let kind = NalType::of(nal.unwrap());
                assert!(matches!(kind, NalType::SLICE | NalType::IDR), "{kind:?} in frame {i}");
            }
        }
        assert!(video.iter().all(|f| f.payload.len() > 20), "the picture moves in every frame");
        assert!(audio.iter().all(|f| f.kind == FrameKind::Audio && f.payload.len() < 1_000));
    }

    #[test]
    fn configuration_comes_first_and_is_constrained_baseline_and_stereo() {
        let clip = Clip::built_in().unwrap();
        let first: Vec<Ingest> = clip.play().take(3).map(|d| d.ingest).collect();
        let Ingest::Config { track: TrackId::VIDEO, params: CodecParams::H264 { sps, pps, reorders, .. } } =
            &first[0]
        else {
            panic!("{:?}", first[0])
        };
        assert_eq!((sps.len(), pps.len(), *reorders), (1, 1, false));
        assert_eq!(sps[0][1], 66, "profile_idc");
        assert_eq!(sps[0][2] & 0x40, 0x40, "constraint_set1_flag");
        assert!(matches!(&first[1], Ingest::Config { params: CodecParams::Opus { channels: 2 }, .. }));
        assert!(matches!(&first[2], Ingest::Frame(f) if f.kind == FrameKind::Key && f.dts == 0));
    }

    #[test]
    fn times_go_on_across_rounds_without_a_gap() {
        let clip = Clip::built_in().unwrap();
        let all: Vec<_> = frames_of(clip.play()).take(750 * 3 + 10).collect();
        assert!(all.windows(2).all(|w| w[0].0 <= w[1].0), "in order of time");
        for (track, step) in [(TrackId::VIDEO, 40_000_000), (TrackId::AUDIO, 20_000_000)] {
            let times: Vec<i64> = all.iter().filter(|(_, f)| f.track == track).map(|(_, f)| f.dts).collect();
            assert!(times.windows(2).all(|w| w[1] - w[0] == step));
            assert_eq!(times[0], 0);
        }
        assert!(all.iter().all(|(at, f)| at.as_nanos() as i64 == f.dts && f.pts == f.dts));
    }

    #[test]
    fn a_broken_clip_is_refused_in_words() {
        let h264 = include_bytes!("../../assets/demo.h264");
        let opus = include_bytes!("../../assets/demo.opus");
        assert!(Clip::read(&[], opus).unwrap_err().contains("key frame"));
        assert!(Clip::read(h264, &[]).is_err());
        assert!(Clip::read(h264, b"no ogg at all, nor opus, but twenty-seven bytes").is_err());
        assert!(Clip::read(h264, &opus[..opus.len() / 2]).is_err());
    }

    #[test]
    fn opus_durations_follow_the_toc_byte() {
        assert_eq!(duration(&[31 << 3]), Some(Duration::from_millis(20)));
        assert_eq!(duration(&[(16 << 3) | 1]), Some(Duration::from_millis(5)));
        assert_eq!(duration(&[(3 << 3) | 3, 2]), Some(Duration::from_millis(120)));
        assert_eq!(duration(&[13 << 3]), Some(Duration::from_millis(20)));
        assert_eq!(duration(&[3]), None);
        assert_eq!(duration(&[]), None);
    }
}
