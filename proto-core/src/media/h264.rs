//! H.264 as the media model sees it: a track's parameters out of its parameter sets.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::track::CodecParams;
use crate::wire::h264::AvcConfig;
use crate::wire::h264_sps::inspect;
use bytes::Bytes;

/// The parameters of a track from its parameter sets (bare NAL units with header).
///
/// The size is that of the first sequence parameter set that can be read. `reorders` says what the sets announce;
/// whether pictures are really reordered is seen by [`super::picture_order::OrderWatch`].
pub fn h264_params(sps: Vec<Bytes>, pps: Vec<Bytes>) -> CodecParams {
    let info = sps.iter().find_map(|nal| inspect(nal));
    CodecParams::H264 {
        sps,
        pps,
        size: info.map(|i| (i.width, i.height)),
        reorders: info.is_some_and(|i| i.announces_reordering()),
    }
}

/// The parameters of a track from an AVCDecoderConfigurationRecord (ISO 14496-15, 5.2.4.1). `None` if it cannot be read.
pub fn h264_of_record(record: &[u8]) -> Option<CodecParams> {
    AvcConfig::parse(record).map(|AvcConfig { sps, pps, .. }| h264_params(sps, pps))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_sets_give_no_size_and_no_claim() {
        let params = h264_params(vec![Bytes::from_static(&[0x67])], vec![]);
        assert!(matches!(params, CodecParams::H264 { size: None, reorders: false, .. }));
    }
}
