//! Transcripts: each order of messages that clients are known to use, and what goes wrong in them.

use super::dialect::{About, Dialect, Input, Output, Way};
use crate::error::Reason;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::time::Time;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

struct Talk {
    dialect: Dialect,
    now: Time,
}

/// What was said to the client, in one word each, and what was asked of the node.
fn word(output: &Output) -> String {
    match output {
        Output::Say { way, text } => {
            let v: Value = serde_json::from_str(text).unwrap();
            let d = &v["data"];
            let arrow = if *way == Way::Socket { "<" } else { "<<" };
            let what = d["code"].as_str().or(d["sdp"]["type"].as_str()).or(d["type"].as_str());
            let what =
                what.map_or_else(|| v.as_object().unwrap().keys().next().unwrap().clone(), str::to_owned);
            let what = if v.get("isAvailable").is_some() { "isAvailable".to_owned() } else { what };
            let what = if v["type"] == "metadata" { "metadata".to_owned() } else { what };
            let more = d["message"].as_str().or(d["description"].as_str());
            let more = more.map(|m| format!(" {m}")).unwrap_or_default();
            let available = v.get("isAvailable").map(|a| format!(" {a}")).unwrap_or_default();
            format!("{arrow} {what}{more}{available}")
        }
        Output::CloseSocket(r) => format!("close {}", r.code),
        Output::Shown(_) => "shown".to_owned(),
        Output::AskName(n) => format!("ask {n}"),
        Output::Publish { name, sdp } => format!("publish {name} {sdp}"),
        Output::Find(n) => format!("find {n}"),
        Output::Offer { name, channel } => format!("offer {name} {channel}"),
        Output::Answer(sdp) => format!("answer {sdp}"),
        Output::Start => "start".to_owned(),
        Output::Switch(path) => format!("switch {path}"),
        Output::KeyFrames(d) => format!("key frames {d:?}"),
        Output::Data(_) => "data".to_owned(),
        Output::End(r) => format!("end {}", r.code),
        Output::Log(..) => "log".to_owned(),
    }
}

impl Talk {
    fn new(id: &str) -> Talk {
        let mut talk =
            Talk { dialect: Dialect::new(Arc::new(Limits::default()), id, Time::ZERO), now: Time::ZERO };
        assert_eq!(talk.tell(Input::Opened), ["< NetConnection.Connect.Success"]);
        talk
    }

    fn tell(&mut self, input: Input<'_>) -> Vec<String> {
        self.now += Duration::from_millis(10);
        self.dialect.handle(input, self.now);
        std::iter::from_fn(|| self.dialect.poll()).map(|o| word(&o)).collect()
    }

    fn raw(&mut self, input: Input<'_>) -> Vec<Value> {
        self.now += Duration::from_millis(10);
        self.dialect.handle(input, self.now);
        let said = |o| match o {
            Output::Say { text, .. } => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        };
        std::iter::from_fn(|| self.dialect.poll()).filter_map(said).collect()
    }

    fn says(&mut self, message: Value) -> Vec<String> {
        self.tell(Input::Text { way: Way::Socket, text: &message.to_string() })
    }

    fn on_channel(&mut self, message: &Value) -> Vec<String> {
        let pretty = serde_json::to_string_pretty(message).unwrap();
        self.tell(Input::Text { way: Way::Channel, text: &pretty })
    }
}

const SDP: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a0\r\n";

fn candidates() -> Vec<String> {
    vec!["candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host".to_owned()]
}

fn offer(name: &str) -> Value {
    json!({"handleOffer": name, "transport": "udp", "data": {"sdp": {"sdp": "OFFER", "type": "offer"}}})
}

fn candidate(name: &str) -> Value {
    let c = json!({"candidate": "candidate:3 1 udp 2122194688 abc.local 53570 typ host", "sdpMid": "0", "sdpMLineIndex": 0});
    json!({"handleCandidate": name, "data": {"candidate": c}})
}

fn no_more_candidates(name: &str) -> Value {
    json!({"handleCandidate": name, "data": {"candidate": {"type": "candidate", "candidate": ""}}})
}

