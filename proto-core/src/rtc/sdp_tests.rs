use super::*;
use proptest::prelude::*;

const PRINT: &str =
    "sha-256 45:AD:5C:82:F8:BE:B5:2A:D1:74:A6:16:D0:50:CD:86:9C:97:9D:BD:06:8C:C9:85:C9:CD:AB:2B:A8:56:03:CD";

/// As Chromium 14x offers a camera with a data channel: VP8 first, several H.264, `b=` nowhere, trickle.
fn chromium() -> String {
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
a=extmap-allow-mixed\r\na=msid-semantic: WMS stream\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
a=ice-ufrag:x7Gh\r\na=ice-pwd:asd88fgpdd777uzjYhagZgde\r\na=ice-options:trickle\r\na=fingerprint:{PRINT}\r\n\
a=setup:actpass\r\na=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendonly\r\na=msid:stream mic\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
a=rtpmap:126 telephone-event/8000\r\na=ssrc:31415 cname:c\r\na=ssrc:31415 msid:stream mic\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 115 116\r\nc=IN IP4 0.0.0.0\r\n\
a=rtcp:9 IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2113937151 3c0e7f9c-1111-2222-3333-444455556666.local 53211 typ host generation 0\r\n\
a=candidate:2 1 tcp 1518280447 10.0.0.2 9 typ host tcptype active generation 0\r\n\
a=ice-ufrag:x7Gh\r\na=ice-pwd:asd88fgpdd777uzjYhagZgde\r\na=ice-options:trickle\r\na=fingerprint:{PRINT}\r\n\
a=setup:actpass\r\na=mid:1\r\na=extmap:13 urn:3gpp:video-orientation\r\n\
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendonly\r\na=msid:stream cam\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
a=rtpmap:103 H264/90000\r\na=rtcp-fb:103 goog-remb\r\na=rtcp-fb:103 transport-cc\r\na=rtcp-fb:103 ccm fir\r\n\
a=rtcp-fb:103 nack\r\na=rtcp-fb:103 nack pli\r\n\
a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
a=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\n\
a=rtpmap:107 H264/90000\r\na=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f\r\n\
a=rtpmap:108 rtx/90000\r\na=fmtp:108 apt=107\r\n\
a=rtpmap:109 H264/90000\r\na=rtcp-fb:109 nack\r\na=rtcp-fb:109 nack pli\r\n\
a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
a=rtpmap:114 rtx/90000\r\na=fmtp:114 apt=109\r\n\
a=rtpmap:115 H264/90000\r\na=fmtp:115 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640034\r\n\
a=rtpmap:116 rtx/90000\r\na=fmtp:116 apt=115\r\n\
a=ssrc-group:FID 2718 2719\r\na=ssrc:2718 cname:c\r\na=ssrc:2718 msid:stream cam\r\na=ssrc:2719 cname:c\r\n\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:x7Gh\r\n\
a=ice-pwd:asd88fgpdd777uzjYhagZgde\r\na=fingerprint:{PRINT}\r\na=setup:actpass\r\na=mid:2\r\na=sctp-port:5000\r\n"
    )
}

/// As Firefox offers to play: session-level fingerprint and options, sendrecv left out in favour of recvonly.
fn firefox() -> String {
    format!(
        "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 7320346187655417431 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
a=fingerprint:{PRINT}\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 120 124 126 127 97 98\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\n\
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:5 urn:ietf:params:rtp-hdrext:toffset\r\n\
a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r\n\
a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\r\na=fmtp:124 apt=120\r\na=fmtp:127 apt=126\r\n\
a=fmtp:98 apt=97\r\na=ice-pwd:0cdfb81ed5eb1ab03fb0dbd1ae1d14b5\r\na=ice-ufrag:e7c8b4a5\r\na=mid:0\r\n\
a=rtcp-fb:126 nack\r\na=rtcp-fb:126 nack pli\r\na=rtcp-fb:126 ccm fir\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
a=rtpmap:120 VP8/90000\r\na=rtpmap:124 rtx/90000\r\na=rtpmap:126 H264/90000\r\na=rtpmap:127 rtx/90000\r\n\
a=rtpmap:97 H264/90000\r\na=rtpmap:98 rtx/90000\r\na=setup:actpass\r\na=ssrc:1363587417 cname:{{x}}\r\n\
m=audio 0 UDP/TLS/RTP/SAVPF 109\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=recvonly\r\n\
a=ice-pwd:0cdfb81ed5eb1ab03fb0dbd1ae1d14b5\r\na=ice-ufrag:e7c8b4a5\r\na=mid:1\r\na=rtcp-mux\r\n\
a=rtpmap:109 opus/48000/2\r\na=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=setup:actpass\r\n"
    )
}

