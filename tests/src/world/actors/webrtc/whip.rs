//! A publisher by WHIP (RFC 9725): pictures and Opus that say what they are.

use super::caller::{Call, Caller, News, Seat, Signalling};
use super::rtp::packetise;
use super::sync::by_clock;
use crate::world::actors::publisher::Sent;
use crate::world::actors::{Client, In, Notes, Out, Standing, name_of};
use crate::world::media::{Label, Place, opus_toc};
use proto_core::rand::Rng;
use proto_core::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// How a publisher by WHIP behaves.
#[derive(Clone, Debug)]
pub struct WhipConfig {
    /// Pictures from one key frame to the next, if nobody asks for one.
    pub gop: u64,
    /// Bytes of a key frame.
    pub key_bytes: usize,
    /// Bytes of another picture.
    pub delta_bytes: usize,
    /// Time between pictures.
    pub picture: Duration,
    /// Time of sound in one packet: 10, 20, 40 or 60 ms.
    pub sound: Duration,
    /// Its clock of sound runs so many parts in a million too fast beside that of its pictures.
    pub sound_ppm: i32,
    /// At which picture it goes over to which parameter sets (see `media::sets`), with a key frame.
    pub dresses: Vec<(u64, u8)>,
    /// The first RTP timestamp of both tracks, in place of a random one.
    pub stamp: Option<u32>,
    /// How its calls are signalled.
    pub by: Signalling,
    /// Its network lets no UDP through: media goes over TCP.
    pub tcp: bool,
    /// It calls again so long after its call ended, for whatever reason.
    pub again: Option<Duration>,
    /// It takes its call for dead after so long without a word of the node.
    pub silence: Duration,
}

impl Default for WhipConfig {
    fn default() -> Self {
        WhipConfig {
            gop: 25,
            key_bytes: 6_000,
            delta_bytes: 700,
            picture: Duration::from_millis(40),
            sound: Duration::from_millis(20),
            sound_ppm: 0,
            dresses: Vec::new(),
            stamp: None,
            by: Signalling::Http,
            tcp: false,
            again: None,
            silence: Duration::from_secs(5),
        }
    }
}

/// Where a track stands in its RTP.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    seq: u64,
    stamp: u32,
}

/// A publisher of one stream by WHIP.
pub struct Whip {
    config: WhipConfig,
    caller: Caller,
    /// All its calls, the present one last.
    pub sent: Vec<Sent>,
    /// How often a key frame was asked for.
    pub key_requests: u64,
    key_wanted: bool,
    tracks: [Track; 2],
    silent: bool,
}

impl Whip {
    pub(super) fn new(seat: Seat, config: WhipConfig, now: Time) -> Whip {
        let caller = Caller::new(seat, true, config.silence, config.again, now);
        Whip {
            config,
            caller,
            sent: Vec::new(),
            key_requests: 0,
            key_wanted: false,
            tracks: [Track::default(); 2],
            silent: false,
        }
    }

    /// Whether its media flows.
    pub fn is_ready(&self) -> bool {
        self.sent.last().is_some_and(|s| s.ready.is_some() && s.ended.is_none())
    }

    /// Why its last call ended, if it ended.
    pub fn ended(&self) -> Option<&str> {
        self.sent.last()?.ended.as_deref()
    }

    /// Its calls, the present one last.
    pub fn calls(&self) -> &[Call] {
        &self.caller.calls
    }

    /// Whether its present call has gone over from the websocket to the data channel.
    pub fn has_switched(&self) -> bool {
        self.caller.has_switched()
    }

    /// Messages that came over data channels.
    pub fn over_channel(&self) -> u64 {
        self.caller.over_channel
    }

    /// Where it goes with its next call.
    pub fn goes_to(&mut self, to: SocketAddr) {
        self.caller.seat.to = to;
    }

