//! H.264 in RTP (RFC 6184, packetization mode 1), written anew for the clients: what the servers make and read is
//! checked by other code than theirs.

use crate::world::media::{dress_of, sets};

/// Bytes of one payload at most.
const PAYLOAD: usize = 1_100;

const IDR: u8 = 5;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Cuts one picture into payloads: a key frame's parameter sets in one STAP-A, then the slice as it is or in FU-A.
pub(in crate::world::actors) fn packetise(slice: &[u8], key: bool, dress: u8) -> Vec<Vec<u8>> {
    let mut out = Vec::with_capacity(slice.len() / PAYLOAD + 2);
    if key {
        let mut stap = vec![0x60 | STAP_A];
        let (sps, pps) = sets(dress);
        for set in [&sps[..], &pps[..]] {
            stap.extend((set.len() as u16).to_be_bytes());
            stap.extend(set);
        }
        out.push(stap);
    }
    match slice {
        [] => {}
        whole if whole.len() <= PAYLOAD => out.push(whole.to_vec()),
        [head, body @ ..] => {
            let pieces = body.len().div_ceil(PAYLOAD - 2);
            for (n, piece) in body.chunks(PAYLOAD - 2).enumerate() {
                let start = u8::from(n == 0) << 7;
                let end = u8::from(n + 1 == pieces) << 6;
                let mut payload = Vec::with_capacity(piece.len() + 2);
                payload.extend([head & 0xe0 | FU_A, start | end | head & 0x1f]);
                payload.extend(piece);
                out.push(payload);
            }
        }
    }
    out
}

/// A whole picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::world::actors) struct Picture {
    /// Whether its slice is of an IDR picture.
    pub(in crate::world::actors) key: bool,
    /// Which parameter sets stood in front of the slice; none, if they were not both there.
    pub(in crate::world::actors) sets: Option<u8>,
    /// The slice, with its NAL header.
    pub(in crate::world::actors) slice: Vec<u8>,
    /// RTP timestamp.
    pub(in crate::world::actors) stamp: u32,
    /// Every packet from the end of the picture before to its first one came.
    pub(in crate::world::actors) follows: bool,
}

#[derive(Debug, Default)]
struct Partial {
    picture: Picture,
    sps: Vec<u8>,
    pps: Vec<u8>,
    fragment: bool,
    damaged: Option<String>,
}

/// What became of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::world::actors) enum Read {
    /// More must come.
    More,
    /// A picture is whole.
    Whole(Picture),
    /// A picture ended that makes no sense; whether packets of it or just before it were lost.
    Broken {
        /// What is wrong.
        why: String,
        /// Packets were lost that may explain it.
        lost: bool,
    },
}

/// Puts pictures together from payloads in order of sequence number.
#[derive(Debug, Default)]
pub(in crate::world::actors) struct Depacketiser {
    open: Option<Partial>,
    /// Packets were lost since the last picture's end.
    lost: bool,
    /// The last packet ended a picture.
    ended: bool,
}

impl Depacketiser {
    /// Packets are missing before the next one.
    pub(in crate::world::actors) fn lost(&mut self) {
        self.lost = true;
        self.ended = false;
        if let Some(open) = &mut self.open {
            open.damaged = Some("packets of it are missing".to_owned());
        }
    }

    /// Takes the next payload.
    pub(in crate::world::actors) fn push(&mut self, payload: &[u8], stamp: u32, marker: bool) -> Read {
        let mut broken = None;
        if let Some(open) = self.open.as_ref().filter(|p| p.picture.stamp != stamp) {
            let why = open.damaged.clone().unwrap_or("a picture ended without the marker".to_owned());
            broken = Some(Read::Broken { why, lost: self.lost });
            // If packets were lost, they may have been of the new picture as well.
            self.open = None;
        }
        let (ended, lost) = (self.ended, self.lost);
        let open = self.open.get_or_insert_with(|| {
            let picture = Picture { stamp, follows: ended && !lost, ..Picture::default() };
            Partial { picture, ..Partial::default() }
        });
        if let Err(why) = open.unit(payload) {
            open.damaged.get_or_insert(why);
        }
        self.ended = marker;
        if !marker {
            return broken.unwrap_or(Read::More);
        }
        let Some(open) = self.open.take() else { return Read::More };
        let lost = std::mem::take(&mut self.lost);
        let wrong = match open.damaged {
            Some(why) => Some(why),
            None if open.fragment => Some("a slice without its end".to_owned()),
            None if open.picture.slice.is_empty() => Some("a picture without a slice".to_owned()),
            None => None,
        };
        match (broken, wrong) {
            (Some(broken), _) => broken,
            (None, Some(why)) => Read::Broken { why, lost },
            (None, None) => Read::Whole(open.picture),
        }
    }
}

