//! A player by WHEP that checks what it gets as it comes: whose it is, whole and in order, decodable, on one clock.

use super::caller::{Call, Caller, News, Seat, Signalling};
use super::peer::Rtp;
use super::reorder::{Next, Reorder};
use super::rtp::{Depacketiser, Picture, Read};
use super::sync::{Sync, Timeline, by_clock};
use crate::world::actors::{Client, In, Notes, Out, Standing, name_of};
use crate::world::media::{MADE_OF_AAC, Mark, Order, sound_at};
use proto_core::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// Key frames are asked for no more often than this.
const KEY_PAUSE: Duration = Duration::from_millis(500);

/// How a player by WHEP behaves.
#[derive(Clone, Debug)]
pub struct WhepConfig {
    /// How its calls are signalled.
    pub by: Signalling,
    /// Its network lets no UDP through: media goes over TCP.
    pub tcp: bool,
    /// It calls again so long after its call ended, for whatever reason.
    pub again: Option<Duration>,
    /// It takes its call for dead after so long without a word of the node.
    pub silence: Duration,
    /// How long pictures wait for a packet that is sent again.
    pub picture_wait: Duration,
    /// How long sound waits for a packet that was overtaken.
    pub sound_wait: Duration,
    /// Nothing is lost on the way to it: the first picture of a call must be a key frame with its parameter sets. Else
    /// those may have been lost, and only what can be told from sequence numbers is held against the node.
    pub strict: bool,
    /// How far sound and picture may be apart (S4).
    pub apart: Duration,
    /// Time between pictures of the publisher.
    pub picture: Duration,
    /// Time of sound in a packet of the publisher.
    pub sound: Duration,
    /// The publisher's clock of sound runs so many parts in a million too fast, which moves when its frames were sampled.
    pub sound_ppm: i32,
    /// The stream has several renditions with the same numbers: a key frame of another may show the same once more.
    pub renditions: bool,
    /// By WHEP: it does not offer to say which packets came (no transport-wide feedback).
    pub mute: bool,
}

impl Default for WhepConfig {
    fn default() -> Self {
        WhepConfig {
            by: Signalling::Http,
            tcp: false,
            again: None,
            silence: Duration::from_secs(15),
            picture_wait: Duration::from_millis(500),
            sound_wait: Duration::from_millis(150),
            strict: false,
            apart: Duration::from_millis(40),
            picture: Duration::from_millis(40),
            sound: Duration::from_millis(20),
            sound_ppm: 0,
            renditions: false,
            mute: false,
        }
    }
}

/// A frame that a player got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The publisher's session.
    pub session: u64,
    /// Its number in its track.
    pub seq: u64,
    /// RTP timestamp, unwrapped, from the first of its call and track on, nanoseconds.
    pub stamp: i64,
    /// When it was whole and in its turn.
    pub at: Time,
    /// Whether it is a picture (else sound).
    pub picture: bool,
    /// Whether it is a key frame.
    pub key: bool,
    /// Bytes of its slice, or of sound 0.
    pub bytes: usize,
}

/// Frames that are missing between two others of one publisher's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whether pictures are missing (else sound).
    pub picture: bool,
    /// The last before.
    pub last: u64,
    /// The first after.
    pub next: u64,
    /// Packets were lost on the way: the node may have sent what is missing.
    pub lost: bool,
    /// When the first after it came.
    pub at: Time,
}

/// One track of the present call.
struct Lane {
    reorder: Reorder<Rtp>,
    clock: Timeline,
    last: Option<(u64, u64)>,
    /// Packets were lost since the last frame.
    lost: bool,
}

impl Lane {
    fn new(wait: Duration, rate: u32, each: Duration) -> Lane {
        Lane { reorder: Reorder::new(wait), clock: Timeline::new(rate, each), last: None, lost: false }
    }
}

/// A player of one stream by WHEP.
pub struct Whep {
    config: WhepConfig,
    caller: Caller,
    /// All frames, in the order in which they came.
    pub seen: Vec<Seen>,
    /// Where frames of one publisher's session are missing.
    pub gaps: Vec<Gap>,
    /// Packets that were given up as lost.
    pub packets_lost: u64,
    /// Pictures that came and could not be decoded, because others were lost.
    pub undecodable: u64,
    /// The largest distance between sound and picture that was measured.
    pub skew: Duration,
    /// How often it asked for a key frame.
    pub key_requests: u64,
    picture: Lane,
    /// Packets of sound that a bridge made.
    pub made: u64,
    sound: Lane,
    depacketiser: Depacketiser,
    sync: Sync,
    /// It has asked to go over to this stream.
    next: Option<String>,
    /// The stream that it came from by the last switch.
    before: Option<String>,
    needs_key: bool,
    key_asked: Option<Time>,
    last_picture: Option<usize>,
    /// Sound of a publisher whose pictures cannot be shown as they come: session, when it came.
    only_heard: Option<(u64, Time)>,
}

