//! Decoding of H.265: pictures come out in the order in which they are shown, with the times that went in.

use crate::order::Picture;
use bytes::Bytes;
use proto_core::bridge::Packet;
use proto_core::wire::h265::NalType;
use proto_core::wire::{h264::length_prefixed, h265};
use rusty_h264_common::YuvFrame;
use rusty_h265::{Decoder, Plane};
use std::collections::VecDeque;

/// Key frames of which the picture has not come out yet; a decoder holds 16 pictures back at most (ITU-T H.265, A.4).
const MOST_KEYS: usize = 16;
/// The end of a sequence as a NAL unit: what follows begins anew, and pictures that refer back are left out.
const END: [u8; 2] = [36 << 1, 1];

pub(crate) struct H265 {
    decoder: Decoder,
    sets: Vec<Bytes>,
    keys: VecDeque<i64>,
}

impl H265 {
    pub(crate) fn new(sets: Vec<Bytes>) -> H265 {
        H265 { decoder: Decoder::new(), sets, keys: VecDeque::new() }
    }

    /// Whether a decoder can begin with a unit.
    pub(crate) fn is_key(unit: &Packet) -> bool {
        length_prefixed(&unit.data, 4).map_while(Result::ok).any(|n| NalType::of(n).is_random_access())
    }

    /// Takes an access unit, and gives the pictures whose time has come. `anew`: what came before was damaged.
    ///
    /// # Errors
    /// It cannot be decoded, in words.
    pub(crate) fn decode(
        &mut self,
        unit: &Packet,
        (key, anew): (bool, bool),
        shown: &mut Vec<Picture>,
    ) -> Result<(), String> {
        if key {
            if anew {
                self.push(&END, None)?;
            }
            for set in &self.sets {
                self.decoder.push_nal(set, None).map_err(|e| format!("{e:?}"))?;
            }
            if self.keys.len() == MOST_KEYS {
                self.keys.pop_front();
            }
            self.keys.push_back(unit.pts);
        }
        let mut pts = Some(unit.pts);
        for nal in length_prefixed(&unit.data, 4).map_while(Result::ok).filter(|n| n.len() > 2) {
            let first = h265::begins_picture(nal);
            self.push(nal, if first { pts.take() } else { None })?;
        }
        if pts.is_some() {
            return Err("it has no picture".to_owned());
        }
        while let Ok(frame) = self.decoder.next_frame() {
            let Some(pts) = frame.pts else { continue };
            let key = self.keys.iter().position(|k| *k == pts).map(|at| self.keys.remove(at)).is_some();
            let picture = &frame.picture;
            if picture.chroma_format_idc != 1 {
                return Err("it is not 4:2:0 (ffmpeg: -pix_fmt yuv420p)".to_owned());
            }
            let (left, top, width, height) = picture.crop;
            let cut = |plane: &Plane, part: usize, depth: u8| {
                let (x, y) = (left / part, top / part);
                let (w, h) = (width.div_ceil(part), height.div_ceil(part));
                let shift = depth.saturating_sub(8);
                let mut out = Vec::with_capacity(w * h);
                for row in y..y + h {
                    let row = plane.data.get(row * plane.stride + x..).unwrap_or_default();
                    out.extend(row.iter().take(w).map(|s| (s >> shift) as u8));
                }
                out.resize(w * h, 0);
                out
            };
            let [y, u, v] = &picture.planes;
            let frame = YuvFrame {
                width,
                height,
                y: cut(y, 1, picture.bit_depth_luma),
                u: cut(u, 2, picture.bit_depth_chroma),
                v: cut(v, 2, picture.bit_depth_chroma),
            };
            shown.push(Picture { pts, key, frame });
        }
        Ok(())
    }

    fn push(&mut self, nal: &[u8], pts: Option<i64>) -> Result<(), String> {
        self.decoder.push_nal(nal, pts).map_err(|e| format!("{e:?}"))
    }
}
