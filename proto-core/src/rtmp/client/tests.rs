use super::*;
use crate::media::frame::{Frame, FrameKind, NewFrame, Rotation};
use crate::media::track::{CodecConfig, Origin};
use crate::rtmp::server::{self, Server};
use std::sync::Arc;

const T0: Time = Time::from_millis(1_000);

fn target(stream: &str) -> Target {
    Target { tls: false, host: "10.0.0.7".into(), app: "live".into(), stream: stream.into() }
}

fn client(task: Task) -> Client {
    let mut c =
        Client::of_node(target("s?key=x"), task, "mark".into(), Limits::default(), Rng::new([3; 32]), T0);
    c.handle(Input::Writable(1 << 20), T0);
    c
}

fn h264() -> CodecParams {
    let sps =
        Bytes::from_static(&[0x67, 66, 0xc0, 12, 0xd9, 3, 0xc5, 0x68, 0x40, 0, 0, 3, 0, 0x40, 0, 0, 0x0c, 3]);
    crate::media::h264::h264_params(vec![sps], vec![Bytes::from_static(&[0x68, 0xcb, 0x8c, 0xb2])])
}

fn config(track: TrackId, params: CodecParams) -> Delivery {
    Delivery::Config { track, config: Arc::new(CodecConfig { version: 1, params, origin: Origin::Ingest }) }
}

fn frame(at: i64) -> Delivery {
    let media = NewFrame {
        track: TrackId::VIDEO,
        dts: at,
        pts: at,
        kind: if at == 0 { FrameKind::Key } else { FrameKind::Delta },
        discardable: false,
        temporal_layer: 0,
        rotation: Rotation::R0,
        capture: None,
        payload: Bytes::from_static(&[0, 0, 0, 2, 0x65, 1]),
    };
    let frame =
        Frame { seq: 1, epoch: Default::default(), config_version: 1, media, renderings: Default::default() };
    Delivery::Frame { frame: Arc::new(frame), dts: at, pts: at, cached: false }
}

/// What both said that the other does not hear.
#[derive(Default)]
struct Pair {
    client: Vec<Output>,
    server: Vec<server::Output>,
}

