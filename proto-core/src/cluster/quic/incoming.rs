//! Relayed media that comes: streams are put back into the order of their groups, track by track.
//!
//! Frames of a group are handed on as they come; those of the group after it lie in the library's buffers until it is
//! whole, was reset by its sender, or has kept a newer one waiting for `limits.relay_late_ms`. Each group tells how many
//! frames came before it, so what was left out is counted.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::outgoing::STALE;
use crate::buf::Inbox;
use crate::limits::Limits;
use crate::media::track::TrackId;
use crate::time::{Deadline, Time};
use crate::wire::link::{Group, Message, decode, split};
use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId, VarInt};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Bytes that are read before it is known whose stream it is.
const HEAD: usize = 128;
/// Bytes that are read at once.
const READ: usize = 64 << 10;

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A message, in the order of its track; of the control stream, in the order of its pull.
    Message(Message),
    /// Frames of a pull were left out.
    Lost { pull: u64, track: TrackId, frames: u64, bytes: u64 },
}

#[derive(Debug)]
struct In {
    inbox: Inbox,
    group: Option<Group>,
    over: End,
}

/// One track of a pull.
#[derive(Debug, Default)]
struct Line {
    /// The group whose frames are handed on; 0 before the first.
    current: u64,
    /// The groups that have come, and are not over.
    groups: BTreeMap<u64, (StreamId, Group)>,
    /// Frames and bytes that were handed on or left out.
    frames: u64,
    bytes: u64,
    /// Since when a newer group waits for the current one.
    late: Option<Time>,
}

#[derive(Debug, Default)]
struct Pull {
    /// What came on the control stream and waits for frames.
    told: VecDeque<Message>,
    until: Option<Time>,
}

/// All streams of one connection that come from the other end.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    streams: BTreeMap<StreamId, In>,
    lines: BTreeMap<(u64, TrackId), Line>,
    /// The pulls that this end makes.
    pulls: BTreeMap<u64, Pull>,
    came: VecDeque<Came>,
}

/// How a stream stands after what there is of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Reset,
}

impl Incoming {
    /// This end pulls under that number.
    pub(super) fn expect(&mut self, pull: u64) {
        self.pulls.entry(pull).or_default();
    }

