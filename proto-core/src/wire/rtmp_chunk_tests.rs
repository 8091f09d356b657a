//! Tests of the chunk layer: round trips, re-chunking, peers' odd habits, and every limit.

use super::*;
use proptest::prelude::*;

fn message(csid: u32, timestamp: u32, kind: u8, stream: u32, payload: impl Into<Bytes>) -> Message {
    Message { csid, timestamp, kind, stream, payload: payload.into() }
}

fn wide() -> ChunkReader {
    let mut r = ChunkReader::new(&Limits::default());
    r.set_partial_cap(4 << 20);
    r
}

fn read_all(reader: &mut ChunkReader, bytes: &[u8]) -> Result<Vec<Message>, Reason> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while let Some(m) = reader.read(&mut rest)? {
        out.push(m);
    }
    assert!(rest.is_empty());
    Ok(out)
}

fn set_chunk_size(size: u32) -> Vec<u8> {
    render_message(&message(2, 0, kind::SET_CHUNK_SIZE, 0, size.to_be_bytes().to_vec()), 128).to_vec()
}

fn any_message() -> impl Strategy<Value = Message> {
    (
        prop_oneof![2u32..64, 64u32..320, 320u32..65_600],
        prop_oneof![any::<u32>(), 0u32..1000, 0xff_fff0u32..0x100_0010],
        7u8..23,
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..700),
    )
        .prop_map(|(csid, ts, kind, stream, payload)| message(csid, ts, kind, stream, payload))
}

proptest! {
    #[test]
    fn messages_round_trip_however_the_bytes_are_cut(
        messages in prop::collection::vec(any_message(), 1..20),
        size in 1u32..300,
        cuts in prop::collection::vec(1usize..40, 1..50),
    ) {
        let mut bytes = set_chunk_size(size);
        for m in &messages {
            bytes.extend_from_slice(&render_message(m, size));
        }
        prop_assert_eq!(read_all(&mut wide(), &bytes), Ok(messages.clone()));
        let mut reader = wide();
        let mut rest = &bytes[..];
        let mut seen = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            seen.extend(read_all(&mut reader, head).unwrap());
            rest = tail;
        }
        prop_assert_eq!(seen, messages);
        prop_assert_eq!(reader.partial_bytes(), 0);
    }

    #[test]
    fn garbage_gives_the_same_whole_or_byte_by_byte(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fn run(reader: &mut ChunkReader, mut bytes: &[u8], out: &mut Vec<Message>) -> Result<(), Reason> {
            while let Some(m) = reader.read(&mut bytes)? {
                out.push(m);
            }
            Ok(())
        }
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        let a = run(&mut wide(), &bytes, &mut whole);
        let mut reader = wide();
        let b = bytes.iter().try_for_each(|x| run(&mut reader, &[*x], &mut single));
        prop_assert_eq!(whole, single);
        prop_assert_eq!(a, b);
        prop_assert!(reader.partial_bytes() <= bytes.len());
    }
}

#[test]
fn interleaved_chunk_streams_do_not_mix() {
    let video = message(6, 40, kind::VIDEO, 1, vec![b'v'; 300]);
    let audio = message(4, 41, kind::AUDIO, 1, vec![b'a'; 200]);
    let v = render_message(&video, 128);
    let a = render_message(&audio, 128);
    // Headers of 12 and 1 bytes, chunks of 128.
    let mut bytes = v[..140].to_vec();
    bytes.extend_from_slice(&a[..140]);
    bytes.extend_from_slice(&v[140..269]);
    bytes.extend_from_slice(&a[140..]);
    bytes.extend_from_slice(&v[269..]);
    assert_eq!(read_all(&mut wide(), &bytes), Ok(vec![audio, video]));
}

