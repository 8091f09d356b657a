//! What stands in an H.264 sequence parameter set (ITU-T H.264, 7.3.2.1.1 and annex E), as far as this server asks.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::h264::NalType;
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, PicOrderCntType, SeqParameterSet};
use h264_reader::rbsp::{BitReader, ByteReader};

/// What a sequence parameter set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpsInfo {
    /// `seq_parameter_set_id`.
    pub id: u8,
    /// Width in pixels after cropping.
    pub width: u32,
    /// Height in pixels after cropping.
    pub height: u32,
    /// `profile_idc` (66 Baseline, 77 Main, 100 High, ...).
    pub profile: u8,
    /// `level_idc`: ten times the level (31 is level 3.1).
    pub level: u8,
    /// `pic_order_cnt_type`, 0 to 2. With 2, pictures are shown in the order in which they are coded (8.2.1.3).
    pub pic_order_cnt_type: u8,
    /// `max_num_reorder_frames` (E.2.1): pictures that may stand before another in coding order and after it in
    /// the order of showing. `None` if the set does not say.
    pub max_num_reorder_frames: Option<u32>,
    /// `log2_max_frame_num`: bits of a slice's `frame_num`.
    pub frame_num_bits: u8,
    /// `log2_max_pic_order_cnt_lsb`: bits of a slice's `pic_order_cnt_lsb`; 0 where slices have none.
    pub order_bits: u8,
    /// `frame_mbs_only_flag`: no picture is interlaced.
    pub frames_only: bool,
    /// `separate_colour_plane_flag`.
    pub separate_planes: bool,
    /// Colour at half the size both ways (4:2:0), eight bits a sample: what WebRTC decoders and encoders know.
    pub plain_colour: bool,
}

impl SpsInfo {
    /// Whether the set announces that pictures are shown out of coding order. `false` also where it says nothing:
    /// many encoders leave the bound out and never reorder.
    pub fn announces_reordering(&self) -> bool {
        self.may_reorder() && self.max_num_reorder_frames.is_some()
    }

    /// Whether pictures may be shown out of coding order at all.
    pub fn may_reorder(&self) -> bool {
        // Baseline has no B slices (A.2.1), and order count type 2 leaves no room for another order.
        self.profile != 66 && self.pic_order_cnt_type != 2 && self.max_num_reorder_frames != Some(0)
    }
}

/// Reads a sequence parameter set with its NAL header. `None` if it is of another NAL type, cut short, or breaks a
/// rule of the standard.
pub fn inspect(sps_nal: &[u8]) -> Option<SpsInfo> {
    if NalType::of(sps_nal) != NalType::SPS {
        return None;
    }
    let bits = BitReader::new(ByteReader::skipping_h264_header(sps_nal));
    let sps = SeqParameterSet::from_bits(bits).ok()?;
    let (width, height) = sps.pixel_dimensions().ok()?;
    let restrictions = sps.vui_parameters.as_ref().and_then(|v| v.bitstream_restrictions.as_ref());
    let chroma = &sps.chroma_info;
    Some(SpsInfo {
        id: sps.id().id(),
        width,
        height,
        profile: sps.profile_idc.into(),
        level: sps.level_idc,
        pic_order_cnt_type: match sps.pic_order_cnt {
            PicOrderCntType::TypeZero { .. } => 0,
            PicOrderCntType::TypeOne { .. } => 1,
            PicOrderCntType::TypeTwo => 2,
        },
        max_num_reorder_frames: restrictions.map(|r| r.max_num_reorder_frames),
        // Both are 16 at most (7.4.2.1.1); more is refused above.
        frame_num_bits: sps.log2_max_frame_num().min(16),
        order_bits: match sps.pic_order_cnt {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4: n } => n.min(12) + 4,
            _ => 0,
        },
        frames_only: matches!(sps.frame_mbs_flags, FrameMbsFlags::Frames),
        separate_planes: chroma.separate_colour_plane_flag,
        plain_colour: matches!(chroma.chroma_format, ChromaFormat::YUV420)
            && chroma.bit_depth_luma_minus8 == 0
            && chroma.bit_depth_chroma_minus8 == 0,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// x264, High, level 3.0, 640x360, two reordered pictures, BT.709 absent.
    const HIGH: &[u8] = &[
        0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01,
        0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2d, 0x96,
    ];
    /// Constrained Baseline, level 3.1, 1280x720, order count type 2, as browsers send it.
    const BASELINE: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe4];

    #[test]
    fn a_set_with_reordering_announces_it() {
        let info = inspect(HIGH).unwrap();
        assert_eq!((info.width, info.height, info.profile, info.level), (640, 360, 100, 30));
        assert_eq!(info.pic_order_cnt_type, 0);
        assert_eq!(info.max_num_reorder_frames, Some(2));
        assert!(info.announces_reordering());
    }

    #[test]
    fn every_cut_of_a_set_is_refused_or_read_without_harm() {
        assert!((0..HIGH.len()).all(|n| inspect(&HIGH[..n]).is_none()));
        assert_eq!(inspect(&[]), None);
        assert_eq!(inspect(&[0x68, 1, 2, 3]), None);
    }

    #[test]
    fn baseline_never_reorders() {
        let info = inspect(BASELINE).unwrap();
        assert_eq!((info.width, info.height, info.profile, info.level), (1280, 720, 66, 31));
        assert_eq!((info.pic_order_cnt_type, info.max_num_reorder_frames), (2, None));
        assert!(!info.announces_reordering());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut nal in prop::collection::vec(any::<u8>(), 0..200), flip in any::<(u8, u8)>()) {
            inspect(&nal);
            if let Some(first) = nal.first_mut() { *first = 0x67; }
            inspect(&nal);
            let mut near = HIGH.to_vec();
            let at = usize::from(flip.0) % near.len();
            near[at] ^= flip.1;
            inspect(&near);
        }
    }
}
