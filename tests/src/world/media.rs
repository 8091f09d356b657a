//! Synthetic media that says what it is: each frame carries its stream, its publisher's session, its track, its
//! number and a hash, in valid codec wrapping, so that a player can check all of it from outside.

use bytes::{BufMut, Bytes, BytesMut};
use proto_core::media::frame::{FrameKind, Ingest, NewFrame, Rotation};
use proto_core::media::h264::h264_params;
use proto_core::media::track::{CodecParams, TrackId};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// H.264 Constrained Baseline, level 3.0, 320 by 192, `pic_order_cnt_type` 2.
pub const SPS: [u8; 8] = [0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x06, 0x64];
/// The parameter set that goes with it.
pub const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
/// How many sets of parameters a publisher can go over to.
pub const DRESSES: u8 = 4;
/// The parameter sets of pictures that are not coded in the order in which they are shown ([`Order`]).
pub const REORDERS: u8 = 3;

/// Sequence and picture parameter set by number: 0 is [`SPS`] and [`PPS`], 1 is 320 by 208, 2 has another picture parameter set
/// than 0, 3 is Main profile with `pic_order_cnt_type` 0 and six bits of order count.
pub const fn sets(dress: u8) -> ([u8; 8], [u8; 4]) {
    let (mut sps, mut pps) = (SPS, PPS);
    if dress == REORDERS {
        sps = [0x67, 0x4d, 0x40, 0x1e, 0xed, 0x82, 0x83, 0x32];
    }
    if dress == 1 {
        sps[7] = 0xe4;
    }
    if dress == 2 {
        pps[2] = 0x3e;
    }
    (sps, pps)
}

/// The number of these parameter sets.
pub fn dress_of(sps: &[u8], pps: &[u8]) -> Option<u8> {
    (0..DRESSES)
        .find(|d| sets(*d) == (sps.try_into().unwrap_or_default(), pps.try_into().unwrap_or_default()))
}

/// AAC-LC, 48 kHz, stereo.
pub const ASC: [u8; 2] = [0x11, 0x90];
/// Time between pictures, nanoseconds (25 a second).
pub const PICTURE: i64 = 40_000_000;

/// When the `n`-th sound frame is due, nanoseconds from the start (1,024 samples each).
pub const fn sound_at(n: u64) -> i64 {
    (n as i64 * 1024 * 1_000_000_000) / 48_000
}

/// In which order a publisher's pictures are coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// In the order in which they are shown.
    #[default]
    Shown,
    /// `I P b b P b b`: two B pictures follow the one that is shown after them; no other refers to them.
    Plain,
    /// `I P B b b P B b b`: others refer to the middle one of three B pictures.
    Pyramid,
}

impl Order {
    /// Pictures from one that is no B picture to the next.
    pub const fn group(self) -> u64 {
        match self {
            Order::Shown => 1,
            Order::Plain => 3,
            Order::Pyramid => 4,
        }
    }

    /// The place of the `n`th picture from a key frame on, behind `skips` pictures to which no other refers.
    pub fn place(self, n: u64, skips: u8) -> Place {
        if self == Order::Shown {
            return Place::default();
        }
        let depth = if self == Order::Plain { 1 } else { 2 };
        // How long after its turn in the coding order it is shown, at the least 0.
        let shown = match (self, n.checked_sub(1).map(|n| n % self.group())) {
            (_, None) => depth,
            (_, Some(0)) => depth + self.group() - 1,
            (Order::Pyramid, Some(1)) => 2,
            (Order::Pyramid, Some(3)) => 1,
            _ => 0,
        };
        let count = (2 * (n + shown - depth) % 64) as u8;
        Place { order: self, shown: shown as u8, skips, count }
    }
}

/// Where a picture stands among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// How pictures are coded. Sound says it, too.
    pub order: Order,
    /// How many pictures after its turn in the coding order it is shown.
    pub shown: u8,
    /// So many pictures right before it may be missing: no other refers to them.
    pub skips: u8,
    /// Six bits of its order count.
    pub count: u8,
}

