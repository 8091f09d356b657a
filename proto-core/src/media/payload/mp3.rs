//! MPEG audio (RFC 2250, 3.5): a header of four bytes, then whole frames or a piece of one.

use super::{DepayDrops, Unit, sound};
use crate::media::track::CodecParams;
use crate::wire::mp3::Mp3Header;
use bytes::{BufMut, Bytes, BytesMut};

pub(super) fn packetise(frame: &[u8], most: usize) -> Vec<Bytes> {
    let room = most - 4;
    let payload = |(i, piece): (usize, &[u8])| {
        let mut out = BytesMut::with_capacity(4 + piece.len());
        out.put_u16(0);
        out.put_u16((i * room) as u16);
        out.put_slice(piece);
        out.freeze()
    };
    frame.chunks(room).enumerate().map(payload).collect()
}

#[derive(Debug)]
pub(super) struct Mp3Depay {
    most_bytes: usize,
    /// Timestamp and what is there of a frame that comes in pieces.
    fragment: Option<(u32, BytesMut)>,
    known: Option<(u32, u8)>,
    drops: DepayDrops,
}

impl Mp3Depay {
    pub(super) fn new(most_bytes: usize) -> Mp3Depay {
        Mp3Depay { most_bytes, fragment: None, known: None, drops: DepayDrops::default() }
    }

    pub(super) fn lost(&mut self) {
        if self.fragment.take().is_some() {
            self.drops.damaged += 1;
        }
    }

    pub(super) fn drops(&self) -> DepayDrops {
        self.drops
    }

    pub(super) fn push(&mut self, payload: &[u8], timestamp: u32, _marker: bool, emit: &mut dyn FnMut(Unit)) {
        let Some((&[_, _, o0, o1], data)) = payload.split_first_chunk::<4>() else {
            self.drops.damaged += u64::from(!payload.is_empty());
            return;
        };
        let offset = usize::from(u16::from_be_bytes([o0, o1]));
        if self.fragments(offset, data, timestamp, emit).is_none() {
            self.drops.damaged += 1;
            self.fragment = None;
        }
    }

    fn fragments(
        &mut self,
        offset: usize,
        data: &[u8],
        timestamp: u32,
        emit: &mut dyn FnMut(Unit),
    ) -> Option<()> {
        if offset > 0 {
            let (at, held) =
                self.fragment.as_mut().filter(|(at, h)| *at == timestamp && h.len() == offset)?;
            let at = *at;
            held.extend_from_slice(data);
            let header = Mp3Header::parse(held)?;
            if held.len() < header.bytes {
                return Some(());
            }
            let whole = self.fragment.take()?.1;
            return (whole.len() == header.bytes).then(|| self.frame(&header, at, whole.freeze(), emit));
        }
        if self.fragment.take().is_some() {
            self.drops.damaged += 1;
        }
        let (mut rest, mut at) = (data, timestamp);
        while !rest.is_empty() {
            let header = Mp3Header::parse(rest).filter(|h| h.layer == 3)?;
            let Some((frame, tail)) = rest.split_at_checked(header.bytes) else {
                if rest.len() < data.len() || header.bytes > self.most_bytes {
                    // Only a frame that is alone in its packet may go on in the next.
                    return None;
                }
                self.fragment = Some((at, BytesMut::from(rest)));
                return Some(());
            };
            rest = tail;
            self.frame(&header, at, Bytes::copy_from_slice(frame), emit);
            at = at.wrapping_add((u64::from(header.samples) * 90_000 / u64::from(header.rate)) as u32);
        }
        Some(())
    }

    fn frame(&mut self, header: &Mp3Header, at: u32, frame: Bytes, emit: &mut dyn FnMut(Unit)) {
        let now = (header.rate, header.channels);
        let (rate, channels) = now;
        let params = (self.known.replace(now) != Some(now)).then_some(CodecParams::Mp3 { rate, channels });
        emit(sound(at, frame, params));
    }
}
