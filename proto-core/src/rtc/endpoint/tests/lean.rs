//! Lean viewers against whole ones: the same deliveries must come out as the same packets, with loss and without.

use super::*;
use std::collections::BTreeSet;

/// A packet as a receiver sees it, numbers and times from the first on.
type Seen = (u64, u32, bool, Bytes);

fn viewer(lean: bool) -> (World, SessionId) {
    let (mut w, offer) = World::new(Limits::default(), Direction::RecvOnly, true);
    if !lean {
        w.endpoint.use_whole_viewers();
    }
    let playing = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks(), w.now).unwrap();
    assert_eq!(lean, matches!(w.endpoint.sessions.get(&playing.session).unwrap().talk, Talk::Lean(_)));
    w.browser.answer(&playing.answer);
    w.connect();
    (w, playing.session)
}

/// Sound and pictures of many sizes, from none to many packets.
fn show(w: &mut World, session: SessionId, frames: u64) {
    for (track, config) in tracks() {
        w.deliver(session, &Delivery::Config { track, config });
    }
    for n in 0..frames {
        let pts = 33_000_000 * n as i64;
        let kind = if n % 15 == 0 { FrameKind::Key } else { FrameKind::Delta };
        let len = 20 + (n as usize * 797) % 9_000 + if n == 15 { 60_000 } else { 0 };
        let payload = picture(kind == FrameKind::Key, len, n as u8 | 1);
        w.deliver(session, &delivery(2 * n, kind, payload, pts));
        w.deliver(session, &delivery(2 * n + 1, FrameKind::Audio, sound(n as u32), pts));
        w.run(Duration::from_millis(33));
    }
    w.run(Duration::from_secs(1));
}

/// What came of pictures or sound, in order.
fn seen(w: &World, pictures: bool) -> Vec<Seen> {
    let packets = w.browser.packets.iter().filter(|p| p.marker_or_payload_is_video() == pictures);
    let mut by_number: BTreeMap<u64, &RtpPacket> = packets.map(|p| (*p.seq_no, p)).collect();
    let (start, first) = by_number.pop_first().unwrap();
    let begin = first.header.timestamp;
    let of = |n: u64, p: &RtpPacket| {
        (
            n - start,
            p.header.timestamp.wrapping_sub(begin),
            p.header.marker,
            Bytes::copy_from_slice(&p.payload),
        )
    };
    std::iter::once(of(start, first)).chain(by_number.into_iter().map(|(n, p)| of(n, p))).collect()
}

#[test]
fn a_lean_viewer_gets_the_packets_that_a_whole_one_gets() {
    let all = [true, false].map(|lean| {
        let (mut w, session) = viewer(lean);
        let sources = std::rc::Rc::new(std::cell::RefCell::new(BTreeSet::new()));
        let told = sources.clone();
        w.filter = Box::new(move |to_server, bytes, _| {
            told.borrow_mut().extend(media_of(bytes).filter(|_| !to_server));
            true
        });
        show(&mut w, session, 40);
        assert!(sources.borrow().len() == 2 || !lean, "where nothing is lost nothing is sent again");
        (seen(&w, true), seen(&w, false))
    });
    let [(pictures, sound), whole] = &all;
    assert!(pictures.len() > 180 && sound.len() == 40, "{} {}", pictures.len(), sound.len());
    assert!(pictures.iter().map(|p| p.0).eq(0..pictures.len() as u64), "no number is left out");
    assert_eq!((pictures, sound), (&whole.0, &whole.1));
}

/// The viewer begins, so that the profile is ours to choose; its first pictures leave right behind the handshake's end, and are
/// understood whichever copy of that end is lost.
#[test]
fn a_handshake_that_the_viewer_began_ends_before_its_first_picture() {
    let all = [None, Some(0), Some(1)].map(|lost| {
        let (mut w, offer) = World::new(Limits::default(), Direction::RecvOnly, true);
        let playing = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks(), w.now).unwrap();
        assert!(playing.answer.contains("a=setup:passive"), "{}", playing.answer);
        w.browser.answer(&playing.answer);
        let ends = std::rc::Rc::new(std::cell::Cell::new(0));
        let counter = ends.clone();
        w.filter = Box::new(move |to_server, bytes, _| {
            // ChangeCipherSpec begins what a handshake ends with.
            let end = !to_server && bytes[0] == 20;
            let nth = counter.replace(counter.get() + u32::from(end));
            !(end && lost == Some(nth))
        });
        let connected = |w: &World| {
            w.events.iter().find_map(|(_, _, e)| match e {
                PeerEvent::Connected { srtp, .. } => Some(*srtp),
                _ => None,
            })
        };
        while connected(&w).is_none() {
            w.run(Duration::from_millis(1));
            assert!(w.now < Time::from_millis(2_000), "it never ends");
        }
        assert_eq!(connected(&w), Some("SRTP_AEAD_AES_256_GCM"));
        show(&mut w, playing.session, 3);
        assert_eq!(ends.get(), 2, "it leaves twice");
        (seen(&w, true), seen(&w, false))
    });
    let [whole, first, second] = &all;
    assert!(!whole.0.is_empty() && whole.1.len() == 3);
    assert_eq!((first, second), (whole, whole));
}