impl Place {
    /// Whether it is a B picture.
    fn is_b(self, key: bool) -> bool {
        self.order != Order::Shown && !key && self.shown < 3
    }

    /// Whether no other refers to it.
    pub fn is_droppable(self, key: bool) -> bool {
        self.is_b(key) && !(self.order == Order::Pyramid && self.shown == 2)
    }

    fn coded(self) -> u32 {
        let Place { order, shown, skips, count } = self;
        order as u32 | u32::from(shown) << 2 | u32::from(skips) << 5 | u32::from(count) << 7
    }

    fn read(coded: u32) -> Place {
        let order = [Order::Shown, Order::Plain, Order::Pyramid][(coded & 3).min(2) as usize];
        let bits = |at: u32, n: u32| (coded >> at & ((1 << n) - 1)) as u8;
        Place { order, shown: bits(2, 3), skips: bits(5, 2), count: bits(7, 6) }
    }

    /// The header of the NAL unit, and of the slice in it (7.3.3), padded with ones to two bytes: first macroblock, slice type,
    /// parameter set, four bits of `frame_num`, `idr_pic_id` of a key frame, order count.
    fn head(self, key: bool) -> [u8; 3] {
        let count = u16::from(self.count);
        let (nal, bits, len) = match (key, self.is_b(key)) {
            (true, _) => (0x65, 0b10_1110_0001 << 6 | count, 16),
            (_, false) => (0x41, 0b111_0001 << 6 | count, 13),
            (_, true) if self.is_droppable(key) => (0x01, 0b1_0101_0001 << 6 | count, 15),
            (_, true) => (0x41, 0b1_0101_0001 << 6 | count, 15),
        };
        let [a, b] = (bits << (16 - len) | ((1 << (16 - len)) - 1)).to_be_bytes();
        [nal, a, b]
    }
}

/// The bits of a label that say how a frame is coded.
fn coded(key: bool, dress: u8, place: Place) -> u32 {
    u32::from(key) | u32::from(dress) << 1 | place.coded() << 3
}

/// What [`coded`] wrote.
fn uncoded(coded: u64) -> (bool, u8, Place) {
    (coded & 1 == 1, (coded >> 1 & 3) as u8, Place::read((coded >> 3) as u32))
}

/// What a frame says about itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The stream, `app/name`.
    pub stream: String,
    /// The publisher's session; each connection of each publisher has its own, and later ones are higher.
    pub session: u64,
    /// `v` or `a`.
    pub track: char,
    /// Counts from 0 in each track of a session.
    pub seq: u64,
    /// Whether it is a key frame (never for sound).
    pub key: bool,
    /// The parameter sets under which it is coded: see [`sets`].
    pub dress: u8,
    /// Where it stands.
    pub place: Place,
}