#[test]
fn deltas_add_up_and_type_3_repeats_the_last_one() {
    let mut r = wide();
    let bytes = [
        &[6, 0, 0, 100, 0, 0, 1, 9, 1, 0, 0, 0, b'a'][..], // type 0 at 100
        &[0x46, 0, 0, 20, 0, 0, 2, 8, b'b', b'b'],         // type 1, +20, another length and type
        &[0x86, 0, 0, 5, b'c', b'c'],                      // type 2, +5
        &[0xc6, b'd', b'd'],                               // type 3, +5 again
    ]
    .concat();
    assert_eq!(
        read_all(&mut r, &bytes),
        Ok(vec![
            message(6, 100, 9, 1, &b"a"[..]),
            message(6, 120, 8, 1, &b"bb"[..]),
            message(6, 125, 8, 1, &b"cc"[..]),
            message(6, 130, 8, 1, &b"dd"[..]),
        ])
    );
    // After a type 0, a type 3 takes the timestamp itself for the delta (5.3.1.2.4).
    let bytes = [6, 0, 0, 100, 0, 0, 1, 9, 1, 0, 0, 0, b'a', 0xc6, b'b'];
    let times: Vec<u32> = read_all(&mut wide(), &bytes).unwrap().iter().map(|m| m.timestamp).collect();
    assert_eq!(times, [100, 200]);
}

#[test]
fn extended_timestamps_work_repeated_and_left_out() {
    let first = message(6, 0x0102_0304, kind::VIDEO, 1, vec![7; 300]);
    let second = message(6, 0x0102_0405, kind::VIDEO, 1, vec![8; 290]);
    let mut repeated = BytesMut::new();
    let mut left_out = BytesMut::new();
    for m in [&first, &second] {
        let bytes = render_message(m, 128);
        repeated.extend_from_slice(&bytes);
        // Header 12 + 4, then per type 3 chunk one byte of header and 4 of extended timestamp.
        left_out.extend_from_slice(&bytes[..145]);
        left_out.extend_from_slice(&bytes[149..149 + 129]);
        left_out.extend_from_slice(&bytes[149 + 129 + 4..]);
    }
    let both = Ok(vec![first, second]);
    assert_eq!(read_all(&mut wide(), &repeated), both);
    assert_eq!(read_all(&mut wide(), &left_out), both);
    // Byte by byte, no message may be late: the last one is whole with its last byte.
    let mut r = wide();
    let mut seen = Vec::new();
    for b in &left_out {
        seen.extend(read_all(&mut r, &[*b]).unwrap());
    }
    assert_eq!(Ok(seen), both);
}

#[test]
fn an_absolute_time_in_the_extended_field_of_type_3_is_taken_too() {
    // Type 1 with an extended delta; the continuation repeats the message's time instead of the delta.
    let mut bytes = render_message(&message(6, 1000, kind::VIDEO, 1, &b"x"[..]), 128).to_vec();
    bytes.extend_from_slice(&[0x46, 0xff, 0xff, 0xff, 0, 0, 130, 9, 1, 0, 0, 0]);
    bytes.extend_from_slice(&[5; 128]);
    bytes.push(0xc6);
    bytes.extend_from_slice(&(0x0100_0000u32 + 1000).to_be_bytes());
    bytes.extend_from_slice(&[5; 2]);
    let seen = read_all(&mut wide(), &bytes).unwrap();
    assert_eq!(seen[1], message(6, 0x0100_0000 + 1000, kind::VIDEO, 1, vec![5; 130]));
}

#[test]
fn chunk_sizes_out_of_range_end_the_connection() {
    for size in [0, 0x8000_0000, u32::MAX] {
        assert_eq!(read_all(&mut wide(), &set_chunk_size(size)).unwrap_err().code, "rtmp_chunk_size");
    }
    let mut bytes = set_chunk_size(0x7fff_ffff);
    let big = message(6, 1, kind::VIDEO, 1, vec![1; 100_000]);
    bytes.extend_from_slice(&render_message(&big, 0x7fff_ffff));
    assert_eq!(read_all(&mut wide(), &bytes), Ok(vec![big]));
}

#[test]
fn a_new_header_inside_a_message_is_a_protocol_error() {
    for head in [&[6, 0, 0, 1, 0, 1, 0, 9, 1, 0, 0, 0][..], &[0x46, 0, 0, 1, 0, 1, 0, 9], &[0x86, 0, 0, 1]] {
        let mut bytes = render_message(&message(6, 0, kind::VIDEO, 1, vec![0; 200]), 128)[..140].to_vec();
        bytes.extend_from_slice(head);
        let mut r = wide();
        assert_eq!(read_all(&mut r, &bytes).unwrap_err().code, "rtmp_chunk");
        assert_eq!(read_all(&mut r, &[0]).unwrap_err().code, "rtmp_chunk", "it stays broken");
    }
}