#[test]
fn what_a_lean_viewer_lost_comes_again() {
    let (mut w, session) = viewer(true);
    let (mut media, dropped) = (0u32, std::rc::Rc::new(std::cell::Cell::new(0)));
    let counter = dropped.clone();
    w.filter = Box::new(move |to_server, bytes, _| {
        let counts = !to_server && is_media(bytes);
        media += u32::from(counts);
        let drop = counts && media % 23 == 11;
        counter.set(counter.get() + u32::from(drop));
        !drop
    });
    show(&mut w, session, 60);
    assert!(dropped.get() > 10, "{}", dropped.get());
    w.filter = Box::new(|_, _, _| true);
    // So that the end can be missed as well.
    for n in 60..70u64 {
        w.deliver(session, &delivery(2 * n, FrameKind::Delta, picture(false, 50, 7), 33_000_000 * n as i64));
        w.run(Duration::from_millis(33));
    }
    w.run(Duration::from_secs(1));
    let pictures = seen(&w, true);
    assert!(pictures.iter().map(|p| p.0).eq(0..pictures.len() as u64), "every packet came in the end");
    assert_eq!(w.shown().len(), 70);
}

/// The source of a packet of media.
fn media_of(bytes: &[u8]) -> Option<u32> {
    is_media(bytes).then(|| u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]))
}

/// A viewer that is shown 30 frames, of which the `nth` packet is lost; then all its reports are, and at last one packet.
/// Answers whether that came, and how many sources there were since its reports are lost.
fn without_reports(nth: Option<usize>) -> (bool, usize) {
    let (mut w, session) = viewer(true);
    w.delay = Duration::from_millis(40);
    let mut count = 0;
    w.filter = Box::new(move |to_server, bytes, _| {
        let counts = !to_server && media_of(bytes).is_some();
        count += usize::from(counts);
        !(counts && Some(count) == nth)
    });
    show(&mut w, session, 30);
    let shared = std::rc::Rc::new(std::cell::RefCell::new((None, BTreeSet::new())));
    let state = shared.clone();
    w.filter = Box::new(move |to_server, bytes, _| {
        let Some(source) = media_of(bytes).filter(|_| !to_server) else {
            return !(to_server && Multiplexed::of(bytes) == Some(Multiplexed::Rtcp));
        };
        let (lost, sources) = &mut *state.borrow_mut();
        let first = sources.insert(source) && lost.is_none();
        if first {
            *lost = Some(u16::from_be_bytes([bytes[2], bytes[3]]));
        }
        !first
    });
    for n in 30..40u64 {
        w.deliver(
            session,
            &delivery(2 * n, FrameKind::Delta, picture(false, 3_000, 7), 33_000_000 * n as i64),
        );
        w.run(Duration::from_millis(30));
    }
    let (lost, sources) = &*shared.borrow();
    let came = |p: &RtpPacket| p.marker_or_payload_is_video() && Some(*p.seq_no as u16) == *lost;
    (w.browser.packets.iter().any(came), sources.len())
}

#[test]
fn what_a_lean_viewer_lost_comes_again_although_all_its_reports_are_lost() {
    assert_eq!(without_reports(Some(50)), (true, 2), "within 300 ms");
}

#[test]
fn a_lean_viewer_that_lost_nothing_before_is_sent_nothing_again_while_it_says_nothing() {
    assert_eq!(without_reports(None), (false, 1));
}