impl Whep {
    pub(super) fn new(seat: Seat, config: WhepConfig, now: Time) -> Whep {
        let picture = Lane::new(config.picture_wait, 90_000, config.picture);
        let sound = Lane::new(config.sound_wait, 48_000, config.sound);
        let caller = Caller::new(seat, false, config.silence, config.again, now);
        Whep {
            config,
            caller,
            seen: Vec::new(),
            gaps: Vec::new(),
            packets_lost: 0,
            undecodable: 0,
            skew: Duration::ZERO,
            key_requests: 0,
            picture,
            made: 0,
            sound,
            depacketiser: Depacketiser::default(),
            sync: Sync::default(),
            next: None,
            before: None,
            needs_key: true,
            key_asked: None,
            last_picture: None,
            only_heard: None,
        }
    }

    /// What it plays.
    pub fn stream(&self) -> &str {
        name_of(&self.caller.seat.stream)
    }

    /// Where it plays.
    pub fn at(&self) -> SocketAddr {
        self.caller.seat.to
    }

    /// Its calls, the present one last.
    pub fn calls(&self) -> &[Call] {
        &self.caller.calls
    }

    /// The path of its present call's resource.
    pub fn resource(&self) -> Option<&str> {
        self.caller.resource()
    }

    /// Whether its present call stands.
    pub fn is_connected(&self) -> bool {
        self.caller.connected()
    }

    /// Media of its present call that came before its handshake had ended, and so could not be read.
    pub fn early(&self) -> u64 {
        self.caller.peer.as_ref().map_or(0, |p| p.early)
    }

    /// Why its last call ended, if it ended.
    pub fn ended(&self) -> Option<&str> {
        self.caller.ended()
    }

    /// The newest picture.
    pub fn last_picture(&self) -> Option<&Seen> {
        self.seen.get(self.last_picture?)
    }

    /// Numbers of the pictures (or the sound) that it saw of a publisher's session.
    pub fn frames(&self, session: u64, picture: bool) -> Vec<u64> {
        let of = |s: &&Seen| s.session == session && s.picture == picture;
        self.seen.iter().filter(of).map(|s| s.seq).collect()
    }

    /// Whether its present call has gone over from the websocket to the data channel.
    pub fn has_switched(&self) -> bool {
        self.caller.has_switched()
    }

    /// Messages that came over data channels.
    pub fn over_channel(&self) -> u64 {
        self.caller.over_channel
    }

    /// Goes over to another stream in its present call (in the stream-manager dialect). Pictures of it must begin with a key
    /// frame, and time must go on.
    pub fn switch(&mut self, stream: &str, now: Time) {
        // One at a time.
        if self.next.is_some() || stream == self.stream() {
            return;
        }
        self.next = Some(stream.to_owned());
        self.caller.switch(stream, now);
        self.caller.pump(now);
    }

    /// What the node answered to the last switch.
    pub fn called(&self) -> Option<&Result<String, String>> {
        self.caller.called()
    }

    /// What it has asked for has begun: a frame says so, or the node.
    fn goes_over(&mut self) {
        if let Some(next) = self.next.take() {
            self.before = Some(std::mem::replace(&mut self.caller.seat.stream, next));
            (self.picture.last, self.sound.last, self.needs_key) = (None, None, true);
        }
    }

    /// Reads what a frame says it is: of its stream, or of that which it goes over to. `None`: of the one before, which other
    /// frames have overtaken.
    fn read(&mut self, bytes: &[u8], picture: bool) -> Result<Option<Mark>, String> {
        let read = Mark::read(bytes, self.stream());
        let Err(why) = read else { return read.map(Some) };
        if self.next.as_ref().is_some_and(|next| Mark::read(bytes, next).is_ok()) {
            self.goes_over();
            return Mark::read(bytes, self.stream()).map(Some);
        }
        let lane = if picture { &self.picture } else { &self.sound };
        let overtaken =
            lane.last.is_none() && self.before.as_ref().is_some_and(|b| Mark::read(bytes, b).is_ok());
        if overtaken { Ok(None) } else { Err(why) }
    }

    /// Where it goes with its next call.
    pub fn goes_to(&mut self, to: SocketAddr) {
        self.caller.seat.to = to;
    }

    /// Calls anew now; the present call is dropped without a word.
    pub fn connect(&mut self, now: Time) {
        self.caller.connect(now);
    }

    /// Ends its call by DELETE, and does not come back by itself.
    pub fn leave(&mut self, now: Time) {
        self.caller.leave(now);
        self.news(now);
    }

    /// Ends its call by DTLS alone, and does not come back by itself.
    pub fn hang_up(&mut self, now: Time) {
        self.caller.hang_up(now);
        self.news(now);
    }