/// As ffmpeg's WHIP muxer offers: passive by fixed setup, one codec each, ssrc lines, `b=` before `c=`.
fn ffmpeg() -> String {
    format!(
        "v=0\r\no=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1\r\ns=FFmpegPublishSession\r\nt=0 0\r\n\
a=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nb=AS:128\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:dd2f\r\n\
a=ice-pwd:0123456789abcdef0123456789abcdef\r\na=fingerprint:{PRINT}\r\na=setup:passive\r\na=mid:0\r\na=sendonly\r\n\
a=msid:FFmpeg audio\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:100 cname:FFmpeg\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 106 105\r\nb=TIAS:2000000\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:dd2f\r\n\
a=ice-pwd:0123456789abcdef0123456789abcdef\r\na=fingerprint:{PRINT}\r\na=setup:passive\r\na=mid:1\r\na=sendonly\r\n\
a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:106 H264/90000\r\n\
a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42c01f\r\n\
a=rtcp-fb:106 nack\r\na=rtpmap:105 rtx/90000\r\na=fmtp:105 apt=106\r\na=ssrc-group:FID 200 201\r\n\
a=ssrc:200 cname:FFmpeg\r\na=ssrc:201 cname:FFmpeg\r\n"
    )
}

/// As GStreamer's whipclientsink offers: words as mids, no line end at the end, no profile.
fn gstreamer() -> String {
    format!(
        "v=0\no=- 3497579305088229251 0 IN IP4 0.0.0.0\ns=-\nt=0 0\na=ice-options:trickle\na=group:BUNDLE video0\n\
m=video 9 UDP/TLS/RTP/SAVPF 96 97\nc=IN IP4 0.0.0.0\na=setup:actpass\na=ice-ufrag:abcd1234\n\
a=ice-pwd:abcdefghijklmnopqrstuvwx\na=rtcp-mux\na=rtcp-rsize\na=sendonly\na=rtpmap:96 H264/90000\n\
a=rtcp-fb:96 nack\na=rtcp-fb:96 nack pli\na=fmtp:96 packetization-mode=1;profile-level-id=42e015\n\
a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\na=ssrc:1 msid:u w\na=mid:video0\na=fingerprint:{PRINT}"
    )
}

fn publish(sdp: &str) -> Result<Prepared, Reason> {
    prepare(sdp, Wish::Publish, &Limits::default())
}

const H264: Pictures = Pictures { codec: Codec::H264, profile: None, guessed: false, adapts: false };

fn without_h264(offer: &str) -> String {
    offer.replace("H264/90000", "X264/90000")
}

fn viewer(audio: bool) -> Wish {
    Wish::Play { video: Some(H264), audio: audio.then_some(Codec::Opus) }
}

fn play(sdp: &str, audio: bool) -> Result<Prepared, Reason> {
    prepare(sdp, viewer(audio), &Limits::default())
}

