//! Offers of ours and their answers, data channels, ICE that begins anew, strangers who may ask.

use super::*;

impl World {
    /// A viewer that is offered something: the browser answers, and opens the channel for signalling.
    fn offered() -> (World, SessionId) {
        let (mut w, _) = World::new(Limits::default(), Direction::RecvOnly, true);
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(w.start);
        rtc.add_local_candidate(Candidate::host(addr(CLIENT), "udp").unwrap());
        let playing = w.endpoint.offer(addr(CLIENT).ip(), &[addr(SERVER)], &tracks(), true, w.now).unwrap();
        // str0m would wait as well where both roles are on offer; browsers begin.
        assert!(playing.answer.contains("a=setup:actpass"));
        let offer = playing.answer.replace("a=setup:actpass", "a=setup:passive");
        let offer = str0m::change::SdpOffer::from_sdp_string(&offer).unwrap();
        let answer = rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        assert!(answer.contains("a=setup:active"), "{answer}");
        let config = str0m::channel::ChannelConfig { label: "red5pro".to_owned(), ..Default::default() };
        rtc.direct_api().create_data_channel(config);
        w.browser.rtc = rtc;
        // It asks before its answer is here.
        w.run(Duration::from_millis(300));
        assert!(!w.browser.connected && w.endpoint.drops().too_early > 0);
        w.endpoint.answer(playing.session, &answer, w.now).unwrap();
        let again = w.endpoint.answer(playing.session, &answer, w.now).unwrap_err();
        assert_eq!(again.code, "answered_already");
        (w, playing.session)
    }
}

#[test]
fn a_viewer_that_was_offered_something_is_sent_frames_and_texts() {
    let (mut w, id) = World::offered();
    w.connect();
    w.run(Duration::from_millis(500));
    assert!(w.events.iter().any(|(_, _, e)| *e == PeerEvent::ChannelOpened));
    for n in 0..5_u32 {
        let key = n == 0;
        let kind = if key { FrameKind::Key } else { FrameKind::Delta };
        let frame = delivery(u64::from(n), kind, picture(key, 4_000, n as u8), i64::from(n) * 33_000_000);
        w.deliver(id, &frame);
        w.run(Duration::from_millis(33));
    }
    w.run(Duration::from_millis(200));
    assert_eq!(w.shown().len(), 5);

    w.endpoint.handle(Input::Say { session: id, text: "to the peer" }, w.now);
    let channel = w.browser.channel.unwrap();
    let at = w.instant();
    assert!(w.browser.rtc.channel(channel).unwrap().write(false, b"to the node").unwrap());
    w.browser.rtc.handle_input(RtcInput::Timeout(at)).unwrap();
    w.run(Duration::from_millis(200));
    assert_eq!(w.browser.texts, ["to the peer"]);
    let text = PeerEvent::ChannelText("to the node".to_owned());
    assert!(w.events.iter().any(|(_, _, e)| *e == text));
}

#[test]
fn an_answer_that_cannot_be_taken_is_told_why() {
    let (mut w, _) = World::new(Limits::default(), Direction::RecvOnly, true);
    let playing = w.endpoint.offer(addr(CLIENT).ip(), &[addr(SERVER)], &tracks(), false, w.now).unwrap();
    assert!(playing.answer.contains("a=setup:actpass") && !playing.answer.contains("m=application"));
    let mut said = |sdp: &str| w.endpoint.answer(playing.session, sdp, w.now).unwrap_err().to_string();
    let print = ["AA"; 32].join(":");
    let transport =
        format!("a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {print}\r\n");
    let section = |port: u16, more: &str| {
        format!("v=0\r\n{transport}m=video {port} UDP/TLS/RTP/SAVPF 102\r\na=mid:1\r\n{more}")
    };
    assert!(said("hello").contains("SDP answer"));
    assert!(said(&section(0, "")).contains("refuses every section"));
    assert!(said(&section(9, "a=setup:passive\r\n")).contains("a=setup:active"));
    assert!(said("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 102\r\na=mid:1\r\n").contains("a=ice-ufrag"));
    assert!(
        said(&section(9, "").replace("a=mid:1", "a=mid:9")).contains("neither the sound nor the pictures")
    );
    assert_eq!(w.endpoint.answer(SessionId(99), &section(9, ""), w.now).unwrap_err().code, "no_session");
}

#[test]
fn ice_begins_anew_and_what_flows_goes_on() {
    let (mut w, id) = World::publisher();
    w.connect();
    let before = w.endpoint.ice_session(id).unwrap().to_owned();
    w.publish(10, 10);
    let mut changes = w.browser.rtc.sdp_api();
    let theirs = changes.ice_restart(true);
    let (_, pending) = changes.apply().unwrap();
    let fragment = w.endpoint.restart(id, &theirs.ufrag, &theirs.pass, &[addr(SERVER)], w.now).unwrap();
    let after = w.endpoint.ice_session(id).unwrap().to_owned();
    assert!(after != before && fragment.contains(&after) && fragment.contains(" typ host"), "{fragment}");
    assert_eq!(w.endpoint.peer_ufrag(id), Some(theirs.ufrag.as_str()));
    let line = |name: &str| fragment.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
    // The browser is told as its page would tell it: by the credentials of a new answer.
    drop(pending);
    let mut api = w.browser.rtc.direct_api();
    api.set_local_ice_credentials(theirs);
    let ours = IceCreds { ufrag: line("a=ice-ufrag:"), pass: line("a=ice-pwd:") };
    api.set_remote_ice_credentials(ours);
    // It comes back from elsewhere, as after a change of network.
    w.browser.address = addr("203.0.113.9:5000");
    let frames = w.frames(TrackId::VIDEO).len();
    w.run(Duration::from_secs(3));
    w.publish(10, 10);
    w.run(Duration::from_millis(500));
    assert_eq!(w.frames(TrackId::VIDEO).len(), frames + 10);
    assert!(w.end().is_none());
    w.endpoint.verify().unwrap();
}

#[test]
fn anonymous_stun_is_answered_within_limits_and_only_if_wanted() {
    let start = base();
    for (wanted, answers) in [(true, 20), (false, 0)] {
        let config = EndpointConfig {
            limits: Limits::default(),
            rng: Rng::new([5; 32]),
            start,
            identity: Identity::generate().unwrap(),
            stun: wanted,
            loop_index: 0,
        };
        let mut e = Endpoint::new(config).unwrap();
        e.handle(Input::UdpOpened { socket: SocketId(1), max_segments: 16 }, Time::ZERO);
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend_from_slice(&[9; 12]);
        let mut sent = 0;
        for n in 0..50 {
            let remote = SocketAddr::new(addr(CLIENT).ip(), 1_000 + n);
            let (socket, local) = (SocketId(1), addr(SERVER));
            let input = Input::Datagram { socket, local, remote, stride: 20, bytes: &request };
            e.handle(input, Time::from_millis(100));
            while let Some(Output::Datagrams(batch)) = e.poll() {
                assert_eq!((batch.items[0].dst, batch.buf.len()), (remote, 32));
                sent += 1;
            }
        }
        let d = e.drops();
        assert_eq!((sent, d.stun_limit + d.not_a_check), (answers, 50 - answers));
    }
}