impl Label {
    /// The label in `len` bytes or a few more, none of them zero (so that no NAL unit needs emulation prevention),
    /// the hash of all of it last.
    pub fn write(&self, len: usize) -> Vec<u8> {
        let Label { stream, session, track, seq, key, dress, place } = self;
        let coded = coded(*key, *dress, *place);
        let mut out = format!("HW|{stream}|{session}|{track}|{seq}|{coded}|").into_bytes();
        let mut state = session.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seq;
        while out.len() + 16 < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out.push(0x80 | (state >> 57) as u8);
        }
        let hash = hash_of(&out);
        out.extend(format!("{hash:016x}").into_bytes());
        out
    }

    /// Reads a label and checks its hash.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Label, String> {
        let (body, hash) = bytes.split_at_checked(bytes.len().wrapping_sub(16)).ok_or("too short")?;
        if format!("{:016x}", hash_of(body)).as_bytes() != hash {
            return Err(format!("the hash of {} bytes is wrong", bytes.len()));
        }
        let mut parts = body.split(|b| *b == b'|').map(|p| String::from_utf8_lossy(p).into_owned());
        let mut next = || parts.next().ok_or("a part is missing");
        let number = |s: String| s.parse::<u64>().map_err(|e| format!("{s}: {e}"));
        if next()? != "HW" {
            return Err("not one of ours".to_owned());
        }
        let (stream, session) = (next()?, number(next()?)?);
        let (track, seq) = (next()?.chars().next().ok_or("no track")?, number(next()?)?);
        let (key, dress, place) = uncoded(number(next()?)?);
        Ok(Label { stream, session, track, seq, key, dress, place })
    }

    /// The frame that carries this label, `len` bytes or a few more, at `time` nanoseconds; with `sets` its parameter sets stand
    /// in front of it, in the band.
    pub fn frame(&self, len: usize, time: i64, with_sets: bool) -> Ingest {
        let label = self.write(len);
        let mut payload = BytesMut::new();
        if with_sets && self.track == 'v' {
            let (sps, pps) = sets(self.dress);
            for set in [&sps[..], &pps[..]] {
                payload.put_u32(set.len() as u32);
                payload.put_slice(set);
            }
        }
        let kind = match (self.track, self.key) {
            ('v', key) => {
                let head = self.head();
                payload.put_u32((head.len() + label.len()) as u32);
                payload.put_slice(&head);
                if key { FrameKind::Key } else { FrameKind::Delta }
            }
            _ => FrameKind::Audio,
        };
        payload.put_slice(&label);
        Ingest::Frame(NewFrame {
            track: if self.track == 'v' { TrackId::VIDEO } else { TrackId::AUDIO },
            dts: time,
            pts: time + i64::from(self.place.shown) * PICTURE,
            kind,
            discardable: self.place.is_droppable(self.key),
            temporal_layer: 0,
            rotation: Rotation::default(),
            capture: None,
            payload: payload.freeze(),
        })
    }
}

impl Label {
    /// The headers of its NAL unit and slice.
    fn head(&self) -> [u8; 3] {
        match (self.place.order, self.key) {
            // First macroblock 0, slice type 7 (I) or 5 (P), then bits without meaning.
            (Order::Shown, true) => [0x65, 0x88, 0x84],
            (Order::Shown, false) => [0x41, 0x9a, 0x84],
            _ => self.place.head(self.key),
        }
    }

    /// The slice that carries this label: a NAL unit with its header, `len` bytes or a few more.
    pub fn slice(&self, len: usize) -> Vec<u8> {
        let head = self.head();
        let mut out = head.to_vec();
        out.extend(self.write(len.saturating_sub(head.len())));
        out
    }

    /// The Opus packet that carries this label, `len` bytes or a few more. `toc`: see [`opus_toc`].
    pub fn opus(&self, len: usize, toc: u8) -> Vec<u8> {
        let mut out = vec![toc];
        out.extend(self.write(len.saturating_sub(1)));
        out
    }
}

/// The first byte of an Opus packet with one stereo frame of this duration (RFC 6716, 3.1): 10, 20, 40 or 60 ms.
pub fn opus_toc(duration: Duration) -> u8 {
    let config = match duration.as_millis() {
        10 => 30,
        40 => 10,
        60 => 11,
        _ => 31,
    };
    config << 3 | 4
}

/// The first byte of an Opus packet that a bridge of the world made of AAC: 20 ms, in another coding than any publisher's.
pub const MADE_OF_AAC: u8 = 15 << 3 | 4;

/// A label without its stream, which its reader knows. Reading it takes no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The publisher's session.
    pub session: u64,
    /// `v` or `a`.
    pub track: char,
    /// Counts from 0 in each track of a session.
    pub seq: u64,
    /// Whether it is a key frame.
    pub key: bool,
    /// The parameter sets under which it is coded: see [`sets`].
    pub dress: u8,
    /// Where it stands.
    pub place: Place,
}

