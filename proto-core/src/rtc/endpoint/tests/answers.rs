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
