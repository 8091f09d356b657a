//! Messages, interleaved packets, Transport headers and URLs: nothing panics, a cut changes nothing, little is held, and
//! what is written is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::wire::rtsp::transport::Transport;
use proto_core::wire::rtsp::url::Url;
use proto_core::wire::rtsp::{Caps, Item, Reader};

fn read_all(data: &[u8], step: usize) -> (Vec<Item>, bool) {
    let mut reader = Reader::new(Caps { line: 8 << 10, headers: 64, head: 16 << 10, message: 16 << 10 });
    (0..200).for_each(|c| reader.set_channel(c, true));
    let mut out = Vec::new();
    for mut piece in data.chunks(step) {
        loop {
            match reader.read(&mut piece) {
                Ok(Some(item)) => out.push(item),
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
        assert!(piece.is_empty() && reader.held() <= 64 << 10);
    }
    (out, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else { return };
    let whole = read_all(data, usize::MAX);
    assert_eq!(whole, read_all(data, usize::from(step).max(1)));
    for item in &whole.0 {
        let Item::Request(request) = item else { continue };
        let _ = Url::parse(&request.url);
        for header in request.headers.all("Transport") {
            for t in Transport::parse_all(header) {
                assert_eq!(Transport::parse_all(&t.to_string()), [t]);
            }
        }
    }
});