fn answer(p: &Prepared, wish: Wish) -> String {
    use super::super::dtls::Identity;
    use super::super::peer::{Peer, Setup};
    use crate::rand::Rng;
    use crate::time::Time;
    #[allow(clippy::disallowed_methods)]
    let base = std::time::Instant::now();
    let identity = Identity::generate().unwrap();
    let setup = Setup {
        tcp_ports: &[],
        prepared: p,
        wish,
        identity: &identity,
        limits: Default::default(),
        candidates: &["192.0.2.1:8189".parse().unwrap(), "[2001:db8::1]:8189".parse().unwrap()],
        creds: str0m::IceCreds { ufrag: "00abcdef".to_owned(), pass: "p".repeat(32) },
        base,
        now: Time::ZERO,
        offered: false,
    };
    let (_, answer) = Peer::open(setup, &mut Rng::new([1; 32])).unwrap();
    p.answer(&answer, 77 << 2)
}

/// Chromium with all its codecs, in this order.
fn many(order: &[&str]) -> String {
    let lines = |pt: usize, name: &str| {
        let fmtp = match name {
            "VP9" => "profile-id=0",
            "VP9 of profile 2" => "profile-id=2",
            "AV1" => "level-idx=5;profile=0;tier=0",
            "H265" => "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST",
            "H264" => "packetization-mode=1;profile-level-id=42e01f",
            _ => "max-fr=30",
        };
        let name = name.split(' ').next().unwrap();
        let rtx = pt + 1;
        format!(
            "a=rtpmap:{pt} {name}/90000\r\na=fmtp:{pt} {fmtp}\r\na=rtcp-fb:{pt} nack pli\r\n\
             a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n"
        )
    };
    let all: String = order.iter().enumerate().map(|(i, name)| lines(96 + i * 2, name)).collect();
    let pts: Vec<String> = (0..order.len() * 2).map(|n| (96 + n).to_string()).collect();
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:x7Gh\r\na=ice-pwd:asd88fgpdd777uzjYhagZgde\r\n\
         a=fingerprint:{PRINT}\r\na=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n{all}",
        pts.join(" ")
    )
}

#[test]
fn a_publisher_sends_h264_if_it_can_and_else_what_it_names_first() {
    let chosen = |order: &[&str]| {
        let p = publish(&many(order)).unwrap();
        let a = answer(&p, Wish::Publish);
        let named: Vec<&str> = a
            .lines()
            .filter_map(|l| l.strip_prefix("a=rtpmap:")?.split_once(' '))
            .map(|(_, map)| map)
            .filter(|map| !map.starts_with("rtx"))
            .collect();
        assert!(named.iter().all(|m| *m == codecs::rtpmap(p.video[0].codec)), "{a}");
        assert_eq!(p.video.len(), named.len(), "{a}");
        (p.video[0].codec, p.video[0].rtx.is_some())
    };
    assert_eq!(chosen(&["VP8", "VP9", "AV1", "H264"]), (Codec::H264, true));
    assert_eq!(chosen(&["VP8", "VP9", "AV1"]), (Codec::Vp8, true));
    assert_eq!(chosen(&["AV1", "VP9", "VP8"]), (Codec::Av1, true));
    assert_eq!(chosen(&["VP9", "VP9 of profile 2", "VP8"]), (Codec::Vp9, true));
    assert_eq!(chosen(&["H265", "VP8"]), (Codec::H265, true));
}