/// Up to the start, as SDK 11 does it: candidates and their end before the answer.
fn publisher() -> Talk {
    let mut t = Talk::new("s1");
    assert_eq!(t.says(json!({"isAvailable": "s1", "bundle": true})), ["ask s1"]);
    assert_eq!(t.tell(Input::Available(false)), ["< isAvailable false"]);
    assert_eq!(t.says(offer("s1")), ["publish s1 OFFER"]);
    assert_eq!(t.says(candidate("s1")), [""; 0]);
    assert_eq!(t.says(no_more_candidates("s1")), [""; 0]);
    let agreed = t.tell(Input::Described { sdp: SDP, candidates: &candidates() });
    assert_eq!(agreed, ["< answer", "< candidate", "< NetConnection.ICE.TrickleCompleted"]);
    let start = t.says(json!({"publish": "s1", "mode": "live", "keyFramerate": 3000}));
    assert_eq!(start, ["key frames 3s", "start"]);
    assert_eq!(t.tell(Input::Started(About::default())), ["< NetStream.Publish.Start s1 starting"]);
    t
}

fn viewer(datachannel: bool) -> Talk {
    let mut t = Talk::new("subscriber-4a3f");
    assert_eq!(t.says(json!({"isAvailable": "s1"})), ["find s1"]);
    assert_eq!(t.tell(Input::Available(true)), ["< isAvailable true"]);
    let ask = json!({"requestOffer": "s1", "requestId": "subscriber-4a3f", "transport": "udp",
        "datachannel": datachannel, "doNotSwitch": false});
    assert_eq!(t.says(ask), [format!("offer s1 {datachannel}")]);
    assert_eq!(t.tell(Input::Described { sdp: SDP, candidates: &candidates() }), ["< offer"]);
    let answer = json!({"handleAnswer": "s1", "requestId": "subscriber-4a3f",
        "data": {"sdp": {"sdp": "ANSWER", "type": "answer"}}});
    assert_eq!(t.says(answer), ["answer ANSWER"]);
    assert_eq!(t.tell(Input::AnswerTaken), ["< candidate", "< NetConnection.ICE.TrickleCompleted"]);
    assert_eq!(t.says(no_more_candidates("s1")), [""; 0]);
    assert_eq!(t.says(json!({"subscribe": "s1", "requestId": "subscriber-4a3f"})), ["start"]);
    let about = About { video: true, audio: true, size: Some((640, 480)) };
    assert_eq!(t.tell(Input::Started(about)), ["< NetStream.Play.Start s1 starting", "< metadata"]);
    t
}

#[test]
fn a_publisher_over_the_websocket_alone() {
    let mut t = publisher();
    let stop = t.says(json!({"unpublish": "s1"}));
    assert_eq!(stop, ["< NetStream.Unpublish.Success s1 stopping", "end unpublished"]);
    assert_eq!(t.tell(Input::SocketClosed), [""; 0]);
    assert!(t.dialect.is_gone());
}

#[test]
fn a_publisher_that_goes_on_over_the_data_channel() {
    let mut t = publisher();
    assert_eq!(t.tell(Input::ChannelOpened), ["< NetConnection.DataChannel.Available red5pro"]);
    assert_eq!(t.says(json!({"switchChannel": "red5pro"})), [""; 0]);
    assert_eq!(t.tell(Input::SocketClosed), [""; 0], "the websocket is no life line any more");
    assert_eq!(t.on_channel(&json!({"send": {"method": "hello", "data": {"n": 1}}})), ["data"]);
    let stop = t.on_channel(&json!({"unpublish": "s1"}));
    assert_eq!(stop, ["<< NetStream.Unpublish.Success s1 stopping", "end unpublished"]);
}

#[test]
fn a_channel_that_opens_before_the_answer_was_sent_is_announced_after_it() {
    let mut t = Talk::new("s1");
    t.says(offer("s1"));
    assert_eq!(t.tell(Input::ChannelOpened), [""; 0]);
    let said = t.tell(Input::Described { sdp: SDP, candidates: &[] });
    let wanted =
        ["< answer", "< NetConnection.ICE.TrickleCompleted", "< NetConnection.DataChannel.Available red5pro"];
    assert_eq!(said, wanted);
}

#[test]
fn a_socket_that_closes_without_the_switch_ends_the_session() {
    for mut t in [publisher(), viewer(true)] {
        t.tell(Input::ChannelOpened);
        assert_eq!(t.tell(Input::SocketClosed), ["end client_gone"]);
    }
}

