//! FLV tag bodies and AudioSpecificConfig: no panic, and what has a form on the wire keeps its meaning.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto_core::wire::aac::AudioSpecificConfig;
use proto_core::wire::flv::{AudioTag, VideoTag, opus_head_channels};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Some(tag) = VideoTag::parse(&bytes)
        && let Some(out) = tag.emit()
    {
        assert_eq!(VideoTag::parse(&out), Some(tag));
    }
    if let Some(tag) = AudioTag::parse(&bytes)
        && let Some(out) = tag.emit()
    {
        assert_eq!(AudioTag::parse(&out), Some(tag));
    }
    let _ = (AudioSpecificConfig::parse(data), opus_head_channels(data));
});