#[test]
fn abort_frees_what_was_held_and_the_stream_goes_on() {
    let mut r = wide();
    let partial = &render_message(&message(6, 0, kind::VIDEO, 1, vec![0; 200]), 128)[..140];
    assert_eq!(read_all(&mut r, partial), Ok(vec![]));
    assert_eq!(r.partial_bytes(), 128);
    let abort = render_message(&message(2, 0, kind::ABORT, 0, 6u32.to_be_bytes().to_vec()), 128);
    assert_eq!(read_all(&mut r, &abort), Ok(vec![]));
    assert_eq!(r.partial_bytes(), 0);
    let next = message(6, 40, kind::VIDEO, 1, vec![2; 200]);
    assert_eq!(read_all(&mut r, &render_message(&next, 128)), Ok(vec![next]));
}

#[test]
fn a_chunk_that_refers_to_nothing_is_refused_but_type_1_may_begin() {
    assert_eq!(read_all(&mut wide(), &[0x86, 0, 0, 1]).unwrap_err().code, "rtmp_chunk");
    assert_eq!(read_all(&mut wide(), &[0xc6]).unwrap_err().code, "rtmp_chunk");
    let bytes = [0x42, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 9];
    assert_eq!(read_all(&mut wide(), &bytes), Ok(vec![message(2, 0, 5, 0, &[0, 0, 0, 9][..])]));
}

#[test]
fn chunk_streams_partial_messages_and_their_bytes_are_bounded() {
    let limits = Limits::default();
    let mut r = wide();
    for csid in 0..limits.rtmp_chunk_streams as u32 {
        let bytes = render_message(&message(csid + 2, 0, kind::AUDIO, 1, &b"x"[..]), 128);
        assert_eq!(read_all(&mut r, &bytes).map(|m| m.len()), Ok(1));
    }
    let one_more = render_message(&message(999, 0, kind::AUDIO, 1, &b"x"[..]), 128);
    assert_eq!(read_all(&mut r, &one_more).unwrap_err().code, "rtmp_chunk_streams");

    let mut r = wide();
    let begun = |csid| render_message(&message(csid, 0, kind::AUDIO, 1, vec![0; 200]), 128).slice(..140);
    for csid in 0..limits.rtmp_partial_messages as u32 {
        assert_eq!(read_all(&mut r, &begun(csid + 2)), Ok(vec![]));
    }
    assert_eq!(read_all(&mut r, &begun(60)).unwrap_err().code, "rtmp_partial_messages");

    // Before publishing is accepted one message may be announced with 24 KiB, and all of them may hold that much.
    let mut r = ChunkReader::new(&limits);
    let too_large = render_message(&message(6, 0, kind::VIDEO, 1, vec![0; (24 << 10) + 1]), 128);
    assert_eq!(read_all(&mut r, &too_large).unwrap_err().code, "rtmp_message_size");
    let mut r = ChunkReader::new(&limits);
    let most = |csid| {
        let bytes = render_message(&message(csid, 0, kind::VIDEO, 1, vec![0; 20 << 10]), 1 << 20);
        bytes.slice(..bytes.len() - 1)
    };
    read_all(&mut r, &set_chunk_size(1 << 20)).unwrap();
    // Chunks cannot interleave inside one, so the second message is reached with smaller ones.
    let first = render_message(&message(6, 0, kind::VIDEO, 1, vec![0; 20 << 10]), 20 << 9);
    read_all(&mut r, &set_chunk_size(20 << 9)).unwrap();
    read_all(&mut r, &first.slice(..12 + (20 << 9))).unwrap();
    assert_eq!(r.partial_bytes(), 20 << 9);
    read_all(&mut r, &set_chunk_size(1 << 20)).unwrap();
    assert_eq!(read_all(&mut r, &most(7)).unwrap_err().code, "rtmp_partial_bytes");
}

#[test]
fn a_shared_rendering_depends_on_nothing_before_it() {
    let m = message(6, 0x0200_0000, kind::VIDEO, 1, vec![3; 1000]);
    let rendered = render_message(&m, 300);
    let mut bytes = set_chunk_size(300);
    bytes.extend_from_slice(&render_message(&message(6, 5, kind::VIDEO, 1, &b"zz"[..]), 300));
    bytes.extend_from_slice(&rendered);
    assert_eq!(read_all(&mut wide(), &bytes).unwrap().last(), Some(&m));
    assert_eq!(read_all(&mut wide(), &[set_chunk_size(300), rendered.to_vec()].concat()), Ok(vec![m]));
}
