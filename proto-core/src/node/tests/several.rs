//! Several streams on one RTMP connection: a session each, with rights and an end of its own.

use super::*;
use crate::wire::amf0::{Value, emit_all};
use crate::wire::rtmp_chunk::render_message;
use crate::wire::rtmp_message::{Message, kind};

pub(super) fn message(kind: u8, stream: u32, values: &[Value]) -> Vec<u8> {
    let payload = emit_all(values).freeze();
    render_message(&Message { csid: 3, timestamp: 0, kind, stream, payload }, 128).to_vec()
}

pub(super) fn command(stream: u32, name: &str, args: &[Value]) -> Vec<u8> {
    let head = [Value::string(name), Value::Number(1.0), Value::Null];
    message(kind::COMMAND, stream, &[&head, args].concat())
}

pub(super) fn does(bench: &mut Bench, conn: ConnId, bytes: &[u8]) -> Vec<Output> {
    let mut said = bench.tell(Input::Received { conn, bytes });
    for _ in 0..5 {
        // The cluster's answers come with the next turns.
        said.extend(bench.later(Duration::from_millis(1)));
        said.extend(bench.tell(Input::Writable { conn, free: 1 << 20 }));
    }
    said
}

pub(super) fn named(stream: u32, verb: &str, name: &str) -> Vec<u8> {
    command(stream, verb, &[Value::string(name)])
}

/// What runs on a connection: the stream's name, and whether it is published.
fn runs(bench: &Bench, conn: ConnId) -> Vec<(String, bool)> {
    let of = bench.node.sessions.of_conn(conn);
    let all = of.iter().filter_map(|id| bench.node.sessions.get(*id));
    all.map(|s| (s.key.to_string(), s.is_publisher())).collect()
}

#[test]
fn each_message_stream_is_a_session_and_its_end_is_not_the_others() {
    let mut bench = Bench::new(|_| {});
    let conn = bench.accept(1, Service::Rtmp);
    let app = Value::object([("app", Value::string("live"))]);
    let connect = message(kind::COMMAND, 0, &[Value::string("connect"), Value::Number(1.0), app]);
    let create = command(0, "createStream", &[]).repeat(3);
    does(&mut bench, conn, &[vec![3], vec![0; 2 * 1536], connect, create].concat());
    let both = [named(1, "publish", "one"), named(2, "publish", "two")].concat();
    let said = text_of(&does(&mut bench, conn, &both), conn);
    assert_eq!(said.matches("NetStream.Publish.Start").count(), 2, "{said}");
    does(&mut bench, conn, &message(kind::DATA, 2, &["@setDataFrame", "onMetaData", "x"].map(Value::string)));
    let entry = |name: &str, publishes| (format!("live/{name}"), publishes);
    assert_eq!(runs(&bench, conn), [entry("one", true), entry("two", true)]);
    let bytes = |bench: &Bench| {
        let of = bench.node.sessions.of_conn(conn);
        of.iter().filter_map(|id| bench.node.sessions.get(*id)).map(|s| s.bytes_in).collect::<Vec<_>>()
    };
    assert!(bytes(&bench)[0] == 0 && bytes(&bench)[1] > 0, "each has what came for it: {:?}", bytes(&bench));
    // A name that another has is refused, and costs the others nothing.
    let said = text_of(&does(&mut bench, conn, &named(3, "publish", "two")), conn);
    assert!(said.contains("NetStream.Publish.BadName"), "{said}");
    assert_eq!(runs(&bench, conn).len(), 2);
    does(&mut bench, conn, &command(0, "deleteStream", &[Value::Number(1.0)]));
    assert_eq!(runs(&bench, conn), [entry("two", true)]);
    // The end of the connection is the end of all on it.
    bench.tell(Input::Closed { conn, reason: Reason::peer("peer_closed", "gone") });
    assert!(runs(&bench, conn).is_empty() && bench.node.sessions.iter().next().is_none());
    bench.node.verify().unwrap();
}