    /// Whether it sends no frames, though its call stands. The first picture after a silence is a key frame.
    pub fn keep_silent(&mut self, silent: bool, now: Time) {
        if self.silent != silent {
            self.caller.mute(silent, now);
        }
        self.silent = silent;
        self.key_wanted = true;
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

    /// When the `seq`-th frame of a track (`v` or `a`) of a session was sampled.
    pub fn sampled(&self, session: u64, track: char, seq: u64) -> Option<Time> {
        let sent = self.sent.iter().find(|s| s.session == session)?;
        Some(sent.ready? + self.due(track == 'v', seq))
    }

    fn due(&self, picture: bool, seq: u64) -> Duration {
        let taken = self.taken(picture, seq);
        if picture { taken } else { by_clock(taken, self.config.sound_ppm) }
    }

    /// When the `seq`-th frame of a track was sampled, by the track's own clock.
    fn taken(&self, picture: bool, seq: u64) -> Duration {
        let each = if picture { self.config.picture } else { self.config.sound };
        Duration::from_nanos(each.as_nanos() as u64 * seq)
    }

    /// Later calls of anybody carry higher numbers; players check by that. Given anew when the call stands.
    fn session_at(&self, now: Time) -> u64 {
        now.as_millis() * 1_000 + self.caller.seat.number
    }

    fn dial(&mut self, now: Time) {
        let session = self.session_at(now);
        let mut rng: Rng = self.caller.seat.rng.fork("rtp", self.sent.len() as u64);
        // From the lower half, so that the first wrap is far from where SRTP has to guess (RFC 3711, 3.3.1).
        self.tracks = [(); 2].map(|()| Track {
            seq: u64::from(rng.below(0x8000)),
            stamp: self.config.stamp.unwrap_or(rng.u32()),
        });
        self.key_wanted = true;
        self.sent.push(Sent { session, ..Sent::default() });
        self.caller.call(now);
    }

    fn news(&mut self, now: Time) {
        while let Some(news) = self.caller.news.pop_front() {
            match news {
                News::Connected => {
                    let session = self.session_at(now);
                    if let Some(sent) = self.sent.last_mut() {
                        sent.session = session;
                        sent.ready = Some(now);
                    }
                }
                News::KeyFrameWanted => {
                    self.key_requests += 1;
                    self.key_wanted = true;
                }
                News::Packet(_) => self.caller.fault("S3", "media comes to a publisher".to_owned()),
                News::Report(..) => {}
                News::Ended => {
                    let why = self.caller.calls.last().and_then(|c| c.ended.as_ref());
                    let why = why.map_or_else(String::new, |(_, why)| why.clone());
                    if let Some(sent) = self.sent.last_mut().filter(|s| s.ended.is_none()) {
                        sent.ended = Some(why);
                    }
                }
            }
        }
    }

    /// When the next frame is due, and whether it is a picture.
    fn next(&self) -> Option<(Time, bool)> {
        let sent = self.sent.last().filter(|s| s.ended.is_none())?;
        let start = sent.ready?;
        let (picture, sound) = (self.due(true, sent.pictures), self.due(false, sent.sounds));
        Some((start + picture.min(sound), picture <= sound))
    }

    fn feed(&mut self, now: Time) {
        while let Some((due, picture)) = self.next()
            && due <= now
        {
            let Some(sent) = self.sent.last_mut() else { return };
            let count = if picture { &mut sent.pictures } else { &mut sent.sounds };
            let (seq, session) = (*count, sent.session);
            *count += 1;
            if !self.silent {
                self.frame(picture, session, seq, due, now);
            }
        }
    }

    fn frame(&mut self, picture: bool, session: u64, seq: u64, due: Time, now: Time) {
        let last = self.config.dresses.iter().rev().find(|(at, _)| picture && *at <= seq);
        let (dress, changes) = last.map_or((0, false), |(at, dress)| (*dress, *at == seq));
        let regular = seq.is_multiple_of(self.config.gop) || changes;
        let key = picture && (std::mem::take(&mut self.key_wanted) | regular);
        let stream = name_of(&self.caller.seat.stream).to_owned();
        let label = Label {
            stream,
            session,
            track: if picture { 'v' } else { 'a' },
            seq,
            key,
            dress,
            place: Place::default(),
        };
        let (payloads, rate) = if picture {
            let len = if key { self.config.key_bytes } else { self.config.delta_bytes };
            (packetise(&label.slice(len), key, dress), 90_000)
        } else {
            (vec![label.opus(60, opus_toc(self.config.sound))], 48_000)
        };
        let ticks = self.taken(picture, seq).as_nanos() * rate / 1_000_000_000;
        let track = &mut self.tracks[usize::from(!picture)];
        let (first, stamp) = (track.seq, track.stamp.wrapping_add(ticks as u32));
        track.seq += payloads.len() as u64;
        if let Some(peer) = &mut self.caller.peer {
            let mid = if picture { peer.video } else { peer.audio };
            peer.write(mid, first, stamp, payloads, due, now);
        }
    }
}

impl Client for Whip {
    fn on(&mut self, input: In<'_>, now: Time) {
        self.caller.on(&input, now);
        self.news(now);
        if matches!(input, In::Tick) {
            if self.caller.is_due(now) {
                self.news(now);
                self.dial(now);
            }
            self.feed(now);
            self.caller.pump(now);
            self.news(now);
        }
    }

    fn poll(&mut self) -> Option<Out> {
        self.caller.out.pop_front()
    }

    fn wake(&self) -> Option<Time> {
        let frame = self.next().map(|(due, _)| due);
        [frame, self.caller.wake()].into_iter().flatten().min()
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.caller.notes
    }

    fn leave(&mut self, now: Time) {
        Whip::leave(self, now);
    }

    fn standing(&self) -> Standing {
        Standing {
            stream: Some(name_of(&self.caller.seat.stream).to_owned()),
            publishes: true,
            ended: self.caller.is_over(),
            session: self.sent.last().filter(|_| self.is_ready()).map(|s| s.session),
            last_picture: None,
            frames: self.sent.iter().map(|s| s.pictures + s.sounds).sum(),
            calls: self.caller.calls_since(),
            talks: self.caller.talks_since(),
        }
    }
}
