//! Recordings: whatever the file holds, reading gives items or says what is wrong, however the bytes are cut; and what
//! was read is written back alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_core::io::Input;
use proto_core::recording::{Damage, End, Header, Item, Reader, Recorded, Writer};
use proto_core::time::Time;
use proto_core::trace::{Digest, xxh64};

/// The digest of all that was read, how many inputs that were, and what was wrong at last.
fn read(
    mut reader: Reader,
    file: &[u8],
    chunk: usize,
    mut see: impl FnMut(&Input<'_>, Time),
) -> (u64, usize, Option<Damage>) {
    let (mut digest, mut count) = (Digest::new(), 0);
    for piece in file.chunks(chunk) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(Item::Header(header))) => digest.str(&header.version),
                Ok(Some(Item::Checkpoint { digest: d, end })) => {
                    digest.u64(d);
                    digest.u64(end.map_or(0, |e| 1 + u64::from(e == End::Cut)));
                }
                Ok(Some(Item::Input { at, mark, input })) => {
                    count += 1;
                    digest.u64(at.as_nanos());
                    digest.u64(u64::from(mark));
                    let mut take = |input: &Input<'_>| {
                        input.digest(&mut digest);
                        see(input, at);
                    };
                    match input {
                        Recorded::HostAddresses(a) => take(&Input::HostAddresses(&a)),
                        Recorded::Received { conn, bytes } => take(&Input::Received { conn, bytes: &bytes }),
                        Recorded::Datagram { socket, local, remote, stride, bytes } => {
                            take(&Input::Datagram { socket, local, remote, stride, bytes: &bytes });
                        }
                        Recorded::Other(input) => take(&input),
                        Recorded::Returned { batch, refused } => {
                            digest.u64(batch);
                            digest.u64(refused as u64);
                        }
                    }
                }
                Ok(None) => break,
                Err(damage) => return (digest.value(), count, Some(damage)),
            }
        }
    }
    (digest.value(), count, None)
}

thread_local! {
    /// A recording that has its header: its writer, its reader, and the check of the header. Reading and writing the
    /// configuration takes longer than all else here.
    static BEGUN: (Writer, Reader, u64) = begun();
}

fn begun() -> (Writer, Reader, u64) {
    let (node_seed, crypto_seed) = ([1; 32], [2; 32]);
    let header = Header { version: String::new(), config: Default::default(), node_seed, crypto_seed };
    let mut writer = Writer::new(&header).expect("the default configuration can be written");
    let check = writer.ready()[26..34].try_into().expect("the check of the header");
    let mut reader = Reader::new();
    reader.push(writer.ready());
    assert!(matches!(reader.next(), Ok(Some(Item::Header(_)))));
    assert!(matches!(reader.next(), Ok(None)));
    writer.ready().clear();
    (writer, reader, u64::from_be_bytes(check))
}

fn fingerprint(input: &Input<'_>) -> u64 {
    let mut d = Digest::new();
    input.digest(&mut d);
    d.value()
}

fuzz_target!(|data: &[u8]| {
    let Some((&chunk, rest)) = data.split_first() else { return };
    let chunk = usize::from(chunk) + 1;
    let new = Reader::new;
    assert_eq!(read(new(), rest, chunk, |_, _| {}), read(new(), rest, usize::MAX, |_, _| {}));

    // The same bytes as a block with the right check, which no mutation would find.
    BEGUN.with(|(writer, reader, before)| {
        let mut writer = writer.clone();
        let mut block = (rest.len() as u32).to_be_bytes().to_vec();
        block.extend(xxh64(rest, *before).to_be_bytes());
        block.extend(rest);
        let (mut inputs, mut again) = (Vec::new(), Vec::new());
        let got = read(reader.clone(), &block, chunk, |input, at| {
            writer.input(input, at);
            inputs.push((at, fingerprint(input)));
        });
        assert_eq!(got, read(reader.clone(), &block, usize::MAX, |_, _| {}));
        writer.finish(End::Ended);
        let see = |input: &Input<'_>, at| again.push((at, fingerprint(input)));
        let (_, _, damage) = read(reader.clone(), writer.ready(), chunk, see);
        assert_eq!((damage, again), (None, inputs));
    });
});