#[test]
fn a_channel_that_closes_after_the_switch_ends_the_session() {
    let mut t = viewer(true);
    t.tell(Input::ChannelOpened);
    t.says(json!({"switchChannel": "red5pro"}));
    t.tell(Input::SocketClosed);
    assert_eq!(t.tell(Input::ChannelClosed), ["end client_gone"]);
}

#[test]
fn a_viewer_hears_of_its_stream_over_whatever_it_has() {
    let mut t = viewer(false);
    let data = super::data::to_frame("whoAmI", &json!(["x", 2.5, null, true]), &Limits::default()).unwrap();
    assert_eq!(t.tell(Input::Data(&data)), ["< send"]);
    assert_eq!(t.tell(Input::Unpublished), ["< NetStream.Play.UnpublishNotify"]);
    let over = Reason::peer("source_gone", "its publisher did not come back");
    let said = t.tell(Input::Ended(&over));
    assert_eq!(said[0], "< error its publisher did not come back");
    assert_eq!(said[1..], ["< NetConnection.Connect.Closed", "close source_gone"]);

    let mut t = viewer(true);
    t.tell(Input::ChannelOpened);
    t.says(json!({"switchChannel": "red5pro"}));
    t.tell(Input::SocketClosed);
    assert_eq!(t.tell(Input::Data(&data)), ["<< send"]);
    assert_eq!(t.tell(Input::Unpublished), ["<< NetStream.Play.UnpublishNotify"]);
}

#[test]
fn what_clients_compare_is_said_letter_by_letter() {
    let mut t = Talk::new("s1");
    t.says(json!({"isAvailable": "s1", "bundle": false}));
    assert_eq!(t.raw(Input::Available(false)), [json!({"isAvailable": false, "id": "s1"})]);
    t.says(offer("s1"));
    let said = t.raw(Input::Described { sdp: SDP, candidates: &candidates() });
    assert_eq!(said[0], json!({"data": {"sdp": {"type": "answer", "sdp": SDP}}}));
    let c = json!({"candidate": candidates()[0], "sdpMid": "a0", "sdpMLineIndex": 0});
    assert_eq!(said[1], json!({"data": {"type": "candidate", "candidate": c}}));
    let trickled = json!({"data": {"type": "status", "code": "NetConnection.ICE.TrickleCompleted"}});
    assert_eq!(said[2], trickled, "a message member would hide it");
    let available = json!({"data": {"type": "status", "code": "NetConnection.DataChannel.Available", "description": "red5pro"}});
    assert_eq!(t.raw(Input::ChannelOpened), [available]);
    let mut t = viewer(false);
    let about = About { video: true, audio: false, size: Some((640, 480)) };
    let data = json!({"orientation": 0, "streamingMode": "Video", "resolution": "640,480"});
    let said = t.raw(Input::Started(about));
    assert_eq!(said[1], json!({"type": "metadata", "method": "onMetaData", "data": data}));
    let data = super::data::to_frame("m", &json!({"a": 1}), &Limits::default()).unwrap();
    let sent = json!({"send": {"method": "m", "data": {"a": 1}, "senderName": "s1", "dcLabel": "red5pro"}});
    assert_eq!(t.raw(Input::Data(&data)), [sent]);
}

#[test]
fn a_taken_name_and_a_stream_that_is_not_there() {
    let mut t = Talk::new("s1");
    t.says(json!({"isAvailable": "s1", "bundle": true}));
    assert_eq!(t.tell(Input::Available(true)), ["< isAvailable true"]);
    let busy = Reason::peer("name_busy", "live/s1 is being published by someone else");
    t.says(offer("s1"));
    assert_eq!(t.tell(Input::Failed(&busy)), ["< error live/s1 is being published by someone else"]);
    assert_eq!(t.tell(Input::SocketClosed), [""; 0]);

    // A viewer that keeps its websocket may ask again, and for another stream.
    let mut t = Talk::new("subscriber-1");
    t.says(json!({"isAvailable": "s1"}));
    assert_eq!(t.tell(Input::Available(false)), ["< isAvailable false"]);
    assert_eq!(t.says(json!({"isAvailable": "s2"})), ["find s2"]);
    assert_eq!(t.tell(Input::Available(true)), ["< isAvailable true"]);
    assert_eq!(t.says(json!({"requestOffer": "s2"})), ["offer s2 false"]);
}