impl Mark {
    /// Reads a label of `stream` and checks its hash.
    ///
    /// # Errors
    /// What is wrong with the bytes; also if they are of another stream.
    pub fn read(bytes: &[u8], stream: &str) -> Result<Mark, String> {
        let (body, hash) = bytes.split_at_checked(bytes.len().wrapping_sub(16)).ok_or("too short")?;
        let said = std::str::from_utf8(hash).ok().and_then(|h| u64::from_str_radix(h, 16).ok());
        if said != Some(hash_of(body)) {
            return Err(format!("the hash of {} bytes is wrong", bytes.len()));
        }
        let mut parts = body.splitn(7, |b| *b == b'|');
        let mut next = || parts.next().ok_or("a part is missing");
        let number = |part: &[u8]| {
            let text = std::str::from_utf8(part).map_err(|e| e.to_string())?;
            text.parse::<u64>().map_err(|e| format!("{text}: {e}"))
        };
        if next()? != b"HW" {
            return Err("not one of ours".to_owned());
        }
        let of = next()?;
        if of != stream.as_bytes() {
            return Err(format!("a frame of another stream: {}", String::from_utf8_lossy(of)));
        }
        let session = number(next()?)?;
        let track = next()?.first().copied().map(char::from).ok_or("no track")?;
        let (seq, (key, dress, place)) = (number(next()?)?, uncoded(number(next()?)?));
        Ok(Mark { session, track, seq, key, dress, place })
    }
}

/// What a publisher announces of a track, of its pictures under these parameter sets.
pub fn config(track: char, dress: u8) -> Ingest {
    if track != 'v' {
        let params = CodecParams::Aac { asc: Bytes::from_static(&ASC), rate: 48_000, channels: 2 };
        return Ingest::Config { track: TrackId::AUDIO, params };
    }
    let (sps, pps) = sets(dress);
    let [sps, pps] = [&sps[..], &pps[..]].map(|set| vec![Bytes::copy_from_slice(set)]);
    Ingest::Config { track: TrackId::VIDEO, params: h264_params(sps, pps) }
}

/// What an FLV video tag of a player holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Parameter sets (pictures) or AudioSpecificConfig (sound), and which.
    Config(u8),
    /// A frame.
    Frame(Label),
}

/// Reads the payload of an RTMP video message (FLV, E.4.3.1), without the code under test.
///
/// # Errors
/// What is wrong with it.
pub fn read_video(tag: &[u8]) -> Result<Tag, String> {
    let [kind, packet, _, _, _, rest @ ..] = tag else { return Err("a video tag is too short".to_owned()) };
    match (kind & 0x0f, packet) {
        (7, 0) => {
            let holds = |set: &[u8]| rest.windows(set.len()).any(|w| w == set);
            let dress = (0..DRESSES).find(|d| holds(&sets(*d).0) && holds(&sets(*d).1));
            dress.map(Tag::Config).ok_or_else(|| "other parameter sets".to_owned())
        }
        (7, 1) => {
            let (mut rest, mut label) = (rest, None);
            while let Some((size, tail)) = rest.split_first_chunk::<4>() {
                let size = u32::from_be_bytes(*size) as usize;
                let (nal, tail) = tail.split_at_checked(size).ok_or("a NAL unit is cut short")?;
                rest = tail;
                // Parameter sets may be repeated in front of a picture.
                if matches!(nal.first().map(|b| b & 0x1f), Some(1 | 5)) {
                    label = Some(Label::read(nal.get(3..).ok_or("a short slice")?)?);
                }
            }
            let label = label.ok_or("a picture without a slice")?;
            if label.key != (kind >> 4 == 1) {
                return Err(format!("{label:?} comes as frame type {}", kind >> 4));
            }
            Ok(Tag::Frame(label))
        }
        other => Err(format!("a video tag of kind {other:?}")),
    }
}