impl Partial {
    fn unit(&mut self, payload: &[u8]) -> Result<(), String> {
        let [head, rest @ ..] = payload else { return Err("an empty payload".to_owned()) };
        if self.fragment && head & 0x1f != FU_A {
            return Err("a fragmented slice is interrupted".to_owned());
        }
        match (head & 0x1f, rest) {
            (1..=23, _) => self.nal(payload),
            (STAP_A, mut rest) => {
                while let Some((size, tail)) = rest.split_first_chunk::<2>() {
                    let size = usize::from(u16::from_be_bytes(*size));
                    let (nal, tail) = tail.split_at_checked(size).ok_or("a STAP-A is cut short")?;
                    self.nal(nal)?;
                    rest = tail;
                }
                if rest.is_empty() { Ok(()) } else { Err("a STAP-A has a rest".to_owned()) }
            }
            (FU_A, [bits, body @ ..]) => {
                let (start, end) = (bits & 0x80 != 0, bits & 0x40 != 0);
                match (start, self.fragment) {
                    (true, false) => self.nal(&[&[head & 0xe0 | bits & 0x1f], body].concat())?,
                    (false, true) => self.picture.slice.extend(body),
                    (true, true) => return Err("a fragmented slice begins twice".to_owned()),
                    (false, false) => return Err("a fragment without its beginning".to_owned()),
                }
                self.fragment = !end;
                Ok(())
            }
            (other, _) => Err(format!("a payload of type {other}")),
        }
    }

    fn nal(&mut self, nal: &[u8]) -> Result<(), String> {
        let before_slice = self.picture.slice.is_empty();
        match nal.first().map(|h| h & 0x1f) {
            Some(1 | IDR) if !before_slice => return Err("a second slice".to_owned()),
            Some(kind @ (1 | IDR)) => {
                self.picture.key = kind == IDR;
                self.picture.sets = dress_of(&self.sps, &self.pps);
                self.picture.slice = nal.to_vec();
            }
            Some(7) if before_slice => self.sps = nal.to_vec(),
            Some(8) if before_slice => self.pps = nal.to_vec(),
            Some(7 | 8) => return Err("parameter sets behind a slice".to_owned()),
            // Supplemental information and delimiters mean nothing here.
            Some(6 | 9) => {}
            other => return Err(format!("a NAL unit of type {other:?}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(key: bool, len: usize) -> Vec<u8> {
        let mut slice = vec![if key { 0x65 } else { 0x41 }];
        slice.extend((1..len).map(|n| 1 + (n % 200) as u8));
        slice
    }

    #[test]
    fn pictures_come_back_whole() {
        let mut d = Depacketiser::default();
        for (n, (key, len)) in [(true, 10_000), (false, 700), (true, 900), (false, 2_500)].iter().enumerate()
        {
            let sent = slice(*key, *len);
            let payloads = packetise(&sent, *key, 1);
            assert!(payloads.iter().all(|p| p.len() <= PAYLOAD));
            let mut reads: Vec<Read> = payloads
                .iter()
                .enumerate()
                .map(|(i, p)| d.push(p, n as u32 * 3_600, i + 1 == payloads.len()))
                .collect();
            let stamp = n as u32 * 3_600;
            let whole = Picture { key: *key, sets: key.then_some(1), slice: sent, stamp, follows: n > 0 };
            assert_eq!(reads.pop(), Some(Read::Whole(whole)));
            assert!(reads.iter().all(|r| *r == Read::More));
        }
    }

    #[test]
    fn what_is_lost_or_wrong_is_told_apart() {
        let payloads = packetise(&slice(true, 5_000), true, 0);
        for missing in 0..payloads.len() {
            let mut d = Depacketiser::default();
            d.push(&slice(false, 20), 1, true);
            let mut last = Read::More;
            for (n, p) in payloads.iter().enumerate() {
                match n == missing {
                    true => d.lost(),
                    false => last = d.push(p, 2, n + 1 == payloads.len()),
                }
            }
            match missing {
                // Only the sets are missing, and that may be a loss.
                0 => assert!(matches!(last, Read::Whole(Picture { sets: None, follows: false, .. }))),
                n if n + 1 == payloads.len() => {
                    assert_eq!(last, Read::More);
                    assert!(matches!(d.push(&slice(false, 20), 3, true), Read::Broken { lost: true, .. }));
                }
                _ => assert!(matches!(last, Read::Broken { lost: true, .. }), "{missing}: {last:?}"),
            }
        }
        let mut d = Depacketiser::default();
        d.push(&slice(false, 20), 1, true);
        assert!(matches!(d.push(&payloads[2], 2, true), Read::Broken { lost: false, .. }));
        assert_eq!(d.push(&slice(false, 20), 3, false), Read::More);
        assert!(matches!(d.push(&slice(false, 20), 4, true), Read::Broken { lost: false, .. }));
    }
}
