//! A trace for people: one line for each input and output, in columns. Of what was sent it shows size and fingerprint
//! only, since that holds secrets.

use proto_core::bridge::{BridgeJob, BridgeWork};
use proto_core::error::Reason;
use proto_core::io::{Answer, Batch, ConnId, Input, Output, Work};
use proto_core::recording::Seen;
use proto_core::time::Time;
use proto_core::trace::xxh64;
use std::io;

/// Prints what lies between two moments.
#[derive(Debug)]
pub(super) struct Columns {
    from: Time,
    to: Option<Time>,
}

/// What stands in the last three columns.
struct Row {
    what: &'static str,
    who: String,
    detail: String,
}

impl Row {
    fn new(what: &'static str, who: impl ToString, detail: impl Into<String>) -> Row {
        Row { what, who: who.to_string(), detail: detail.into() }
    }
}

impl Columns {
    pub(super) const fn new(from: Time, to: Option<Time>) -> Columns {
        Columns { from, to }
    }

    /// Prints a line, if its time is asked for. `number` is that of the input, from 1.
    pub(super) fn line(
        &mut self,
        out: &mut impl io::Write,
        number: u64,
        at: Time,
        seen: &Seen<'_>,
    ) -> io::Result<()> {
        if at < self.from || self.to.is_some_and(|to| at > to) {
            return Ok(());
        }
        let (sign, row) = match seen {
            Seen::Input(input) => ('>', of_input(input)),
            Seen::Output(output) => ('<', of_output(output)),
        };
        let Row { what, who, detail } = row;
        let line = format!("{:>14} {sign} {number:>8} {what:<11} {who:<10} {detail}", at.to_string());
        // What a peer said may stand in a reason or a log line: it must not forge another line.
        let safe: String = line.trim_end().chars().map(|c| if c.is_control() { '.' } else { c }).collect();
        writeln!(out, "{safe}")
    }
}

fn of_input(input: &Input<'_>) -> Row {
    match input {
        Input::Tick => Row::new("tick", "", ""),
        Input::Busy { permille } => Row::new("busy", "", format!("{permille} permille")),
        Input::WallClock(wall) => Row::new("wall clock", "", format!("{} ms since 1970", wall.0 / 1_000_000)),
        Input::HostAddresses(addresses) => Row::new("addresses", "", format!("{addresses:?}")),
        Input::Accepted { conn, service, local, remote } => {
            Row::new("accepted", conn, format!("{} {remote} -> {local}", service.name()))
        }
        Input::Connected { conn, local, remote } => {
            Row::new("connected", conn, format!("{local} -> {remote}"))
        }
        Input::Received { conn, bytes } => Row::new("received", conn, stream_bytes(bytes)),
        Input::Writable { conn, free } => Row::new("writable", conn, format!("{free} bytes")),
        Input::PeerFinished { conn } => Row::new("finished", conn, ""),
        Input::Closed { conn, reason } => Row::new("closed", conn, why(reason)),
        Input::UdpOpened { socket, local, max_segments } => Row::new(
            "udp opened",
            format!("u{}", socket.0),
            format!("{local}, {max_segments} segments a message"),
        ),
        Input::UdpFailed { socket, reason } => Row::new("udp failed", format!("u{}", socket.0), why(reason)),
        Input::Datagram { socket, local, remote, stride, bytes } => {
            let count = bytes.len().div_ceil((*stride).max(1));
            let detail = format!("{remote} -> {local}, {count} {}", datagrams(bytes));
            Row::new("datagram", format!("u{}", socket.0), detail)
        }
        Input::Sent { batch, refused } => {
            let detail = format!("{} messages gone, {refused} of them refused", batch.items.len());
            Row::new("sent", format!("u{}", batch.socket.0), detail)
        }
        Input::Answer { ask, answer: Answer::Resolved(found) } => {
            let detail = match found {
                Ok(found) => format!("{found:?}"),
                Err(why) => why.clone(),
            };
            Row::new("answer", format!("ask {}", ask.0), detail)
        }
        Input::Answer { ask, answer: Answer::File(found) } => {
            let detail = match found {
                Ok(bytes) => format!("{} bytes", bytes.len()),
                Err(why) => why.clone(),
            };
            Row::new("answer", format!("ask {}", ask.0), detail)
        }
        Input::Answer { ask, answer: Answer::Bridged(done) } => {
            let failed = done.failed.as_deref().map(|f| format!(", failed: {f}")).unwrap_or_default();
            let detail = format!("{} packets{failed}", done.packets.len());
            Row::new("answer", format!("ask {}", ask.0), detail)
        }
        Input::Answer { ask, answer: Answer::Checked(right) } => {
            let detail = match right {
                Ok(true) => "the password is right".to_owned(),
                Ok(false) => "the password is wrong".to_owned(),
                Err(why) => why.clone(),
            };
            Row::new("answer", format!("ask {}", ask.0), detail)
        }
        Input::Drain => Row::new("drain", "", ""),
    }
}

