//! Headers and configuration records of all codecs: read or refused, never a panic; and a record that is written out of
//! what was read says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::aac::AudioSpecificConfig;
use proto_core::wire::h265::{HevcConfig, SpsInfo};
use proto_core::wire::latm::MuxConfig;
use proto_core::wire::mp3::Mp3Header;
use proto_core::wire::vp8::Vp8Frame;
use proto_core::wire::vp9::{self, Vp9Frame};
use proto_core::wire::{av1, h265};

fuzz_target!(|data: &[u8]| {
    if let Some(info) = SpsInfo::parse(&[&[0x42, 1], data].concat()) {
        assert!(info.width > 0 && info.height > 0 && (1..=7).contains(&info.temporal_layers));
    }
    if let Some(config) = HevcConfig::parse(data) {
        let record = HevcConfig::emit(&config.vps, &config.sps, &config.pps);
        assert_eq!(HevcConfig::parse(&record), Some(HevcConfig { length_size: 4, ..config }));
    }
    h265::temporal_layer(data);
    if let Some(Vp9Frame::Key { format, size }) = Vp9Frame::parse(data) {
        assert_eq!(vp9::parse_config(&vp9::emit_config(format, Some(size))), Some(format));
    }
    vp9::parse_config(data);
    assert!(Vp8Frame::parse(data).is_none_or(|f| f.key.is_none_or(|(w, h)| w > 0 && h > 0)));
    assert!(Mp3Header::parse(data).is_none_or(|h| h.bytes > 4));
    av1::SequenceHeader::parse(data);
    av1::UnitInfo::parse(data, false);
    if let Some(header) = av1::parse_config(data) {
        assert_eq!(av1::parse_config(&av1::emit_config(&header)).as_ref(), Some(&header));
    }
    if let Some(asc) = AudioSpecificConfig::parse(data)
        && asc.bits.is_some()
        && let Some(config) = MuxConfig::emit(data)
    {
        let read = MuxConfig::parse(&config).map(|c| AudioSpecificConfig::parse(&c.asc));
        assert_eq!(read, Some(Some(asc)));
    }
    MuxConfig::parse(data);
});
