//! Transport headers and URLs by themselves: nothing panics, and what is written is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::rtsp::transport::Transport;
use proto_core::wire::rtsp::url::Url;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Url::parse(text);
    let all = Transport::parse_all(text);
    assert!(all.len() <= 16);
    for t in all {
        assert_eq!(Transport::parse_all(&t.to_string()), [t]);
    }
});