#[test]
fn a_viewer_gets_what_the_stream_has_or_a_reason() {
    let all = many(&["VP8", "VP9", "VP9 of profile 2", "AV1", "H264", "H265"]);
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265] {
        let wish = Wish::Play { video: Some(Pictures { codec, ..H264 }), audio: None };
        let p = prepare(&all, wish, &Limits::default()).unwrap();
        assert_eq!(p.video[0].codec, codec);
        assert!(answer(&p, wish).contains(codecs::rtpmap(codec)));
    }
    let deep = Pictures { codec: Codec::Vp9, profile: Some(2), guessed: false, adapts: false };
    let of = |offer: &str| prepare(offer, Wish::Play { video: Some(deep), audio: None }, &Limits::default());
    assert_eq!(of(&all).unwrap().video[0].fmtp, "profile-id=2");
    let reason = of(&many(&["VP8", "VP9", "H264"])).unwrap_err();
    assert_eq!(reason.code, "no_common_codec");
    assert!(["VP9", "WebRTC", "libx264"].iter().all(|w| reason.text.contains(w)), "{}", reason.text);
    // Who takes no H.264 is told what to publish in its place, and not H.264.
    let of_h264 = |offer: &str| {
        prepare(offer, Wish::Play { video: Some(H264), audio: None }, &Limits::default()).unwrap_err().text
    };
    let told = of_h264(&many(&["VP8", "VP9", "AV1"]));
    assert!(told.contains("publish VP8, VP9 or AV1, which it takes") && !told.contains("libx264"), "{told}");
    assert!(of_h264(&many(&["VP8"])).contains("publish VP8, which it takes"));
    // Where there are no pictures yet, sound alone will do.
    let wish = Wish::Play { video: Some(Pictures::GUESS), audio: Some(Codec::Opus) };
    let offer = without_h264(&chromium()).replace("VP8/90000", "VP7/90000").replace("sendonly", "recvonly");
    let p = prepare(&offer, wish, &Limits::default()).unwrap();
    assert_eq!((p.video.len(), p.audio.map(|f| f.pt)), (0, Some(111)));
}

#[test]
fn g711_is_sound_too() {
    let offer = chromium().replace("opus/48000/2", "opsu/48000/2");
    let p = publish(&offer).unwrap();
    assert_eq!(p.audio, Some(AudioFormat { pt: 0, codec: Codec::Pcmu }));
    assert!(answer(&p, Wish::Publish).contains("a=rtpmap:0 PCMU/8000"));
    let wish = Wish::Play { video: Some(H264), audio: Some(Codec::Pcma) };
    let p = prepare(&chromium().replace("sendonly", "recvonly"), wish, &Limits::default()).unwrap();
    assert_eq!(p.audio, Some(AudioFormat { pt: 8, codec: Codec::Pcma }));
}

