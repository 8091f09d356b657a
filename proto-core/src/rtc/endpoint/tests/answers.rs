//! What answers say of codecs that cannot be carried.

use super::*;

#[test]
fn aac_is_refused_in_the_answer_and_the_reason_is_given() {
    let (mut w, offer) = World::new(Limits::default(), Direction::RecvOnly, true);
    let aac = CodecParams::Aac { asc: Bytes::from_static(&[0x12, 0x10]), rate: 44_100, channels: 2 };
    let tracks = [(TrackId::VIDEO, h264()), (TrackId::AUDIO, config(aac))];
    let playing = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks, w.now).unwrap();
    assert!(playing.no_sound.unwrap().contains("AAC"));
    let audio = playing.answer.split("m=").find(|s| s.starts_with("audio")).unwrap();
    assert!(audio.starts_with("audio 0 ") && audio.contains("a=inactive"), "{audio}");
    w.browser.answer(&playing.answer);
    w.connect();
    let error = w.endpoint.play(from(&offer, &[addr(SERVER)]), &tracks[1..], w.now).unwrap_err();
    assert_eq!(error.code, "nothing_to_play");
}

#[test]
fn who_takes_only_what_a_stream_has_not_is_refused_with_the_reason() {
    let (mut w, pictures) = World::new(Limits::default(), Direction::RecvOnly, false);
    let all = tracks();
    let of = |w: &mut World, offer: &str, tracks: &[(TrackId, Arc<CodecConfig>)]| {
        w.endpoint.play(from(offer, &[addr(SERVER)]), tracks, w.now).map(|_| ())
    };
    let sound: Vec<_> = all.iter().filter(|(_, c)| !c.params.codec().is_video()).cloned().collect();
    let refused = of(&mut w, &pictures, &sound).unwrap_err();
    assert_eq!(refused.code, "nothing_asked_for");
    assert!(refused.text.contains("sound only (Opus)") && refused.text.contains("takes pictures only"));
    assert_eq!(w.endpoint.sessions(), (0, 0));
    // Where nothing is known yet, pictures may come; and where there are some, they are what it wants.
    assert_eq!(of(&mut w, &pictures, &[]), Ok(()));
    assert_eq!(of(&mut w, &pictures, &all), Ok(()));
    // The other way round.
    let at = pictures.find("m=video").unwrap();
    let (head, section) = pictures.split_at(at);
    let formats = section.lines().next().unwrap().split_once("SAVPF").unwrap().1;
    let kept = |l: &&str| !["a=rtpmap", "a=fmtp", "a=rtcp-fb"].iter().any(|p| l.starts_with(p));
    let section: String = section.split_inclusive("\r\n").filter(kept).collect();
    let section = section.replace("m=video", "m=audio").replacen(formats, " 111", 1);
    let heard = format!("{head}{section}a=rtpmap:111 opus/48000/2\r\n");
    let seen: Vec<_> = all.iter().filter(|(_, c)| c.params.codec().is_video()).cloned().collect();
    let refused = of(&mut w, &heard, &seen).unwrap_err();
    assert!(refused.text.contains("pictures only (H.264)") && refused.text.contains("takes sound only"));
    assert_eq!(of(&mut w, &heard, &all), Ok(()));
}

#[test]
fn user_names_carry_the_loop_and_a_spurious_tick_changes_nothing() {
    let (mut w, id) = World::publisher();
    assert_eq!(format!("{id}"), "rtc-3.0");
    let session = w.endpoint.sessions.values().next().unwrap();
    assert!(session.ufrag.starts_with("03"));
    w.connect();
    while w.endpoint.poll().is_some() {}
    let before = w.endpoint.deadline();
    for _ in 0..10 {
        w.endpoint.handle(Input::Tick, w.now);
        assert!(w.endpoint.poll().is_none());
    }
    assert_eq!(w.endpoint.deadline(), before);
}
