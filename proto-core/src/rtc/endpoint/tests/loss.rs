//! Links that lose, and what others send of a session.

use super::*;

/// Bursts of mean length 4 that make up this share of the datagrams, one way or the other.
fn bursts(share: f64, seed: u8) -> Filter {
    let mut rng = Rng::new([seed; 32]);
    let (leave, enter) = (0.25, 0.25 * share / (1.0 - share));
    let mut lost = [false; 2];
    Box::new(move |to_server, _, _| {
        let state = &mut lost[usize::from(to_server)];
        let turn = f64::from(rng.u32()) / f64::from(u32::MAX);
        *state = if *state { turn >= leave } else { turn < enter };
        !*state
    })
}

/// Share of pictures that came through (per mille), the longest time without one (ms), retransmission (per mille).
type Quality = (usize, u64, u64);

fn uplink(share: f64) -> Quality {
    let (mut w, _) = World::publisher();
    w.delay = Duration::from_millis(40);
    w.connect();
    w.filter = bursts(share, 3);
    let sent = w.publish(600, 60).len();
    w.run(Duration::from_millis(700));
    let arrivals: Vec<Time> = w
        .events
        .iter()
        .filter(|(_, _, e)| matches!(e, PeerEvent::Media(Ingest::Frame(f)) if f.track == TrackId::VIDEO))
        .map(|(at, _, _)| *at)
        .collect();
    let longest = arrivals.windows(2).map(|p| p[1].since(p[0]).as_millis() as u64).max().unwrap_or(u64::MAX);
    (arrivals.len() * 1000 / sent, longest, 0)
}

fn downlink(share: f64) -> Quality {
    let (mut w, id) = World::viewer();
    w.delay = Duration::from_millis(40);
    w.connect();
    w.filter = bursts(share, 5);
    let (before, mut media) = (w.sent_to[&addr(CLIENT)] as u64, 0);
    for n in 0..600_u64 {
        let kind = if n % 60 == 0 { FrameKind::Key } else { FrameKind::Delta };
        let frame = picture(kind == FrameKind::Key, 3_000 + (n as usize * 37) % 2_000, n as u8);
        media += frame.len() as u64;
        w.deliver(id, &delivery(n, kind, frame, n as i64 * 33_333_333));
        w.run(Duration::from_nanos(33_333_333));
    }
    w.run(Duration::from_millis(700));
    let again = (w.sent_to[&addr(CLIENT)] as u64 - before).saturating_sub(media);
    // A player shows a picture once it and all before it are there, or after 300 ms without it.
    let mut reorder = Reorder::new(Duration::from_millis(300), 4096);
    let mut depay = Depay::new(&Format::H264, 4 << 20, 4096);
    let (mut shown, mut last, mut longest) = (0, None, 0);
    let start = w.start;
    for p in &w.browser.packets {
        let now = Time::from_nanos(p.timestamp.saturating_duration_since(start).as_nanos() as u64);
        reorder.insert(*p.seq_no, p, now);
        while let Some(popped) = reorder.pop(now) {
            match popped {
                Popped::Lost(_) => depay.lost(),
                Popped::Packet(p) => depay.push(&p.payload, p.header.timestamp, p.header.marker, |_| {
                    shown += 1;
                    longest = longest.max(last.map_or(0, |l: Time| now.since(l).as_millis() as u64));
                    last = Some(now);
                }),
            }
        }
    }
    (shown * 1000 / 600, longest, again * 1000 / media)
}

#[test]
fn lossy_links_keep_their_pictures() {
    for (share, pictures, freeze) in [(0.0, 1000, 100), (0.01, 990, 300), (0.02, 990, 300)] {
        for (way, (shown, longest, again)) in [("up", uplink(share)), ("down", downlink(share))] {
            // How soon a viewer asks again is its own affair; str0m, which plays it here, is no hurrier.
            let freeze = if way == "down" { freeze + 50 } else { freeze };
            let said =
                format!("{share} {way}: {shown} permille of pictures, {longest} ms, {again} permille again");
            println!("{said}");
            assert!(shown >= pictures && longest <= freeze && again <= 250, "{said}");
        }
    }
    for (way, q) in [("up", uplink(0.05)), ("down", downlink(0.05))] {
        println!("0.05 {way}: {q:?}");
    }
}

#[test]
fn what_others_send_of_a_handshake_and_after_it_hurts_nobody() {
    let (mut w, _) = World::publisher();
    let overheard = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let ears = overheard.clone();
    w.filter = Box::new(move |to_server, bytes, _| {
        // DTLS records and media (RFC 7983).
        if to_server && matches!(bytes.first(), Some(20..=63 | 128..=191)) {
            ears.borrow_mut().push(bytes.to_vec());
        }
        true
    });
    let other = addr("203.0.113.9:5");
    for step in 0..80 {
        w.run(Duration::from_millis(10));
        for heard in overheard.take() {
            // Ahead of the rest of the flight: the same again, a piece of it, and one that differs.
            w.arrive(other, &heard);
            w.arrive(other, &heard[..heard.len() / 2]);
            let mut changed = heard;
            *changed.last_mut().unwrap() ^= 1;
            w.arrive(other, &changed);
            if step % 2 == 0 {
                w.arrive(addr(CLIENT), &changed);
            }
        }
        w.arrive(other, &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40]);
    }
    w.connect();
    let sent = w.publish(20, 10);
    w.run(Duration::from_millis(500));
    assert_eq!(w.frames(TrackId::VIDEO).len(), sent.len());
    assert_eq!((w.end(), w.sent_to.get(&other)), (None, None));
}