#[test]
fn a_viewer_that_asks_for_everything_again_gets_a_quarter() {
    let (mut w, session) = viewer(true);
    let mut asks = 0;
    // Every packet is lost, and asked for as often as the receiver likes.
    w.filter = Box::new(move |to_server, bytes, _| {
        asks += 1;
        to_server || !is_media(bytes) || asks % 3 == 0
    });
    let before = w.sent_to[&addr(CLIENT)];
    show(&mut w, session, 300);
    let sent = w.sent_to[&addr(CLIENT)] - before;
    let plain: usize = (0..300).map(|n: usize| 60 + (n * 797) % 9_000).sum();
    assert!(sent < plain * 13 / 10 + (96 << 10) + 60_000 + 100_000, "{sent} of {plain}");
}

#[test]
fn a_lean_viewer_asks_for_key_frames_and_hears_of_the_end() {
    let (mut w, session) = viewer(true);
    show(&mut w, session, 5);
    let mid = w.browser.video;
    let at = w.instant();
    w.browser
        .rtc
        .direct_api()
        .stream_rx_by_mid(mid, None)
        .unwrap()
        .request_keyframe(KeyframeRequestKind::Pli);
    w.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
    w.run(Duration::from_millis(200));
    assert!(w.events.iter().any(|(_, _, e)| *e == PeerEvent::KeyFrameWanted));
    assert!(!w.browser.closed);
    w.endpoint.handle(Input::Close { session, reason: Reason::local("over", "it is over") }, w.now);
    w.run(Duration::from_millis(200));
    assert_eq!(w.end().map(|r| r.code), Some("over"));
    assert!(w.browser.closed, "the goodbye arrived");
    assert_eq!(w.endpoint.sessions(), (0, 0));
    assert!(w.endpoint.verify().is_ok());
}

#[test]
fn a_viewer_with_another_certificate_gets_nothing() {
    let (mut w, offer) = World::new(Limits::default(), Direction::RecvOnly, true);
    let at = offer.find("a=fingerprint:sha-256 ").unwrap() + "a=fingerprint:sha-256 ".len();
    let real = offer[at..at + 2].to_owned();
    let other = if real == "00" { "01" } else { "00" };
    let forged = offer.replace(&format!("sha-256 {real}"), &format!("sha-256 {other}"));
    let playing = w.endpoint.play(from(&forged, &[addr(SERVER)]), &tracks(), w.now).unwrap();
    w.browser.answer(&playing.answer);
    w.run(Duration::from_secs(2));
    assert_eq!(w.end().map(|r| r.code), Some("wrong_certificate"));
    assert!(!w.events.iter().any(|(_, _, e)| matches!(e, PeerEvent::Connected { .. })));
}

#[test]
fn a_picture_with_its_sound_is_one_message() {
    let (mut w, session) = viewer(true);
    for (track, config) in tracks() {
        w.deliver(session, &Delivery::Config { track, config });
    }
    let now = w.now + Duration::from_millis(5);
    let both = |w: &mut World, n: u64, len: usize| {
        w.deliver(session, &delivery(2 * n, FrameKind::Audio, sound(n as u32), 0));
        let kind = if n == 0 { FrameKind::Key } else { FrameKind::Delta };
        w.deliver(session, &delivery(2 * n + 1, kind, picture(n == 0, len, 3), 33_000_000 * n as i64));
        let mut items = Vec::new();
        while let Some(output) = w.endpoint.poll() {
            let Output::Datagrams(batch) = output else { continue };
            items
                .extend(batch.items.iter().map(|t| (t.len.div_ceil(t.segment_size), t.len % t.segment_size)));
            for t in &batch.items {
                for bytes in batch.buf[t.start..t.start + t.len].chunks(t.segment_size) {
                    w.fly(addr(SERVER), t.dst, bytes.to_vec());
                }
            }
            w.endpoint.handle(Input::Recycle(batch), now);
        }
        items
    };
    // The first brings parameter sets and a report along.
    both(&mut w, 0, 8_333);
    for (n, len) in [8_333, 8_334, 8_335, 1_000, 2_301].into_iter().enumerate() {
        let items = both(&mut w, n as u64 + 1, len);
        assert_eq!(items.len(), 1, "{len}: {items:?}");
        assert!(
            items[0].0 == (len - 1).div_ceil(PAYLOAD_BYTES - 2) + 1 && items[0].1 != 0,
            "{len}: {items:?}"
        );
    }
    w.run(Duration::from_millis(200));
    assert_eq!(w.shown().len(), 6);
    assert_eq!(seen(&w, false).len(), 6);
}
