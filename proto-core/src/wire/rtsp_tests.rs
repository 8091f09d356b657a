use super::*;
use proptest::prelude::*;

const CAPS: Caps = Caps { line: 256, headers: 8, head: 1024, message: 2048 };

fn all_of(reader: &mut Reader, mut input: &[u8]) -> Result<Vec<Item>, Bad> {
    let mut out = Vec::new();
    while let Some(item) = reader.read(&mut input)? {
        out.push(item);
    }
    assert!(input.is_empty(), "the reader left {} bytes", input.len());
    Ok(out)
}

fn one(text: &[u8]) -> Result<Item, Bad> {
    all_of(&mut Reader::new(CAPS), text).map(|mut items| items.remove(0))
}

#[test]
fn a_request_of_a_phone_is_read_as_it_comes() {
    let text =
        b"\r\nSETUP rtsp://h:8554/live/s/audio RTSP/1.0\nCSeq:3\r\nBlocksize : 4096\r\nSession: x \r\n\r\n";
    let Ok(Item::Request(r)) = one(text) else { panic!() };
    assert_eq!((r.method.as_str(), r.url.as_str()), ("SETUP", "rtsp://h:8554/live/s/audio"));
    assert_eq!(r.headers.get("cseq"), Some("3"));
    assert_eq!(r.headers.get("Blocksize"), Some("4096"));
    assert_eq!(r.headers.get("session"), Some("x"));
}

#[test]
fn bodies_responses_and_packets_follow_each_other() {
    let mut r = Reader::new(CAPS);
    r.set_channel(200, true);
    let text = b"ANNOUNCE * RTSP/1.0\r\nContent-Length: 3\r\n\r\nv=0$\xc8\0\x02ab$\x07\0\x01zRTSP/1.0 200 OK\r\n\r\n$\xc8\0\0";
    let items = all_of(&mut r, text).unwrap();
    assert!(matches!(&items[0], Item::Request(r) if &r.body[..] == b"v=0"));
    assert_eq!(items[1], Item::Frame { channel: 200, payload: Bytes::from_static(b"ab") });
    assert_eq!(items[2], Item::Stray { channel: 7 });
    assert!(matches!(&items[3], Item::Response(r) if r.status == 200 && r.phrase == "OK"));
    assert_eq!(items[4], Item::Frame { channel: 200, payload: Bytes::new() });
    assert_eq!(r.held(), 0);
}

#[test]
fn what_is_dangerous_is_refused_with_a_word() {
    let long = format!("OPTIONS rtsp://{} RTSP/1.0\r\n\r\n", "x".repeat(300));
    let many = format!("OPTIONS * RTSP/1.0\r\n{}\r\n", "a: b\r\n".repeat(9));
    let large = format!("OPTIONS * RTSP/1.0\r\n{}\r\n", format!("a: {}\r\n", "b".repeat(200)).repeat(7));
    for (text, status, code) in [
        ("OPTIONS * RTSP/1.0\r\na\0: b\r\n\r\n", 400, "rtsp_bad_head"),
        ("OPTIONS * RTSP/1.0\r\na: b\rc\r\n\r\n", 400, "rtsp_bad_head"),
        ("OPTIONS * RTSP/1.0\r\na: b\r\n c\r\n\r\n", 400, "rtsp_bad_header"),
        ("OPTIONS * RTSP/1.0\r\nnothing\r\n\r\n", 400, "rtsp_bad_header"),
        ("OPTIONS * RTSP/1.0\r\n: x\r\n\r\n", 400, "rtsp_bad_header"),
        ("OPTIONS * RTSP/1.0\r\na b: x\r\n\r\n", 400, "rtsp_bad_header"),
        ("OPTIONS * RTSP/1.0\r\nContent-Length: -1\r\n\r\n", 400, "rtsp_bad_length"),
        ("OPTIONS * RTSP/1.0\r\nContent-Length: +1\r\n\r\n", 400, "rtsp_bad_length"),
        ("OPTIONS * RTSP/1.0\r\nContent-Length: 1\r\nContent-length: 2\r\n\r\n", 400, "rtsp_bad_length"),
        ("OPTIONS * RTSP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "rtsp_bad_length"),
        ("OPTIONS * RTSP/1.0\r\nContent-Length: 2049\r\n\r\n", 413, "rtsp_body_too_large"),
        ("OPTIONS * RTSP/2.0\r\n\r\n", 505, "rtsp_version"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "rtsp_http"),
        ("OPTIONS\r\n\r\n", 400, "rtsp_bad_start"),
        ("RTSP/1.0 20 OK\r\n\r\n", 400, "rtsp_bad_start"),
        ("RTSP/1.1 200 OK\r\n\r\n", 400, "rtsp_bad_start"),
        (&long, 414, "rtsp_line_too_long"),
        (&many, 400, "rtsp_too_many_headers"),
        (&large, 400, "rtsp_head_too_large"),
    ] {
        let bad = one(text.as_bytes()).unwrap_err();
        assert_eq!((bad.status, bad.code), (status, code), "{text:?}: {}", bad.text);
    }
}

#[test]
fn a_value_cannot_end_its_line() {
    let r = Response::new(404).with("CSeq", "1\r\nX: y");
    assert_eq!(&r.to_bytes()[..], b"RTSP/1.0 404 Not Found\r\nCSeq: 1X: y\r\n\r\n");
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let headers =
        proptest::collection::vec(("[A-Z][a-z-]{0,10}", "[a-z0-9;=]{1,20}"), 0..4).prop_map(Headers);
    let body = proptest::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from);
    let request = ("[A-Z_]{1,12}", "[!-~]{1,30}", headers.clone(), body.clone())
        .prop_map(|(method, url, headers, body)| Item::Request(Request { method, url, headers, body }));
    let response = (100u16..1000, headers, body.clone()).prop_map(|(status, headers, body)| {
        Item::Response(Response { status, phrase: phrase(status).to_owned(), headers, body })
    });
    let frame = (0u8..4, body).prop_map(|(channel, payload)| match channel {
        3 => Item::Stray { channel },
        channel => Item::Frame { channel, payload },
    });
    proptest::collection::vec(prop_oneof![request, response, frame], 0..8)
}

