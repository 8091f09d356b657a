//! A bridge of pictures of a world: labels in the wrapping of pictures, in whatever order they were coded, come out in the order of
//! showing, as pictures that no B picture is among. A player can check them as it checks all else.

use super::media::{Label, Place, sets};
use bytes::{BufMut, Bytes, BytesMut};
use proto_core::bridge::{Bridged, Made, Packet};
use proto_core::wire::h264::{AvcConfig, length_prefixed};
use std::collections::BTreeMap;

/// Pictures that may have to be held until one comes that is shown before them: what the parameter sets of
/// [`REORDERS`](super::media::REORDERS) need.
const HELD: usize = 2;

/// One bridge.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// What is held, by the time of showing.
    held: BTreeMap<i64, (Label, usize)>,
    /// Something came out.
    begun: bool,
    /// The next one that comes out is to be a key frame.
    wants_key: bool,
}

/// The label in a picture, and how many bytes its slice has.
fn label_of(data: &[u8]) -> Option<(Label, usize)> {
    let slices = length_prefixed(data, 4).map_while(Result::ok);
    let slice = slices.filter(|nal| nal.first().is_some_and(|b| matches!(b & 0x1f, 1 | 5))).last()?;
    Some((Label::read(slice.get(3..)?).ok()?, slice.len()))
}

impl Pictures {
    /// The next one that comes out is a key frame.
    pub(super) fn key_frame(&mut self) {
        self.wants_key = true;
    }

    /// Takes pictures in the order of coding.
    pub(super) fn convert(&mut self, packets: &[Packet]) -> Bridged {
        let mut done = Bridged::default();
        for packet in packets {
            match label_of(&packet.data) {
                Some(label) => drop(self.held.insert(packet.pts, label)),
                None => done.undecodable += 1,
            }
            while self.held.len() > HELD
                && let Some((pts, (label, len))) = self.held.pop_first()
            {
                done.packets.push(Packet { pts, data: self.picture(label, len) });
            }
        }
        if !done.packets.is_empty() && !std::mem::replace(&mut self.begun, true) {
            let (sps, pps) = sets(0);
            let [sps, pps] = [&sps[..], &pps[..]].map(|set| [Bytes::copy_from_slice(set)]);
            done.made = Some(Made { config: AvcConfig::emit(&sps, &pps), rate: 0, channels: 0 });
        }
        done
    }

    /// Numbered in the order of showing, so that what number and place say of its time stays what it was.
    fn picture(&mut self, label: Label, len: usize) -> Bytes {
        let key = std::mem::take(&mut self.wants_key) || !self.begun || label.key;
        let seq = label.seq + u64::from(label.place.shown);
        let made = Label { seq, key, dress: 0, place: Place::default(), ..label };
        let slice = made.slice(len);
        let mut data = BytesMut::with_capacity(4 + slice.len());
        data.put_u32(slice.len() as u32);
        data.put_slice(&slice);
        data.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::media::{Order, PICTURE, REORDERS};
    use proto_core::media::frame::Ingest;

    #[test]
    fn pictures_come_out_in_the_order_of_showing_each_once() {
        let mut bridge = Pictures::default();
        let mut out = Vec::new();
        for n in 0..50 {
            let key = n % 25 == 0;
            let place = Order::Pyramid.place(n % 25, 0);
            let stream = "live/a".to_owned();
            let label = Label { stream, session: 7, track: 'v', seq: n, key, dress: REORDERS, place };
            let Ingest::Frame(frame) = label.frame(300, n as i64 * PICTURE, key) else { panic!("a frame") };
            if n == 30 {
                bridge.key_frame();
            }
            out.extend(bridge.convert(&[Packet { pts: frame.pts, data: frame.payload }]).packets);
        }
        let labels: Vec<Label> = out.iter().map(|p| label_of(&p.data).unwrap().0).collect();
        let numbers: Vec<u64> = labels.iter().map(|l| l.seq).collect();
        assert_eq!(numbers, (2..50).collect::<Vec<u64>>());
        assert!(out.iter().zip(&numbers).all(|(p, n)| p.pts == *n as i64 * PICTURE));
        let keys: Vec<u64> = labels.iter().filter(|l| l.key).map(|l| l.seq).collect();
        assert_eq!(keys, [2, 27, 30]);
    }
}