impl Pair {
    fn closed(&self) -> Option<&Reason> {
        self.client.iter().find_map(|o| match o {
            Output::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Carries bytes between our client and our server until neither says more; the server's node agrees to all.
    fn run(&mut self, client: &mut Client, server: &mut Server) {
        loop {
            let mut quiet = true;
            while let Some(said) = client.poll() {
                quiet = false;
                match said {
                    Output::Send(bytes) => server.handle(server::Input::Received(&bytes), T0),
                    other => self.client.push(other),
                }
            }
            while let Some(said) = server.poll() {
                quiet = false;
                match &said {
                    server::Output::Send(bytes) => client.handle(Input::Received(bytes), T0),
                    server::Output::PublishRequested { .. } => {
                        server.handle(server::Input::PublishAccepted(1), T0)
                    }
                    server::Output::PlayRequested { .. } => server.handle(server::Input::PlayAccepted(1), T0),
                    _ => {}
                }
                self.server.push(said);
            }
            if quiet {
                return;
            }
        }
    }
}

fn server() -> Server {
    let mut s = Server::new(Limits::default(), Rng::new([4; 32]), T0);
    s.handle(server::Input::Writable(1 << 20), T0);
    s
}

/// Only who said that it obeys is asked to go elsewhere, and then says good-bye.
#[test]
fn a_client_that_obeys_goes_where_the_server_sends_it() {
    for (obeys, to) in
        [(true, Some("rtmp://10.0.0.8:1935")), (true, None), (false, Some("rtmp://10.0.0.8:1935"))]
    {
        let (host, rng) = ("10.0.0.7", Rng::new([3; 32]));
        let c = Client::new(host, "live?token=a%2Fb", "s", Limits::default(), rng, T0);
        let mut c = if obeys { c.obeying() } else { c };
        c.handle(Input::Writable(1 << 20), T0);
        let (mut s, mut pair) = (server(), Pair::default());
        pair.run(&mut c, &mut s);
        assert!(pair.client.contains(&Output::Ready) && pair.closed().is_none());
        s.handle(server::Input::Reconnect(to.map(str::to_owned)), T0);
        pair.run(&mut c, &mut s);
        let asked = pair.client.iter().find_map(|o| match o {
            Output::Reconnect(url) => Some(url.clone()),
            _ => None,
        });
        // What it showed in the app's query it shows again.
        let url = to.map(|base| format!("{base}/live?token=a%2Fb"));
        assert_eq!(asked, obeys.then_some(url));
        assert_eq!(pair.closed().map(|r| r.code), obeys.then_some("reconnect"));
        assert_eq!(pair.server.contains(&server::Output::Unpublished(1)), obeys);
    }
}

#[test]
fn a_stream_of_a_server_is_played_until_it_ends() {
    let (mut c, mut s, mut pair) = (client(Task::Play), server(), Pair::default());
    pair.run(&mut c, &mut s);
    let asked = pair.server.iter().any(
        |o| matches!(o, server::Output::PlayRequested { key, query, .. } if key.as_str() == "live/s" && query == "key=x"),
    );
    assert!(asked && pair.client.contains(&Output::Ready), "{:?}", pair.client);
    for item in [config(TrackId::VIDEO, h264()), frame(0), frame(40_000_000)] {
        s.handle(server::Input::Deliver(1, &item), T0);
    }
    pair.run(&mut c, &mut s);
    let sample_access = pair.client.iter().any(|o| format!("{o:?}").contains("RtmpSampleAccess"));
    assert!(!sample_access, "what the server says for itself is no data of the stream");
    let data = |o: &&Output| matches!(o, Output::Media(Ingest::Frame(f)) if f.kind == FrameKind::Data);
    let media: Vec<_> = pair.client.iter().filter(|o| matches!(o, Output::Media(_)) && !data(o)).collect();
    assert!(matches!(media[0], Output::Media(Ingest::Config { track: TrackId::VIDEO, .. })), "{media:?}");
    assert_eq!(media.len(), 3, "{media:?}");
    let over = Reason::local("over", "over");
    s.handle(server::Input::StreamEnded(1, over), T0);
    pair.run(&mut c, &mut s);
    assert_eq!(pair.closed().unwrap().code, "remote_ended");
}

#[test]
fn a_stream_of_the_hub_is_sent_and_taken_back() {
    let (mut c, mut s, mut pair) = (client(Task::Publish), server(), Pair::default());
    pair.run(&mut c, &mut s);
    assert!(pair.client.contains(&Output::Ready));
    assert!(c.takes().has(crate::media::track::Codec::Opus), "our server says that it takes it");
    for item in [config(TrackId::VIDEO, h264()), frame(0), frame(40_000_000)] {
        c.handle(Input::Deliver(&item), T0);
    }
    c.handle(Input::Close(Reason::local("unpublished", "the publisher left")), T0);
    pair.run(&mut c, &mut s);
    let frames = pair
        .server
        .iter()
        .filter(|o| matches!(o, server::Output::Media(_, Ingest::Frame(f)) if f.kind != FrameKind::Data));
    assert_eq!(frames.count(), 2);
    assert!(pair.server.contains(&server::Output::Unpublished(1)));
    assert_eq!(pair.closed().unwrap().code, "unpublished");
}

#[test]
fn silence_and_refusals_are_told_in_words() {
    let (mut c, mut s, mut pair) = (client(Task::Play), server(), Pair::default());
    pair.run(&mut c, &mut s);
    let at = c.deadline().unwrap().at;
    assert_eq!(at, T0 + Duration::from_millis(10_000));
    c.handle(Input::Tick, at);
    pair.run(&mut c, &mut s);
    assert_eq!(pair.closed().unwrap().code, "remote_silent");

    let mut c = client(Task::Publish);
    let at = c.deadline().unwrap().at;
    c.handle(Input::Tick, at);
    let mut said = Vec::new();
    while let Some(o) = c.poll() {
        said.push(o);
    }
    let words = said.iter().find_map(|o| match o {
        Output::Closed(r) => Some(r.text.to_string()),
        _ => None,
    });
    assert!(words.unwrap().contains("handshake was under way"));

    let (mut c, mut s) = (client(Task::Publish), server());
    let mut words = None;
    for _ in 0..100 {
        while let Some(o) = c.poll() {
            match o {
                Output::Send(b) => s.handle(server::Input::Received(&b), T0),
                Output::Closed(r) => words = Some((r.code, r.text)),
                _ => {}
            }
        }
        while let Some(o) = s.poll() {
            match o {
                server::Output::Send(b) => c.handle(Input::Received(&b), T0),
                server::Output::PublishRequested { .. } => {
                    let no = Reason::peer("name_busy", "taken by another");
                    s.handle(server::Input::PublishRefused(1, no), T0);
                }
                _ => {}
            }
        }
    }
    let (code, text) = words.unwrap();
    assert!(code == "rtmp_refused" && text.contains("taken by another"), "{code} {text}");
}

#[test]
fn who_does_not_read_is_given_up() {
    let (mut c, mut s, mut pair) = (client(Task::Publish), server(), Pair::default());
    pair.run(&mut c, &mut s);
    c.handle(Input::Writable(0), T0);
    for item in [config(TrackId::VIDEO, h264()), frame(0)] {
        c.handle(Input::Deliver(&item), T0);
    }
    let deadline = c.deadline().unwrap();
    assert_eq!(deadline.at, T0 + Duration::from_millis(5_000));
    c.handle(Input::Tick, deadline.at);
    pair.run(&mut c, &mut s);
    assert_eq!(pair.closed().unwrap().code, "viewer_stuck");
}