    /// This end does not pull under that number any more.
    pub(super) fn forget(&mut self, pull: u64, inner: &mut Connection) {
        self.pulls.remove(&pull);
        let lines: Vec<_> =
            self.lines.range((pull, TrackId(0))..=(pull, TrackId(u8::MAX))).map(|(k, _)| *k).collect();
        for key in lines {
            let line = self.lines.remove(&key).unwrap_or_default();
            line.groups.values().for_each(|(stream, _)| self.stop(*stream, inner));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Came> {
        self.came.pop_front()
    }

    fn stop(&mut self, stream: StreamId, inner: &mut Connection) {
        self.streams.remove(&stream);
        // A stream that is over needs no stop.
        let _ = inner.recv_stream(stream).stop(VarInt::from_u32(STALE));
    }

    /// A stream was opened by the other end.
    pub(super) fn opened(&mut self, stream: StreamId, limits: &Limits) {
        let inbox = Inbox::new(limits.link_message_bytes.saturating_add(4 + READ));
        self.streams.insert(stream, In { inbox, group: None, over: End::Open });
    }

    /// A stream has something to read.
    ///
    /// # Errors
    /// What is wrong with what the other end sent.
    pub(super) fn readable(
        &mut self,
        stream: StreamId,
        inner: &mut Connection,
        limits: &Limits,
        now: Time,
    ) -> Result<(), &'static str> {
        let Some(input) = self.streams.get_mut(&stream) else { return Ok(()) };
        if input.group.is_none() {
            read(stream, input, inner, HEAD)?;
            let head = split(&mut input.inbox, HEAD).map_err(|e| e.0)?;
            let head = head.map(decode).transpose().map_err(|e| e.0)?;
            match head {
                Some(Some(Message::Group(group))) if group.number > 0 => input.group = Some(group),
                Some(_) => return Err("a stream that does not say which group it holds"),
                None if input.over == End::Open => return Ok(()),
                // It was given up before it began.
                None => {
                    self.streams.remove(&stream);
                    return Ok(());
                }
            }
            let Some(group) = input.group else { return Ok(()) };
            let key = (group.pull, TrackId(group.track));
            let (known, tracks) = (self.pulls.contains_key(&group.pull), self.lines.len());
            let line = match known {
                true if self.lines.contains_key(&key)
                    || tracks < limits.stream_tracks.saturating_mul(self.pulls.len()) =>
                {
                    self.lines.entry(key).or_default()
                }
                _ => {
                    self.stop(stream, inner);
                    return Ok(());
                }
            };
            if group.number < line.current || line.groups.contains_key(&group.number) {
                self.stop(stream, inner);
                return Ok(());
            }
            if group.number > line.current && line.current > 0 {
                line.late.get_or_insert(now);
            }
            line.groups.insert(group.number, (stream, group));
        }
        let Some(group) = self.streams.get(&stream).and_then(|i| i.group) else { return Ok(()) };
        self.advance((group.pull, TrackId(group.track)), inner, limits, now)
    }

    /// Hands on what can be handed on of a track.
    fn advance(
        &mut self,
        key: (u64, TrackId),
        inner: &mut Connection,
        limits: &Limits,
        now: Time,
    ) -> Result<(), &'static str> {
        while let Some(line) = self.lines.get_mut(&key) {
            if let Some((stream, _)) = line.groups.get(&line.current).copied() {
                let Some(input) = self.streams.get_mut(&stream) else {
                    line.groups.remove(&line.current);
                    continue;
                };
                let end = take(stream, input, key, line, &mut self.came, inner, limits)?;
                if end == End::Open {
                    break;
                }
                if end == End::Whole && !input.inbox.is_empty() {
                    return Err("a stream that ends within a message");
                }
                line.groups.remove(&line.current);
                self.streams.remove(&stream);
                continue;
            }
            let Some((number, (_, group))) = line.groups.first_key_value().map(|(n, g)| (*n, *g)) else {
                break;
            };
            let follows = number == line.current + 1 || group.frames == line.frames;
            if !follows && line.late.is_none_or(|since| now < since + late(limits)) {
                line.late.get_or_insert(now);
                break;
            }
            line.skip_to(key, &group, &mut self.came);
            line.current = number;
            line.late = (line.groups.len() > 1).then_some(now);
        }
        self.settle(key.0, limits, now);
        Ok(())
    }

    /// A message about a pull came on the control stream: it is handed on when the frames before it have been.
    pub(super) fn told(&mut self, pull: u64, message: Message, limits: &Limits, now: Time) {
        match self.pulls.get_mut(&pull) {
            Some(p) => {
                p.told.push_back(message);
                self.settle(pull, limits, now);
            }
            None => self.came.push_back(Came::Message(message)),
        }
    }

    /// Hands on what waits for frames that have come, or did not come in time.
    fn settle(&mut self, pull: u64, limits: &Limits, now: Time) {
        let lines = self.lines.range((pull, TrackId(0))..=(pull, TrackId(u8::MAX)));
        let had: u64 = lines.map(|(_, line)| line.frames).sum();
        let Some(p) = self.pulls.get_mut(&pull) else { return };
        while let Some(message) = p.told.front() {
            if let Message::Sent { frames, .. } = message
                && had < *frames
            {
                let until = *p.until.get_or_insert(now + late(limits));
                if now < until {
                    return;
                }
            }
            p.until = None;
            if let Some(message) = p.told.pop_front()
                && !matches!(message, Message::Sent { .. })
            {
                self.came.push_back(Came::Message(message));
            }
        }
    }

