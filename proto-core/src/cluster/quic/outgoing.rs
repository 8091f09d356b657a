//! Relayed media on its way to the other node: a stream for each group of pictures of a track, and for each second of
//! sound or data.
//!
//! A group tells its number and how many frames came before it, so that the other end knows what it never got. It begins
//! with its track's configuration, so that it needs no other stream. When a group ends its stream is finished; a stream
//! that is not delivered when the group after it is, or when the second after it begins, is reset: by then whoever waits
//! for it is better served by the newer one. Not so where its frames were handed in only just now: a pull that goes on where
//! another broke begins with several groups at once.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::media::frame::FrameKind;
use crate::media::track::TrackId;
use crate::time::Time;
use crate::wire::link::{Group, Message, RelayFrame, encode};
use bytes::Bytes;
use quinn_proto::{Connection, Dir, StreamId, VarInt, WriteError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Sound and data have no key frames; a stream of theirs holds so much, nanoseconds.
const SECOND: i64 = 1_000_000_000;
/// The code of a stream that was reset because it is late.
pub(super) const STALE: u32 = 1;
/// Whatever follows it, a group is not late for so long after its last frame.
const FRESH: Duration = Duration::from_millis(500);
/// Buffers that one stream hands to the library before the next stream's turn.
const TURN: usize = 8;

/// Pull, track, number of the group.
type Place = (u64, TrackId, u64);

#[derive(Debug, Default)]
struct Track {
    /// The number of the newest group; 0 before the first.
    number: u64,
    /// It takes frames.
    open: bool,
    /// It holds no frame yet.
    fresh: bool,
    /// It carries pictures.
    pictures: bool,
    began: i64,
    frames: u64,
    bytes: u64,
    config: Option<Message>,
}

#[derive(Debug, Default)]
struct Out {
    stream: Option<StreamId>,
    queue: VecDeque<Bytes>,
    /// When the last of it was handed in.
    at: Time,
    /// Nothing will follow.
    ended: bool,
    /// The library knows that nothing will follow.
    finished: bool,
}

/// All groups of one connection that are on their way.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    tracks: BTreeMap<(u64, TrackId), Track>,
    groups: BTreeMap<Place, Out>,
    by_stream: BTreeMap<StreamId, Place>,
    /// Streams with something to do, in turn.
    ready: VecDeque<Place>,
    is_ready: BTreeSet<Place>,
    queued: usize,
    /// Streams to be reset.
    resets: Vec<StreamId>,
    reset: u64,
}

impl Outgoing {
    /// Bytes that the library has not taken yet.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Streams that were given up.
    pub(super) fn resets(&self) -> u64 {
        self.reset
    }

    fn touch(&mut self, place: Place) {
        if self.is_ready.insert(place) {
            self.ready.push_back(place);
        }
    }

    fn push(&mut self, place: Place, message: &Message, now: Time) {
        let encoded = encode(message);
        let out = self.groups.entry(place).or_default();
        out.at = now;
        self.queued += encoded.len();
        out.queue.extend([encoded.head, encoded.tail].into_iter().filter(|b| !b.is_empty()));
        self.touch(place);
    }

    /// Ends a track's newest group.
    fn end_group(&mut self, pull: u64, track: TrackId) {
        let Some(t) = self.tracks.get_mut(&(pull, track)) else { return };
        t.open = false;
        let place = (pull, track, t.number);
        if let Some(out) = self.groups.get_mut(&place) {
            out.ended = true;
            self.touch(place);
        }
    }

    fn begin_group(&mut self, pull: u64, track: TrackId, began: i64, now: Time) {
        self.end_group(pull, track);
        let t = self.tracks.entry((pull, track)).or_default();
        t.number += 1;
        (t.open, t.fresh, t.began) = (true, true, began);
        let group = Group { pull, track: track.0, number: t.number, frames: t.frames, bytes: t.bytes };
        let (number, config) = (t.number, t.config.clone());
        // Of the ones before, the last may still be on its way.
        self.give_up(pull, track, number.saturating_sub(1), now);
        self.push((pull, track, number), &Message::Group(group), now);
        if let Some(config) = config {
            self.push((pull, track, number), &config, now);
        }
    }

    /// Resets what is left of a track's groups before number `before`.
    fn give_up(&mut self, pull: u64, track: TrackId, before: u64, now: Time) {
        let all = self.groups.range((pull, track, 0)..(pull, track, before));
        let stale: Vec<Place> =
            all.filter(|(_, out)| out.at + FRESH <= now).map(|(place, _)| *place).collect();
        for place in stale {
            self.forget(place, true);
        }
    }

    fn forget(&mut self, place: Place, reset: bool) {
        let Some(out) = self.groups.remove(&place) else { return };
        self.queued -= out.queue.iter().map(Bytes::len).sum::<usize>();
        if self.is_ready.remove(&place) {
            self.ready.retain(|p| *p != place);
        }
        if let Some(stream) = out.stream {
            self.by_stream.remove(&stream);
            if reset {
                self.resets.push(stream);
                self.reset += 1;
            }
        }
    }

