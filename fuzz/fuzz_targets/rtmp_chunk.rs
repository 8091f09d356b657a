//! Chunk streams: whole and in pieces the same comes out, and no more is held than was sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::limits::Limits;
use proto_core::wire::rtmp_chunk::ChunkReader;
use proto_core::wire::rtmp_message::{Message, split_aggregate};

fn read(reader: &mut ChunkReader, mut bytes: &[u8], out: &mut Vec<Message>) -> bool {
    loop {
        match reader.read(&mut bytes) {
            Ok(Some(m)) => out.push(m),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let limits = Limits::default();
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let mut reader = ChunkReader::new(&limits);
    let fine = read(&mut reader, data, &mut whole);
    assert!(reader.partial_bytes() <= data.len());
    let mut reader = ChunkReader::new(&limits);
    let also = data.chunks(usize::from(cut).max(1)).all(|c| read(&mut reader, c, &mut pieces));
    assert_eq!((fine, &whole), (also, &pieces));
    for m in &whole {
        assert!(split_aggregate(m).map(|m| m.payload.len()).sum::<usize>() <= m.payload.len());
    }
});