#[test]
fn chromium_publishes_constrained_baseline_and_opus_and_the_rest_is_refused_in_place() {
    let p = publish(&chromium()).unwrap();
    assert_eq!(
        p.video.iter().map(|f| (f.pt, f.rtx)).collect::<Vec<_>>(),
        [(109, Some(114)), (103, Some(104)), (115, Some(116))]
    );
    assert_eq!(
        (p.audio.map(|f| f.pt), p.video_mid.as_deref(), p.audio_mid.as_deref()),
        (Some(111), Some("1"), Some("0"))
    );
    assert!(!p.offer.contains("candidate") && !p.offer.contains("VP8"), "{}", p.offer);
    let a = answer(&p, Wish::Publish);
    let sections: Vec<&str> = a.split("m=").collect();
    assert!(sections[0].contains("a=ice-lite\r\n") && sections[0].contains("a=group:BUNDLE 0 1 2\r\n"));
    assert!(sections[0].contains("o=- 77 1 IN IP4 0.0.0.0\r\n"));
    assert!(sections[1].starts_with("audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), "{a}");
    assert!(
        sections[1].contains("192.0.2.1 8189 typ host") && sections[1].contains("2001:db8::1 8189 typ host")
    );
    assert!(sections[1].contains("a=end-of-candidates") && sections[1].contains("a=recvonly"));
    assert!(sections[2].starts_with("video 9 UDP/TLS/RTP/SAVPF 109 114 103 104 115 116\r\n"), "{a}");
    assert!(sections[2].contains("a=rtcp-fb:109 nack pli\r\n") && sections[2].contains("a=setup:passive"));
    assert!(sections[3].starts_with("application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{a}");
    assert!(
        sections[3].contains("a=sctp-port:5000\r\n") && sections[3].contains("a=max-message-size:"),
        "{a}"
    );
    assert!(!a.contains("trickle"));
}

#[test]
fn firefox_plays_with_a_bundle_only_section_and_hears_nothing_of_aac() {
    let p = play(&firefox(), true).unwrap();
    let [f] = &p.video[..] else { panic!("{:?}", p.video) };
    assert_eq!((f.pt, f.rtx, f.codec), (126, Some(127), Codec::H264));
    assert!(f.fmtp.ends_with("profile-level-id=42e01f"), "{}", f.fmtp);
    assert_eq!(p.audio, Some(AudioFormat { pt: 109, codec: Codec::Opus }));
    let a = answer(&p, viewer(true));
    assert!(a.contains("a=sendonly") && a.contains("a=ssrc-group:FID"), "{a}");
    let p = play(&firefox(), false).unwrap();
    let a = answer(&p, viewer(false));
    assert!(a.contains("m=audio 0 UDP/TLS/RTP/SAVPF 109\r\n") && a.contains("a=group:BUNDLE 0\r\n"), "{a}");
}

#[test]
fn ffmpeg_and_gstreamer_are_answered() {
    let p = publish(&ffmpeg()).unwrap();
    let a = answer(&p, Wish::Publish);
    assert!(a.contains("a=setup:active"), "the offer's side waits, so ours begins: {a}");
    assert!(a.contains("m=video 9 UDP/TLS/RTP/SAVPF 106 105"), "{a}");
    let p = publish(&gstreamer()).unwrap();
    assert!(answer(&p, Wish::Publish).contains("a=mid:video0"));
}

#[test]
fn refusals_say_what_is_missing() {
    let code = |r: Result<Prepared, Reason>| {
        let r = r.unwrap_err();
        (r.code, r.text.into_owned())
    };
    let no_h264 = without_h264(&chromium()).replace("VP8/90000", "VP7/90000");
    assert_eq!(code(publish(&no_h264)).0, "no_common_codec");
    assert!(code(publish(&no_h264)).1.contains("H.264"));
    assert!(code(publish(&firefox())).1.contains("WHEP"), "an offer to play, sent to publish");
    assert!(code(play(&chromium(), true)).1.contains("WHIP"));
    assert!(code(publish("hello")).1.contains("line 1"));
    assert!(code(publish("")).1.contains("no media section"));
    assert!(code(publish("o=x\r\n")).1.contains("v=0"));
    assert!(code(publish(&chromium().replace("a=ice-pwd", "a=ice-pvd"))).1.contains("ice-pwd"));
    assert!(code(publish(&chromium().replace("sha-256", "md5"))).1.contains("sha-256"));
    assert!(code(publish(&chromium().replace("a=mid:1", "a=mid:0"))).1.contains("twice"));
    let long = chromium().replace("a=mid:1\r", "a=mid:abcdefghijklmnopqrstuvwxyz\r");
    assert!(code(publish(&long)).1.contains("a=mid"));
}

/// Whoever offers media in the clear, or keys in the description (RFC 4568), gets no session; nor does who shows no certificate.
#[test]
fn media_is_srtp_with_keys_by_dtls_or_there_is_none() {
    for proto in ["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "TCP/TLS/RTP/SAVPF"] {
        let offer = |o: String| {
            o.replace("UDP/TLS/RTP/SAVPF", proto).replace("a=mid:", "a=crypto:1 x inline:y\r\na=mid:")
        };
        let (publisher, viewer) = (publish(&offer(chromium())), play(&offer(firefox()), true));
        assert!(publisher.is_err() && viewer.is_err(), "{proto}");
    }
    let unproven = chromium().replace("a=fingerprint", "a=footprint");
    assert!(publish(&unproven).unwrap_err().text.contains("fingerprint"));
}

/// Found by fuzzing: str0m 0.25 panics if two formats of one profile, or sound and pictures, come to the same payload
/// type.
#[test]
fn formats_that_cannot_be_told_apart_do_not_reach_str0m() {
    let same = chromium().replace("profile-level-id=42001f", "profile-level-id=42e034");
    let p = publish(&same).unwrap();
    assert_eq!(p.video.iter().map(|f| f.pt).collect::<Vec<_>>(), [103, 115]);
    answer(&p, Wish::Publish);
    let broken = chromium().replace("profile-level-id=42e01f", "profile-level-id=N IP4");
    let p = publish(&broken).unwrap();
    assert_eq!(p.video.iter().map(|f| f.pt).collect::<Vec<_>>(), [103, 115]);
    answer(&p, Wish::Publish);
    let shared = chromium().replace("111", "103");
    assert!(publish(&shared).unwrap_err().text.contains("payload type 103"));
}

#[test]
fn every_limit_of_an_offer_holds_and_names_itself() {
    let text = |sdp: String| {
        let reason = publish(&sdp).unwrap_err();
        assert_eq!(reason.code, "sdp_too_large");
        reason.text.into_owned()
    };
    let c = chromium();
    assert!(text(format!("{c}{}", "a=x\r\n".repeat(520))).contains("lines"));
    assert!(text(format!("{c}{}", "m=audio 9 x 0\r\n".repeat(31))).contains("media sections"));
    let types: String = (0..70).map(|n| format!(" {n}")).collect();
    assert!(text(format!("{c}m=video 9 UDP/TLS/RTP/SAVPF{types}\r\n")).contains("payload types"));
    assert!(text(format!("{c}{}", "a=candidate:1\r\n".repeat(70))).contains("candidates"));
    assert!(text(format!("{c}{}", "a=extmap:1 u\r\n".repeat(17))).contains("extensions"));
    assert!(text(format!("{c}a=x:{}\r\n", "y".repeat(50_000))).contains("bytes"));
}

/// One changed, dropped or doubled line of a real offer: answered or refused in words, and no defect is hidden by the
/// session's panic boundary.
#[test]
fn damaged_offers_are_answered_or_refused() {
    use crate::machine::Machine;
    use crate::rand::Rng;
    use crate::rtc::{Endpoint, EndpointConfig, Identity, Input, Offer};
    use crate::time::Time;
    #[allow(clippy::disallowed_methods)]
    let start = std::time::Instant::now();
    let (limits, rng, identity) = (Limits::default(), Rng::new([2; 32]), Identity::generate().unwrap());
    let config = EndpointConfig { limits, rng, start, identity, stun: true, loop_index: 0 };
    let endpoint = std::cell::RefCell::new(Endpoint::new(config).unwrap());
    let answered = std::cell::Cell::new(0);
    proptest!(|(which in 0usize..4, line in 0usize..90, how in 0u8..4, junk in "[ -~]{0,40}")| {
        let offer = [chromium(), firefox(), ffmpeg(), gstreamer()][which].clone();
        let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
        let line = line % lines.len();
        match how {
            0 => { lines.remove(line); }
            1 => { let l = lines[line].clone(); lines.insert(line, l); }
            2 => lines[line] = junk,
            _ => { let l = &mut lines[line]; let cut = l.len() / 2; l.truncate(cut); l.push_str(&junk); }
        }
        let damaged = lines.join("\r\n");
        let mut endpoint = endpoint.borrow_mut();
        let candidates = ["192.0.2.1:8189".parse().unwrap()];
        let offer = Offer { sdp: &damaged, from: [192, 0, 2, 7].into(), candidates: &candidates };
        let opened = [
            endpoint.publish(offer, Time::ZERO),
            endpoint.play(offer, &[], Time::ZERO).map(|p| (p.session, p.answer)),
        ];
        for (session, answer) in opened.into_iter().flatten() {
            prop_assert!(answer.contains("a=ice-lite"));
            answered.set(answered.get() + 1);
            endpoint.handle(Input::Close { session, reason: bad(String::new()) }, Time::ZERO);
        }
        while endpoint.poll().is_some() {}
        prop_assert_eq!(endpoint.drops().panics, 0);
        prop_assert_eq!(endpoint.sessions(), (0, 0));
    });
    assert!(answered.get() > 50, "most damage is harmless: {}", answered.get());
}

/// Offers that others' fuzzers found interesting, where they are at hand.
#[test]
fn collected_offers_never_panic() {
    let Ok(corpora) = std::env::var("HEADWATER_CORPORA") else { return };
    // Reading a directory of a test's inputs is the one thing that needs the file system here.
    let directory = std::fs::read_dir(format!("{corpora}/webrtc/sdp-corpus")).unwrap();
    let mut seen = 0;
    for entry in directory {
        #[allow(clippy::disallowed_methods)]
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for wish in [Wish::Publish, viewer(true)] {
            if let Ok(p) = prepare(&text, wish, &Limits::default()) {
                let _ = str0m::change::SdpOffer::from_sdp_string(&p.offer);
            }
        }
        seen += 1;
    }
    assert!(seen > 0);
}

/// As Chromium offers a camera in three sizes.
fn simulcast(list: &str) -> String {
    let rids = "a=rid:l send\r\na=rid:m send\r\na=rid:h send\r\n";
    let names = "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                 a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n";
    let section = format!("a=mid:1\r\n{names}{rids}a=simulcast:{list}\r\n");
    chromium().replace("a=mid:1\r\n", &section)
}

#[test]
fn layers_of_a_simulcast_are_taken_and_answered() {
    let p = publish(&simulcast("send l;m;h")).unwrap();
    assert_eq!(p.layers, ["l", "m", "h"]);
    assert!(p.offer.contains("sdes:rtp-stream-id") && p.offer.contains("sdes:repaired-rtp-stream-id"));
    let answered = answer(&p, Wish::Publish);
    let video = &answered[answered.find("m=video").unwrap()..answered.find("m=application").unwrap()];
    for line in [
        "a=rid:l recv\r\na=rid:m recv\r\na=rid:h recv\r\na=simulcast:recv l;m;h\r\n",
        "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n",
        "a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n",
    ] {
        assert!(video.contains(line), "{line} is not in\n{video}");
    }
    assert_eq!(answered.matches("a=simulcast").count(), 1);
    // Alternatives, layers that begin paused, and the other direction (RFC 8853, 5.1).
    assert_eq!(publish(&simulcast("recv x send l,x;~m;h,l")).unwrap().layers, ["l", "m", "h"]);
    // What is no list of layers that are sent, or of one only, is as if it were not there.
    for none in ["send l", "recv l;m;h", "send", "", "send x;y", "send l;l;l", "send ;;", "send l;m\u{e9}"] {
        let p = publish(&simulcast(none)).unwrap();
        assert_eq!((p.layers.len(), p.offer.contains("rtp-stream-id")), (0, false), "{none}");
    }
    let nameless = simulcast("send l;m;h").replace("rtp-hdrext:sdes:rtp-stream-id", "else");
    assert!(publish(&nameless).unwrap().layers.is_empty(), "without names nobody could tell them apart");
    let few = Limits { rtp_ssrcs: 6, ..Limits::default() };
    assert_eq!(prepare(&simulcast("send l;m;h"), Wish::Publish, &few).unwrap().layers, ["l", "m"]);
    assert!(play(&simulcast("send l;m;h").replace("sendonly", "recvonly"), true).unwrap().layers.is_empty());
}

proptest! {
    #[test]
    fn any_list_of_layers_is_answered_with_layers_that_are_sent(list in "[a-z;,~ ]{0,40}|send [lmhx;,~]{0,30}") {
        if let Ok(p) = publish(&simulcast(&list)) {
            prop_assert!(p.layers.len() != 1 && p.layers.iter().all(|l| ["l", "m", "h"].contains(&l.as_str())));
            let mut all = p.layers.clone();
            all.sort();
            all.dedup();
            prop_assert_eq!(all.len(), p.layers.len());
        }
    }
}