    /// Takes a track's configuration, as [`Message::Tracks`] with one entry.
    pub(super) fn config(&mut self, pull: u64, track: TrackId, message: Message, now: Time) {
        let t = self.tracks.entry((pull, track)).or_default();
        t.config = Some(message);
        let began = t.began;
        self.begin_group(pull, track, began, now);
    }

    /// Takes a frame.
    pub(super) fn frame(&mut self, frame: RelayFrame, now: Time) {
        let (pull, track, media) = (frame.pull, frame.media.track, &frame.media);
        let t = self.tracks.entry((pull, track)).or_default();
        let starts = match media.kind {
            FrameKind::Key => true,
            FrameKind::Delta => false,
            FrameKind::Audio | FrameKind::Data => {
                media.dts.saturating_sub(t.began).saturating_abs() >= SECOND
            }
        };
        if !t.open || (starts && !t.fresh) {
            self.begin_group(pull, track, media.dts, now);
        }
        let t = self.tracks.entry((pull, track)).or_default();
        if std::mem::take(&mut t.fresh) {
            t.began = media.dts;
        }
        t.pictures = media.is_video();
        t.frames += 1;
        t.bytes += media.payload.len() as u64;
        let place = (pull, track, t.number);
        self.push(place, &Message::Frame(Box::new(frame)), now);
    }

    /// What follows on the control stream comes after all that was put into groups. Answers how many frames of the pull
    /// that is; `None`: none at all.
    pub(super) fn mark(&mut self, pull: u64) -> Option<u64> {
        let tracks: Vec<_> = self.tracks.range((pull, TrackId(0))..=(pull, TrackId(u8::MAX))).collect();
        let frames = tracks.iter().map(|(_, t)| t.frames).sum();
        let ids: Vec<_> = tracks.iter().map(|((_, track), _)| *track).collect();
        ids.iter().for_each(|track| self.end_group(pull, *track));
        (frames > 0).then_some(frames)
    }

    /// Nobody wants the pull any more; `now`: nor what of it is on its way.
    pub(super) fn end(&mut self, pull: u64, now: bool) {
        self.mark(pull);
        self.tracks.retain(|(of, _), _| *of != pull);
        if now {
            let all: Vec<Place> = self.groups.keys().filter(|(of, ..)| *of == pull).copied().collect();
            all.into_iter().for_each(|place| self.forget(place, true));
        }
    }

    /// The library can take more of a stream.
    pub(super) fn writable(&mut self, stream: StreamId) {
        if let Some(place) = self.by_stream.get(&stream).copied() {
            self.touch(place);
        }
    }

    /// More streams may be opened.
    pub(super) fn available(&mut self) {
        let waiting: Vec<Place> =
            self.groups.iter().filter(|(_, out)| out.stream.is_none()).map(|(place, _)| *place).collect();
        waiting.into_iter().for_each(|place| self.touch(place));
    }

    /// A stream was delivered whole: what is left of the groups before it comes too late.
    pub(super) fn finished(&mut self, stream: StreamId, now: Time) {
        let Some((pull, track, number)) = self.by_stream.get(&stream).copied() else { return };
        self.forget((pull, track, number), false);
        self.give_up(pull, track, number, now);
    }

    /// The other end does not want a stream any more.
    pub(super) fn stopped(&mut self, stream: StreamId) {
        if let Some(place) = self.by_stream.get(&stream).copied() {
            self.forget(place, true);
        }
    }

    /// Hands to the library what it takes.
    pub(super) fn pump(&mut self, inner: &mut Connection) {
        for stream in std::mem::take(&mut self.resets) {
            // A stream that is closed by now needs no reset.
            let _ = inner.send_stream(stream).reset(VarInt::from_u32(STALE));
        }
        while let Some(place) = self.ready.pop_front() {
            self.is_ready.remove(&place);
            let Some(out) = self.groups.get_mut(&place) else { continue };
            let stream = match out.stream {
                Some(stream) => stream,
                None => {
                    // None to be had: they are looked at again when there are.
                    let Some(stream) = inner.streams().open(Dir::Uni) else { continue };
                    out.stream = Some(stream);
                    self.by_stream.insert(stream, place);
                    // Sound goes first: it is little, and its gaps are heard.
                    let pictures = self.tracks.get(&(place.0, place.1)).is_none_or(|t| t.pictures);
                    let _ = inner.send_stream(stream).set_priority(i32::from(!pictures));
                    stream
                }
            };
            let turn = out.queue.len().min(TURN);
            let bytes = out.queue.make_contiguous().get_mut(..turn).unwrap_or_default();
            if turn > 0 {
                match inner.send_stream(stream).write_chunks(bytes) {
                    Ok(written) => {
                        out.queue.drain(..written.chunks);
                        self.queued -= written.bytes;
                    }
                    Err(WriteError::Blocked) => continue,
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                        self.forget(place, true);
                        continue;
                    }
                }
            }
            let Some(out) = self.groups.get_mut(&place) else { continue };
            if !out.queue.is_empty() {
                self.touch(place);
            } else if out.ended && !std::mem::replace(&mut out.finished, true) {
                let _ = inner.send_stream(stream).finish();
            }
        }
    }

    /// Whether nothing waits and all that ended was delivered.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        self.queued == 0 && self.groups.values().all(|out| !out.ended)
    }
}