fn of_output(output: &Output) -> Row {
    let on_conn = |what, conn: &ConnId, detail: String| Row::new(what, conn, detail);
    match output {
        Output::Dial { conn, to } => on_conn("dial", conn, to.to_string()),
        Output::Send { conn, bytes } => on_conn("send", conn, stream_bytes(bytes)),
        Output::Close { conn, now } => {
            on_conn("close", conn, if *now { "at once" } else { "when all is sent" }.to_owned())
        }
        Output::Reading { conn, on } => {
            on_conn("reading", conn, if *on { "goes on" } else { "stops" }.to_owned())
        }
        Output::LetIn { conn } => on_conn("let in", conn, String::new()),
        Output::OpenUdp { socket, bind } => Row::new("open udp", format!("u{}", socket.0), bind.to_string()),
        Output::CloseUdp { socket } => Row::new("close udp", format!("u{}", socket.0), ""),
        Output::Datagrams(batch) => Row::new("datagrams", format!("u{}", batch.socket.0), messages(batch)),
        Output::Ask { ask, work: Work::Resolve { host, port } } => {
            Row::new("ask", format!("ask {}", ask.0), format!("the address of {host}:{port}"))
        }
        Output::Ask { ask, work: Work::ReadFile { path } } => {
            Row::new("ask", format!("ask {}", ask.0), format!("what {path} holds"))
        }
        Output::Ask { ask, work: Work::Check(_) } => {
            Row::new("ask", format!("ask {}", ask.0), "whether a password is right")
        }
        Output::Ask { ask, work: Work::Bridge(BridgeWork { bridge, job }) } => {
            let what = match job {
                BridgeJob::Open { from, to } => format!("{} to {}", from.codec().name(), to.name()),
                BridgeJob::Convert(packets) => format!("{} packets", packets.len()),
                BridgeJob::KeyFrame => "key frame".to_owned(),
                BridgeJob::Close => "end".to_owned(),
                BridgeJob::Abandon => "given up".to_owned(),
            };
            Row::new("ask", format!("ask {}", ask.0), format!("bridge {}: {what}", bridge.0))
        }
        Output::Log(line) => {
            let stream = line.stream.as_deref().map(|s| format!("[{s}] ")).unwrap_or_default();
            let detail = format!("{:?} {} {stream}{}", line.level, line.target, line.text);
            Row::new("log", line.session.as_deref().unwrap_or_default(), detail)
        }
        Output::Fatal(reason) => Row::new("fatal", "", why(reason)),
        Output::Drained => Row::new("drained", "", ""),
    }
}

fn why(reason: &Reason) -> String {
    format!("{:?}: {reason}", reason.fault)
}

/// Size and fingerprint. The fingerprint is 32 bits long, so that nobody can try out what short bytes were.
fn stream_bytes(bytes: &[u8]) -> String {
    format!("{} bytes #{:08x}", bytes.len(), xxh64(bytes, 0) >> 32)
}

/// Kind (RFC 7983 section 7), size and fingerprint.
fn datagrams(bytes: &[u8]) -> String {
    let kind = match bytes {
        [0..=3, ..] => "STUN",
        [20..=63, ..] => "DTLS",
        // RFC 5761 section 4.
        [128..=191, 192..=223, ..] => "SRTCP",
        [128..=191, ..] => "SRTP",
        _ => "unknown",
    };
    format!("{kind}, {}", stream_bytes(bytes))
}

fn messages(batch: &Batch) -> String {
    let mut to: Vec<String> = batch.items.iter().map(|t| t.dst.to_string()).collect();
    to.dedup();
    let more = if to.len() > 3 { format!(" and {} more", to.len() - 3) } else { String::new() };
    to.truncate(3);
    let count: usize = batch.items.iter().map(|t| t.len.div_ceil(t.segment_size.max(1))).sum();
    format!("-> {}{more}, {count} {}", to.join(" "), datagrams(&batch.buf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proto_core::io::{Level, LogLine};

    fn lines(columns: &mut Columns, at: Time, seen: &Seen<'_>) -> String {
        let mut out = Vec::new();
        columns.line(&mut out, 7, at, seen).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bytes_are_never_shown() {
        let secret = b"POST /whip/live/x HTTP/1.1\r\nauthorization: Bearer hunter2\r\n";
        let (conn, all) = (ConnId::accepted(3), &mut Columns::new(Time::ZERO, None));
        let told =
            lines(all, Time::from_millis(1_500), &Seen::Input(&Input::Received { conn, bytes: secret }));
        assert!(told.starts_with("      1.500000 >        7 received    a3         59 bytes #"), "{told}");
        let said = Output::Send { conn, bytes: Bytes::from_static(secret) };
        let said = lines(all, Time::ZERO, &Seen::Output(&said));
        assert!(said.starts_with("      0.000000 <        7 send        a3         59 bytes #"), "{said}");
        assert!(![told, said].concat().contains("hunter2"));
    }

    #[test]
    fn a_line_stays_one_line_and_only_those_asked_for_are_printed() {
        let log = Output::Log(LogLine {
            level: Level::Info,
            target: "rtmp",
            session: Some("rtmp-1".to_owned()),
            stream: None,
            text: "a\nforged line".to_owned(),
        });
        let mut some = Columns::new(Time::from_millis(10), Some(Time::from_millis(20)));
        let got = lines(&mut some, Time::from_millis(20), &Seen::Output(&log));
        assert!(got.ends_with("log         rtmp-1     Info rtmp a.forged line\n"), "{got}");
        assert_eq!(got.matches('\n').count(), 1);
        for outside in [9, 21] {
            assert_eq!(lines(&mut some, Time::from_millis(outside), &Seen::Input(&Input::Tick)), "");
        }
    }
}