    /// Time passed: what is late is left out.
    ///
    /// # Errors
    /// As [`Incoming::readable`].
    pub(super) fn tick(
        &mut self,
        inner: &mut Connection,
        limits: &Limits,
        now: Time,
    ) -> Result<(), &'static str> {
        let due: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, l)| l.late.is_some_and(|since| since + late(limits) <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let Some(line) = self.lines.get_mut(&key) else { continue };
            match line.groups.remove(&line.current) {
                Some((stream, _)) if !line.groups.is_empty() => self.stop(stream, inner),
                Some(only) => _ = line.groups.insert(line.current, only),
                None => {}
            }
            let Some(line) = self.lines.get_mut(&key) else { continue };
            if line.groups.keys().all(|n| *n == line.current) {
                line.late = None;
            }
            self.advance(key, inner, limits, now)?;
        }
        let waiting: Vec<u64> =
            self.pulls.iter().filter(|(_, p)| p.until.is_some_and(|at| at <= now)).map(|(k, _)| *k).collect();
        waiting.into_iter().for_each(|pull| self.settle(pull, limits, now));
        Ok(())
    }

    /// When something is late.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Deadline> {
        let lines = self.lines.values().filter_map(|l| l.late).map(|since| since + late(limits));
        let pulls = self.pulls.values().filter_map(|p| p.until);
        lines.chain(pulls).min().map(|at| Deadline::new(at, "a late group"))
    }

    /// Bytes that wait for the rest of their message.
    pub(super) fn partial(&self) -> usize {
        self.streams.values().map(|s| s.inbox.len()).sum()
    }
}

impl Line {
    /// Counts what lies between the last frame and a group as left out.
    fn skip_to(&mut self, (pull, track): (u64, TrackId), group: &Group, came: &mut VecDeque<Came>) {
        let (frames, bytes) =
            (group.frames.saturating_sub(self.frames), group.bytes.saturating_sub(self.bytes));
        if frames > 0 {
            (self.frames, self.bytes) = (group.frames, group.bytes);
            came.push_back(Came::Lost { pull, track, frames, bytes });
        }
    }
}

fn late(limits: &Limits) -> Duration {
    Duration::from_millis(limits.relay_late_ms)
}

/// Reads at most so much of a stream.
fn read(stream: StreamId, input: &mut In, inner: &mut Connection, most: usize) -> Result<(), &'static str> {
    if input.over != End::Open {
        return Ok(());
    }
    let mut recv = inner.recv_stream(stream);
    let Ok(mut chunks) = recv.read(true) else {
        input.over = End::Reset;
        return Ok(());
    };
    let mut left = most;
    while left > 0 {
        match chunks.next(left) {
            Ok(Some(chunk)) => {
                left -= chunk.bytes.len();
                fill(input, &chunk.bytes)?;
                continue;
            }
            Ok(None) => input.over = End::Whole,
            Err(ReadError::Reset(_)) => input.over = End::Reset,
            Err(ReadError::Blocked) => {}
        }
        break;
    }
    // What has to be told to the peer leaves with this turn's packets.
    let _ = chunks.finalize();
    Ok(())
}

fn fill(input: &mut In, bytes: &Bytes) -> Result<(), &'static str> {
    if input.inbox.fill(bytes) == bytes.len() { Ok(()) } else { Err("a message longer than allowed") }
}

/// Reads the current stream of a track and hands on its messages.
fn take(
    stream: StreamId,
    input: &mut In,
    (pull, track): (u64, TrackId),
    line: &mut Line,
    came: &mut VecDeque<Came>,
    inner: &mut Connection,
    limits: &Limits,
) -> Result<End, &'static str> {
    loop {
        while let Some(raw) = split(&mut input.inbox, limits.link_message_bytes).map_err(|e| e.0)? {
            match decode(raw).map_err(|e| e.0)? {
                Some(Message::Frame(frame)) if frame.pull == pull && frame.media.track == track => {
                    line.frames += 1;
                    line.bytes += frame.media.payload.len() as u64;
                    came.push_back(Came::Message(Message::Frame(frame)));
                }
                Some(message @ Message::Tracks { pull: of, .. }) if of == pull => {
                    came.push_back(Came::Message(message));
                }
                // Of a newer version.
                None => {}
                Some(_) => return Err("a message that does not belong on its stream"),
            }
        }
        let before = input.inbox.len();
        if input.over != End::Open {
            return Ok(input.over);
        }
        read(stream, input, inner, READ)?;
        if input.over == End::Open && input.inbox.len() == before {
            return Ok(End::Open);
        }
    }
}