#[test]
fn a_viewer_may_ask_for_its_offer_at_once_and_subscribe_early() {
    let mut t = Talk::new("subscriber-1");
    assert_eq!(t.says(json!({"requestOffer": "s1", "transport": "udp"})), ["offer s1 false"]);
    t.tell(Input::Described { sdp: SDP, candidates: &[] });
    assert_eq!(t.says(json!({"subscribe": "s1"})), [""; 0]);
    t.says(json!({"handleAnswer": "s1", "data": {"sdp": {"sdp": "ANSWER", "type": "answer"}}}));
    assert_eq!(t.tell(Input::AnswerTaken), ["< NetConnection.ICE.TrickleCompleted", "start"]);
    assert_eq!(t.tell(Input::AnswerTaken), [""; 0], "once");
}

#[test]
fn a_viewer_that_will_not_switch_is_not_told_of_the_channel() {
    let mut t = Talk::new("subscriber-1");
    t.says(json!({"requestOffer": "s1", "datachannel": true, "doNotSwitch": true}));
    t.tell(Input::Described { sdp: SDP, candidates: &[] });
    t.says(json!({"handleAnswer": "s1", "data": {"sdp": {"sdp": "ANSWER", "type": "answer"}}}));
    t.tell(Input::AnswerTaken);
    assert_eq!(t.tell(Input::ChannelOpened), [""; 0]);
}

#[test]
fn what_makes_no_sense_is_refused_in_words_and_ends_nothing() {
    let mut t = publisher();
    let refused =
        |said: Vec<String>| said.len() == 1 && said[0].starts_with("< error ") && said[0].len() > 30;
    for message in [
        json!({"handleOffer": "s1", "data": {}}),
        offer("s1"),
        offer("other"),
        json!({"requestOffer": "s1"}),
        json!({"handleAnswer": "s1", "data": {"sdp": {"sdp": "x", "type": "answer"}}}),
        json!({"subscribe": "s1"}),
        json!({"switchChannel": "red5pro"}),
        json!({"send": {"data": 1}}),
        json!(["no", "object"]),
    ] {
        let said = t.says(message.clone());
        assert!(refused(said.clone()), "{message}: {said:?}");
    }
    assert!(refused(t.tell(Input::Text { way: Way::Socket, text: "not JSON" })));
    let call = json!({"callAdapter": {"method": "dance", "arguments": []}, "id": "1f3", "async": true});
    let said = t.raw(Input::Text { way: Way::Socket, text: &call.to_string() });
    assert_eq!((&said[0]["id"], said[0]["error"].is_string()), (&json!("1f3"), true));
    // Passed over.
    assert_eq!(t.says(json!({"joinGroup": "x"})), ["log"]);
    assert_eq!(t.says(json!({"log": "DEBUG", "message": "x"})), ["log"]);
    assert_eq!(t.says(json!({"mute": {"muteAudio": true}})), ["data"]);
    assert_eq!(t.says(json!({"unpublish": "s1"})).last().unwrap(), "end unpublished");
}

