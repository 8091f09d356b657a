//! The encoder: Constrained Baseline, one picture in, one out.

use crate::bridge::record;
use bytes::{Bytes, BytesMut};
use openh264::encoder::{
    BitRate, Complexity, EncoderConfig, FrameRate, IntraFramePeriod, Profile, RateControlMode, UsageType,
};
use openh264::formats::YUVSlices;
use openh264::{OpenH264API, Timestamp};
use proto_core::wire::h264::{NalType, annex_b, put_nal};
use rusty_h264_common::YuvFrame;

/// A coded picture.
pub(crate) struct Coded {
    pub(crate) key: bool,
    /// The decoder configuration, where it is another than before.
    pub(crate) config: Option<Bytes>,
    /// NAL units with lengths, without parameter sets.
    pub(crate) data: Bytes,
}

pub(crate) struct Encoder {
    inner: openh264::encoder::Encoder,
    size: (usize, usize),
    bits: u32,
    config: Bytes,
}

impl Encoder {
    /// An encoder for pictures of a size, which aims at so many bits a second with so many pictures.
    ///
    /// # Errors
    /// In words, if there is none for such pictures.
    pub(crate) fn open(width: usize, height: usize, bits: u32, pictures: f32) -> Result<Encoder, String> {
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(bits))
            .max_frame_rate(FrameRate::from_hz(pictures.clamp(1.0, 60.0)))
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bitrate)
            .profile(Profile::Baseline)
            .complexity(Complexity::Low)
            .intra_frame_period(IntraFramePeriod::auto())
            .scene_change_detect(false)
            // Coarser for a moment is better than a picture that is missing.
            .skip_frames(false)
            // Its slices, and so its bytes, would depend on the machine.
            .num_threads(1);
        let inner = openh264::encoder::Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|e| format!("no encoder for {width}x{height}: {e}"))?;
        Ok(Encoder { inner, size: (width, height), bits, config: Bytes::new() })
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Whether another bit rate is wanted by a quarter or more.
    pub(crate) fn is_far_from(&self, bits: u32) -> bool {
        self.bits.abs_diff(bits) > self.bits / 4
    }

    /// Codes a picture. `None`: it was left out to keep the bit rate.
    pub(crate) fn encode(&mut self, frame: &YuvFrame, pts: i64, key: bool) -> Result<Option<Coded>, String> {
        let (width, height) = self.size;
        let planes = (&frame.y[..], &frame.u[..], &frame.v[..]);
        let half = width.div_ceil(2);
        let source = YUVSlices::new(planes, (width, height), (width, half, half));
        if key {
            self.inner.force_intra_frame();
        }
        let at = Timestamp::from_millis(u64::try_from(pts / 1_000_000).unwrap_or(0));
        let coded =
            self.inner.encode_at(&source, at).map_err(|e| format!("the encoder refused a picture: {e}"))?;
        let bytes = coded.to_vec();
        let (mut sps, mut pps, mut data, mut is_key) = (Vec::new(), Vec::new(), BytesMut::new(), false);
        for nal in annex_b(&bytes) {
            match NalType::of(nal) {
                NalType::SPS => sps.push(Bytes::copy_from_slice(nal)),
                NalType::PPS => pps.push(Bytes::copy_from_slice(nal)),
                NalType::AUD | NalType::FILLER => {}
                kind => {
                    is_key |= kind == NalType::IDR;
                    put_nal(&mut data, nal);
                }
            }
        }
        if data.is_empty() {
            return Ok(None);
        }
        let mut news = None;
        if !sps.is_empty() && !pps.is_empty() {
            let config = record(&sps, &pps);
            if config != self.config {
                self.config = config.clone();
                news = Some(config);
            }
        }
        Ok(Some(Coded { key: is_key, config: news, data: data.freeze() }))
    }
}