fn bytes_of(items: &[Item]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for item in items {
        match item {
            Item::Request(r) => out.extend_from_slice(&r.to_bytes()),
            Item::Response(r) => out.extend_from_slice(&r.to_bytes()),
            Item::Frame { channel, payload } => {
                put_frame_head(&mut out, *channel, payload.len());
                out.extend_from_slice(payload);
            }
            Item::Stray { channel } => {
                put_frame_head(&mut out, *channel, 3);
                out.extend_from_slice(b"$$\n");
            }
        }
    }
    out.to_vec()
}

/// Without the length that the writer added.
fn plain(mut item: Item) -> Item {
    if let Item::Request(Request { headers, .. }) | Item::Response(Response { headers, .. }) = &mut item {
        headers.0.retain(|(n, _)| n != "Content-Length");
    }
    item
}

fn reader() -> Reader {
    let mut r = Reader::new(Caps { line: 256, headers: 8, head: 1024, message: 2048 });
    (0..3).for_each(|c| r.set_channel(c, true));
    r
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(items in items()) {
        let read: Vec<Item> = all_of(&mut reader(), &bytes_of(&items)).unwrap().into_iter().map(plain).collect();
        prop_assert_eq!(read, items);
    }

    #[test]
    fn any_cut_of_any_bytes_reads_the_same(
        items in items(),
        garbage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in proptest::collection::vec(1usize..40, 1..40),
    ) {
        let mut bytes = bytes_of(&items);
        for (at, value) in garbage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let whole = all_of(&mut reader(), &bytes);
        let mut cut = reader();
        let (mut got, mut at, mut sizes) = (Vec::new(), 0, cuts.iter().cycle());
        let mut end = Ok(());
        while at < bytes.len() && end.is_ok() {
            let n = (*sizes.next().unwrap()).min(bytes.len() - at);
            let mut piece = &bytes[at..at + n];
            at += n;
            loop {
                match cut.read(&mut piece) {
                    Ok(Some(item)) => got.push(item),
                    Ok(None) => break,
                    Err(bad) => { end = Err(bad); break; }
                }
            }
            prop_assert!(cut.held() <= 64 << 10);
        }
        match (whole, end) {
            (Ok(items), Ok(())) => prop_assert_eq!(items, got),
            (Err(a), Err(b)) => prop_assert_eq!(a, b),
            (a, b) => prop_assert!(false, "whole {:?}, cut {:?}", a, b),
        }
    }
}