    /// Asks for a key frame now.
    pub fn want_key(&mut self, now: Time) {
        if let Some(peer) = self.caller.peer.as_mut().filter(|p| p.connected) {
            self.key_requests += 1;
            self.key_asked = Some(now);
            peer.want_key(now);
            self.caller.pump(now);
        }
    }

    fn dial(&mut self, now: Time) {
        let config = &self.config;
        self.picture = Lane::new(config.picture_wait, 90_000, config.picture);
        self.sound = Lane::new(config.sound_wait, 48_000, config.sound);
        self.depacketiser = Depacketiser::default();
        self.sync = Sync::default();
        self.needs_key = true;
        (self.next, self.before) = (None, None);
        self.caller.call(now);
    }

    fn news(&mut self, now: Time) {
        while let Some(news) = self.caller.news.pop_front() {
            match news {
                News::Packet(packet) => self.packet(packet, now),
                News::Report(mid, stamp, ntp) => {
                    if let Some(peer) = &self.caller.peer {
                        let lane = if mid == peer.video { &mut self.picture } else { &mut self.sound };
                        lane.clock.report(stamp, ntp);
                    }
                }
                News::KeyFrameWanted => {
                    self.caller.fault("S3", "a player is asked for a key frame".to_owned());
                }
                News::Connected => {}
                News::Ended => {}
            }
        }
    }

    fn packet(&mut self, packet: Rtp, now: Time) {
        let lane = if packet.picture { &mut self.picture } else { &mut self.sound };
        lane.reorder.insert(packet.seq, packet, now);
    }

    /// Takes what is in its turn.
    fn play(&mut self, now: Time) {
        while let Some(next) = self.picture.reorder.pop(now) {
            match next {
                Next::Missing(n) => {
                    self.packets_lost += n;
                    self.picture.lost = true;
                    self.needs_key = true;
                    self.depacketiser.lost();
                }
                Next::Packet(p) => match self.depacketiser.push(&p.payload, p.stamp, p.marker) {
                    Read::More => {}
                    Read::Whole(picture) => self.picture(picture, now),
                    Read::Broken { why, lost } => self.broken(&why, lost),
                },
            }
        }
        while let Some(next) = self.sound.reorder.pop(now) {
            match next {
                Next::Missing(n) => {
                    self.packets_lost += n;
                    self.sound.lost = true;
                }
                Next::Packet(p) => match p.payload.get(1..).map(|b| self.read(b, false)) {
                    Some(Ok(None)) => {}
                    Some(Ok(Some(mark))) if p.payload[0] == MADE_OF_AAC => {
                        // What it was made of has 1,024 samples a frame.
                        let each = by_clock(Duration::from_nanos(sound_at(1) as u64), self.config.sound_ppm);
                        self.sound.clock.sampled_each(each);
                        self.made += 1;
                        self.frame(mark, (p.stamp, 0), false, now);
                    }
                    None => self.caller.fault("S3", "an empty packet of sound".to_owned()),
                    Some(Err(e)) => self.caller.fault("S3", format!("sound at {}: {e}", p.stamp)),
                    Some(Ok(Some(mark))) => {
                        let each = by_clock(self.config.sound, self.config.sound_ppm);
                        self.sound.clock.sampled_each(each);
                        self.frame(mark, (p.stamp, 0), false, now);
                    }
                },
            }
        }
        let pause = self.key_asked.is_some_and(|at| now.since(at) < KEY_PAUSE);
        if self.needs_key && self.picture.lost && !pause {
            self.want_key(now);
        }
    }

    fn broken(&mut self, why: &str, lost: bool) {
        // A call may begin in the middle of a picture whose beginning this end could not decrypt.
        if lost || self.picture.last.is_none() && !self.is_strict() {
            self.needs_key = true;
            self.picture.lost = true;
            self.undecodable += 1;
        } else {
            self.caller.fault("S3", format!("a broken picture: {why}"));
        }
    }

    fn is_strict(&self) -> bool {
        self.config.strict && self.caller.peer.as_ref().is_some_and(|p| p.unread == 0)
    }