#[test]
fn floods_of_messages_and_of_candidates_end_it_and_an_unused_socket_is_closed() {
    let mut t = publisher();
    let mut said = Vec::new();
    for _ in 0..=Limits::default().signalling_messages_per_s {
        t.dialect.handle(Input::Text { way: Way::Socket, text: r#"{"log":"D","message":"x"}"# }, t.now);
        said.extend(std::iter::from_fn(|| t.dialect.poll()).map(|o| word(&o)).filter(|w| w != "log"));
    }
    assert_eq!(said[1..], ["end signalling_flood", "close signalling_flood"]);

    let mut t = publisher();
    let said: Vec<String> = (0..3_000).flat_map(|_| t.says(candidate("s1"))).collect();
    assert!(said.contains(&"end too_many_candidates".to_owned()), "{said:?}");

    let mut t = Talk::new("s1");
    t.now = t.dialect.deadline().unwrap().at;
    assert_eq!(t.tell(Input::Tick).last().unwrap(), "close signalling_idle");
    assert!(publisher().dialect.deadline().is_none());
}

#[test]
fn data_survives_the_way_through_the_media_model() {
    let limits = Limits::default();
    let data = json!({"a": [1, 2.5, "x", null, true, {"deep": {"er": []}}], "b": ""});
    let payload = super::data::to_frame("method", &data, &limits).unwrap();
    assert_eq!(super::data::of_frame(&payload, &limits), Some(("method".to_owned(), data)));
    let deep = (0..20).fold(json!(1), |v, _| json!([v]));
    assert_eq!(super::data::to_frame("m", &deep, &limits), None);
    let many = Value::Array(vec![json!(1); 600]);
    assert_eq!(super::data::to_frame("m", &many, &limits), None);
}

/// How clients of each generation ask for an offer: with more members each time.
#[test]
fn offers_are_asked_for_in_the_words_of_each_generation() {
    let asks = [
        (json!({"requestOffer": "s1", "requestId": "subscriber-1", "transport": "udp"}), false),
        (
            json!({"requestOffer": "s1", "requestId": "subscriber-1", "transport": "udp", "datachannel": true}),
            true,
        ),
        (
            json!({"requestOffer": "s1", "requestId": "subscriber-1", "transport": "tcp", "datachannel": true,
                "doNotSwitch": false, "videoEncoding": "H264", "audioEncoding": "OPUS"}),
            true,
        ),
        (json!({"requestOffer": "s1", "requestId": "subscriber-1", "extra": {"of": "a newer one"}}), false),
    ];
    for (ask, channel) in asks {
        let mut t = Talk::new("subscriber-1");
        assert_eq!(t.says(ask), [format!("offer s1 {channel}")]);
        assert_eq!(t.tell(Input::Described { sdp: SDP, candidates: &candidates() }), ["< offer"]);
        // Candidates of the viewer before its answer, with and without its request.
        assert_eq!(t.says(candidate("s1")), [""; 0]);
        let answer = json!({"handleAnswer": "s1", "requestId": "subscriber-1",
            "data": {"sdp": {"sdp": "ANSWER", "type": "answer"}}});
        assert_eq!(t.says(answer), ["answer ANSWER"]);
        let agreed = ["< candidate", "< NetConnection.ICE.TrickleCompleted"];
        assert_eq!(t.tell(Input::AnswerTaken), agreed);
        assert_eq!(t.says(no_more_candidates("s1")), [""; 0], "not a second time");
        assert_eq!(t.says(json!({"subscribe": "s1", "requestId": "subscriber-1"})), ["start"]);
    }
}

/// Publishers of 7.2.2 (`bundle` false, no data channel), of 14 (encodings), and one that asks nothing first.
#[test]
fn offers_are_made_in_the_words_of_each_generation() {
    let sdp = json!({"sdp": {"sdp": "OFFER", "type": "offer"}});
    let before: [Option<Value>; 3] = [
        Some(json!({"isAvailable": "s1", "bundle": false})),
        Some(json!({"isAvailable": "s1", "bundle": true})),
        None,
    ];
    let offers = [
        json!({"handleOffer": "s1", "transport": "udp", "data": sdp}),
        json!({"handleOffer": "s1", "transport": "tcp", "videoEncoding": "VP8", "data": sdp}),
        json!({"handleOffer": "s1", "transport": "udp", "videoEncoding": "H264", "audioEncoding": "OPUS", "data": sdp}),
    ];
    for ask in &before {
        for offer in &offers {
            for mode in ["live", "record", "append"] {
                let mut t = Talk::new("s1");
                if let Some(ask) = ask {
                    assert_eq!(t.says(ask.clone()), ["ask s1"]);
                    assert_eq!(t.tell(Input::Available(false)), ["< isAvailable false"]);
                }
                assert_eq!(t.says(offer.clone()), ["publish s1 OFFER"]);
                t.tell(Input::Described { sdp: SDP, candidates: &candidates() });
                assert_eq!(t.says(json!({"publish": "s1", "mode": mode})), ["start"]);
                let started = t.tell(Input::Started(About::default()));
                assert_eq!(started, ["< NetStream.Publish.Start s1 starting"]);
            }
        }
    }
}

fn switch(path: &str, id: &str) -> Value {
    let arguments = if path.is_empty() { json!([]) } else { json!([{"path": path}]) };
    json!({"callAdapter": {"method": "switchStreams", "arguments": arguments}, "id": id, "async": true})
}

#[test]
fn a_viewer_switches_to_another_stream_or_is_told_why_not() {
    let raw =
        |t: &mut Talk, message: Value| t.raw(Input::Text { way: Way::Socket, text: &message.to_string() });
    let mut t = viewer(false);
    assert_eq!(t.says(switch("live/s2", "1")), ["switch live/s2"]);
    let said = raw(&mut t, switch("live/s3", "2"));
    assert_eq!(said, [json!({"id": "2", "async": true, "error": "the switch before is not over yet"})]);
    let about = About { video: true, audio: true, size: Some((640, 480)) };
    let said = t.raw(Input::Switched(Ok(("s2", about))));
    let data = json!({"type": "result", "message": "Stream switch: Success"});
    assert_eq!(said[0], json!({"id": "1", "async": true, "data": data}));
    assert_eq!((said.len(), &said[1]["data"]["resolution"]), (2, &json!("640,480")));
    assert_eq!(t.tell(Input::Switched(Ok(("s9", about)))), [""; 0], "nothing was asked");
    // Data is of the stream that plays now.
    let data = super::data::to_frame("m", &json!(1), &Limits::default()).unwrap();
    assert_eq!(t.raw(Input::Data(&data))[0]["send"]["senderName"], "s2");
    // What cannot be had leaves everything as it was.
    assert_eq!(t.says(switch("/live/absent", "3")), ["switch /live/absent"]);
    let absent = Reason::peer("not_found", "nobody publishes live/absent");
    let said = t.raw(Input::Switched(Err(&absent)));
    assert_eq!(said, [json!({"id": "3", "async": true, "error": "nobody publishes live/absent"})]);
    assert!(!t.dialect.is_switching());
    let said = raw(&mut t, switch("", "4"));
    assert!(said[0]["error"].as_str().unwrap().contains("app/name"), "{said:?}");
    let said = raw(&mut publisher(), switch("live/s2", "5"));
    assert!(said[0]["error"].as_str().unwrap().contains("only a viewer"), "{said:?}");
    let said = raw(&mut Talk::new("subscriber-1"), switch("live/s2", "6"));
    assert!(said[0]["error"].as_str().unwrap().contains("only a viewer"), "before it plays: {said:?}");
}

/// A publisher that gives up at each step: whatever was asked of the node is ended, and `unpublish` is always answered.
#[test]
fn a_publisher_may_stop_at_each_step() {
    for steps in 0..4 {
        for by_word in [true, false] {
            let mut t = Talk::new("s1");
            let mut said = Vec::new();
            if steps > 0 {
                said.extend(t.says(json!({"isAvailable": "s1", "bundle": true})));
                said.extend(t.tell(Input::Available(false)));
            }
            if steps > 1 {
                said.extend(t.says(offer("s1")));
            }
            if steps > 2 {
                said.extend(t.tell(Input::Described { sdp: SDP, candidates: &candidates() }));
            }
            if by_word {
                let stopped = t.says(json!({"unpublish": "s1"}));
                assert_eq!(stopped[0], "< NetStream.Unpublish.Success s1 stopping");
                said.extend(stopped);
            }
            said.extend(t.tell(Input::SocketClosed));
            assert!(t.dialect.is_gone());
            let published = said.iter().any(|s| s.starts_with("publish "));
            let ended = said.iter().filter(|s| s.starts_with("end ")).count();
            assert!(ended == 1 || (!published && ended == 0), "{steps} {by_word}: {said:?}");
        }
    }
}

/// What is said of each failure, in full: clients show it, and scripts look for it.
#[test]
fn failures_are_said_in_these_words() {
    let error = |t: &mut Talk, message: &Value| {
        let said = t.raw(Input::Text { way: Way::Socket, text: &message.to_string() });
        let data = &said[0]["data"];
        assert_eq!((said.len(), &data["type"]), (1, &json!("error")), "{message}: {said:?}");
        assert!(
            data["status"].is_u64() && data["detail"].is_string() && data.get("code").is_none(),
            "{said:?}"
        );
        data["message"].as_str().unwrap().to_owned()
    };
    let mut viewer = viewer(false);
    let mut publisher = publisher();
    for (publishes, message, words) in [
        (true, json!([]), "the message is no JSON object"),
        (
            true,
            json!({"handleOffer": "s1"}),
            "handleOffer needs data.sdp.sdp with an SDP offer, and data.sdp.type \"offer\"",
        ),
        (true, offer("s1"), "this session has its offer already; renegotiation is not supported"),
        (true, offer("s9"), "this websocket is about \"s1\", not \"s9\""),
        (true, json!({"subscribe": "s1"}), "this websocket does not play; open another for that"),
        (true, json!({"send": {}}), "send needs the name of a method as its member `method`"),
        (
            true,
            json!({"switchChannel": "red5pro"}),
            "there is no open data channel of that label to switch to",
        ),
        (
            false,
            json!({"requestOffer": "s1"}),
            "this session waits for something else, or has its offer already",
        ),
        (
            false,
            json!({"handleAnswer": "s1", "data": {"sdp": {"type": "answer", "sdp": "x"}}}),
            "there is no offer that this could answer",
        ),
        (false, json!({"publish": "s1"}), "this websocket does not publish; open another for that"),
        (false, json!({"send": {"method": "m"}}), "only a publisher can send to the viewers"),
    ] {
        let t = if publishes { &mut publisher } else { &mut viewer };
        assert_eq!(error(t, &message), words, "{message}");
    }
    let busy = Reason::peer("name_busy", "live/s1 is being published by someone else");
    let mut t = Talk::new("s1");
    t.says(offer("s1"));
    let said = t.raw(Input::Failed(&busy));
    let wanted = json!({"type": "error", "message": busy.text, "detail": "name_busy", "status": 409});
    assert_eq!(said, [json!({"data": wanted})]);
    let over = error(&mut t, &offer("s1"));
    assert_eq!(over, "this session is over; open another websocket");
}

fn message() -> impl Strategy<Value = String> {
    let member = proptest::sample::select(vec![
        "isAvailable",
        "handleOffer",
        "requestOffer",
        "handleAnswer",
        "handleCandidate",
        "publish",
        "subscribe",
        "unpublish",
        "switchChannel",
        "send",
        "mute",
        "callAdapter",
        "log",
        "other",
    ]);
    let value = prop_oneof![
        Just(json!("s1")),
        Just(json!("red5pro")),
        Just(json!({"method": "m"})),
        Just(Value::Null),
        Just(json!([1])),
    ];
    let sdp = json!({"sdp": {"sdp": "SDP"}});
    (member, value).prop_map(move |(m, v)| json!({ m: v, "data": sdp, "datachannel": true }).to_string())
}

proptest! {
    /// Whatever comes in whatever order: at most one end, one offer or answer, one end of trickling.
    #[test]
    fn nothing_happens_twice(steps in proptest::collection::vec((0..11u8, message(), any::<bool>()), 0..60)) {
        let mut t = Talk::new("s1");
        let mut said = Vec::new();
        for (what, text, channel) in steps {
            let way = if channel { Way::Channel } else { Way::Socket };
            let (reason, ours) = (Reason::peer("x", "y"), candidates());
            said.extend(t.tell(match what {
                0 => Input::Available(channel),
                1 => Input::Described { sdp: SDP, candidates: &ours },
                2 => Input::AnswerTaken,
                3 => Input::ChannelOpened,
                4 => Input::Failed(&reason),
                5 => Input::Tick,
                6 => Input::Data(text.as_bytes()),
                7 if channel => Input::Switched(Err(&reason)),
                _ => Input::Text { way, text: &text },
            }));
        }
        let count = |f: &dyn Fn(&str) -> bool| said.iter().filter(|s| f(s)).count();
        prop_assert!(count(&|s| s.starts_with("end ")) <= 1);
        prop_assert!(count(&|s| s.ends_with("TrickleCompleted")) <= 1);
        prop_assert!(count(&|s| s.starts_with("publish ") || s.starts_with("offer ")) <= 1);
        prop_assert!(count(&|s| s.ends_with("< answer") || s.ends_with("< offer")) <= 1);
    }
}