/// Reads the payload of an RTMP audio message (FLV, E.4.2.1).
///
/// # Errors
/// What is wrong with it.
pub fn read_audio(tag: &[u8]) -> Result<Tag, String> {
    match tag {
        [0xaf, 0, asc @ ..] if asc == ASC => Ok(Tag::Config(0)),
        [0xaf, 1, raw @ ..] => Ok(Tag::Frame(Label::read(raw)?)),
        other => Err(format!("an audio tag that begins {:?}", other.get(..2))),
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut h = DefaultHasher::new();
    h.write(bytes);
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::wire::h264_sps::inspect;

    #[test]
    fn labels_come_back_and_a_changed_byte_is_seen() {
        let place = Order::Pyramid.place(2, 2);
        let label =
            Label { stream: "live/a".into(), session: 7, track: 'v', seq: 12, key: true, dress: 2, place };
        let mut bytes = label.write(300);
        assert_eq!(Label::read(&bytes), Ok(label));
        assert!(bytes.len() >= 300 && bytes.iter().all(|b| *b != 0));
        bytes[40] ^= 1;
        assert!(Label::read(&bytes).is_err());
        assert!(Label::read(b"x").is_err());
    }

    #[test]
    fn a_mark_is_its_label_without_the_stream() {
        let place = Place::default();
        let label =
            Label { stream: "live/a".into(), session: 7, track: 'v', seq: 12, key: true, dress: 1, place };
        let slice = label.slice(900);
        assert_eq!((slice.len(), slice[0]), (900, 0x65));
        let mark = Mark { session: 7, track: 'v', seq: 12, key: true, dress: 1, place };
        assert_eq!(Mark::read(&slice[3..], "live/a"), Ok(mark));
        assert!(Mark::read(&slice[3..], "live/b").unwrap_err().contains("another stream"));
        let sound = Label { track: 'a', key: false, ..label }.opus(60, opus_toc(Duration::from_millis(20)));
        let parsed = proto_core::wire::opus::OpusPacket::parse(&sound).unwrap();
        assert_eq!((parsed.duration, parsed.stereo), (Duration::from_millis(20), true));
        assert!(Mark::read(&sound[1..], "live/a").is_ok());
        for at in 0..sound.len() - 1 {
            let mut damaged = sound[1..].to_vec();
            damaged[at] ^= 1;
            assert!(Mark::read(&damaged, "live/a").is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_parameter_sets_are_valid() {
        for (dress, height) in [(0, 192), (1, 208), (2, 192)] {
            let (sps, pps) = sets(dress);
            assert_eq!(dress_of(&sps, &pps), Some(dress));
            let sps = inspect(&sps).unwrap();
            assert_eq!((sps.width, sps.height, sps.profile, sps.pic_order_cnt_type), (320, height, 66, 2));
        }
        let (sps, pps) = sets(REORDERS);
        assert_eq!(dress_of(&sps, &pps), Some(REORDERS));
        let sps = inspect(&sps).unwrap();
        assert_eq!((sps.width, sps.height, sps.profile, sps.pic_order_cnt_type), (320, 192, 77, 0));
    }

    #[test]
    fn pictures_out_of_order_are_found_to_be_what_they_are() {
        use proto_core::media::picture_order::{OrderWatch, Reordering};
        for (order, found) in [
            (Order::Shown, Reordering::None),
            (Order::Plain, Reordering::Unreferenced),
            (Order::Pyramid, Reordering::Referenced),
        ] {
            let mut watch = OrderWatch::default();
            let dress = if order == Order::Shown { 0 } else { REORDERS };
            let Ingest::Config { params, .. } = config('v', dress) else { panic!("a configuration") };
            watch.configure(&params);
            let mut shown = Vec::new();
            let gop = 1 + 6 * order.group();
            for n in 0..2 * gop {
                let place = order.place(n % gop, 0);
                let key = n % gop == 0;
                let label =
                    Label { stream: "live/a".into(), session: 7, track: 'v', seq: n, key, dress, place };
                let slice = label.slice(100);
                assert!(slice.iter().all(|b| *b != 0), "no emulation prevention: {slice:x?}");
                let Ingest::Frame(frame) = label.frame(100, n as i64 * PICTURE, false) else {
                    panic!("a frame")
                };
                let late = watch.observe(&frame).late;
                assert_eq!(late != Reordering::None, place.is_b(key), "{n}: {late:?} {place:?}");
                assert!(late != Reordering::Unreferenced || place.is_droppable(key));
                shown.push(n + u64::from(place.shown));
            }
            assert_eq!(watch.found(), found);
            shown.sort_unstable();
            assert!(shown.windows(2).all(|w| w[0] + 1 == w[1]), "each at its own time: {shown:?}");
        }
    }
}