    fn picture(&mut self, picture: Picture, now: Time) {
        let mark = match picture.slice.get(3..).map(|b| self.read(b, true)) {
            Some(Ok(Some(mark))) => mark,
            Some(Ok(None)) => return,
            Some(Err(e)) => return self.caller.fault("S3", format!("a picture at {}: {e}", picture.stamp)),
            None => return self.caller.fault("S3", "a slice of no length".to_owned()),
        };
        if mark.key != picture.key {
            self.caller.fault("S3", format!("{mark:?} comes in a slice of the other kind"));
        }
        let first = self.picture.last.is_none();
        if picture.sets.is_some_and(|dress| dress != mark.dress) {
            self.caller
                .fault("S4", format!("a picture under other parameter sets ({:?}): {mark:?}", picture.sets));
        }
        if picture.key && picture.sets.is_none() {
            if picture.follows || first && self.is_strict() {
                self.caller.fault("S4", format!("a key frame without parameter sets in front: {mark:?}"));
            }
            self.broken("a key frame without parameter sets", true);
            return;
        }
        if self.needs_key && !picture.key {
            if first && !self.picture.lost && self.is_strict() {
                self.caller.fault("S4", format!("the first picture is no key frame: {mark:?}"));
            }
            self.picture.lost = true;
            self.undecodable += 1;
            return;
        }
        self.needs_key = false;
        self.frame(mark, (picture.stamp, picture.slice.len()), true, now);
    }

    fn frame(&mut self, mark: Mark, (stamp, bytes): (u32, usize), picture: bool, now: Time) {
        let lane = if picture { &mut self.picture } else { &mut self.sound };
        let lost = std::mem::take(&mut lane.lost);
        let mut wrong = None;
        if (mark.track == 'v') != picture {
            wrong = Some(("S3", "a frame of another track"));
        }
        match lane.last.replace((mark.session, mark.seq)) {
            None => {}
            Some((session, _)) if mark.session < session => {
                wrong = Some(("S1", "a frame of a superseded publisher"));
            }
            Some((session, _)) if mark.session > session && picture && !mark.key => {
                wrong = Some(("S4", "the first picture of a new publisher is no key frame"));
            }
            Some((session, _)) if mark.session > session => {}
            Some((_, last)) if mark.seq == last && mark.key && self.config.renditions => {}
            Some((_, last)) if mark.seq <= last => wrong = Some(("S4", "a frame again, or out of order")),
            // What is missing is what no other picture refers to.
            Some((_, last)) if mark.seq <= last + 1 + u64::from(mark.place.skips) => {}
            Some((_, last)) => {
                if picture && !mark.key {
                    wrong = Some(("S4", "a gap that does not end at a key frame"));
                }
                self.gaps.push(Gap { picture, last, next: mark.seq, lost, at: now });
            }
        }
        let (stamp, back) = lane.clock.frame(stamp, mark.session, mark.seq + u64::from(mark.place.shown));
        if back {
            wrong = wrong.or(Some(("S4", "a timestamp that is not later than the one before")));
        }
        let skew = self.sync.measure(&mut self.picture.clock, &mut self.sound.clock);
        if let Some(skew) = skew {
            self.skew = self.skew.max(skew);
            if skew > self.config.apart {
                wrong = wrong.or(Some(("S4", "sound and picture are apart")));
            }
        }
        if let Some((invariant, what)) = wrong {
            self.caller.fault(invariant, format!("{what}: {mark:?} at {stamp}, apart by {skew:?}"));
        }
        self.caller.notes.add(|| format!("saw {}{} of {} at {stamp}", mark.track, mark.seq, mark.session));
        if picture {
            self.last_picture = Some(self.seen.len());
        } else if mark.place.order == Order::Pyramid {
            self.only_heard = Some((mark.session, now));
        }
        let Mark { session, seq, key, .. } = mark;
        self.seen.push(Seen { session, seq, stamp, at: now, picture, key, bytes });
    }
}

impl Client for Whep {
    fn on(&mut self, input: In<'_>, now: Time) {
        self.caller.on(&input, now);
        self.news(now);
        if matches!(input, In::Tick) && self.caller.is_due(now) {
            self.news(now);
            self.dial(now);
        }
        self.play(now);
        self.news(now);
        match self.caller.called() {
            Some(Ok(_)) => self.goes_over(),
            Some(Err(_)) => self.next = None,
            None => {}
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.caller.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        let lanes = [self.picture.reorder.wake(), self.sound.reorder.wake()];
        lanes.into_iter().chain([self.caller.wake()]).flatten().min()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.caller.notes
    }

    fn leave(&mut self, now: Time) {
        Whep::leave(self, now);
    }

    fn standing(&self) -> Standing {
        // Where others refer to B pictures, there are no pictures for it: then it sees the stream if it hears it.
        // Of another stream, to which it went over, the publisher may have come earlier: the latest counts, not the newest session.
        let last = self.last_picture().map(|s| (s.session, s.at)).into_iter().chain(self.only_heard);
        let last = last.max_by_key(|(_, at)| *at);
        Standing {
            stream: Some(self.stream().to_owned()),
            publishes: false,
            ended: self.caller.is_over(),
            session: last.map(|(session, _)| session),
            last_picture: last.map(|(_, at)| at),
            frames: self.seen.len() as u64,
            calls: self.caller.calls_since(),
            talks: self.caller.talks_since(),
        }
    }
}
