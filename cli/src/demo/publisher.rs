//! The demo's publisher: asks the manager where to publish, connects there by RTMP, sends the clip in real time, and
//! begins again whenever that ends. It uses no way in that a stranger would not have.

use super::clip::{Clip, Due};
use crate::log::Log;
use proto_core::io::{Level, LogLine};
use proto_core::limits::Limits;
use proto_core::machine::Machine as _;
use proto_core::media::key::StreamKey;
use proto_core::rand::Rng;
use proto_core::rtmp::client::{Client, Input, Output};
use proto_core::time::{Deadline, Time};
use serde_json::Value;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::iter::Peekable;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the publisher waits before it begins again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the manager, a connection attempt or a stuck connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the machine is told that fits into the connection. Writing blocks, so the number only bounds one write.
const ROOM: usize = 256 << 10;
/// The longest sleep: so soon the publisher notices that the demo ends.
const NAP: Duration = Duration::from_millis(200);
/// How long taking leave may take.
const LEAVE: Duration = Duration::from_secs(1);

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// App and stream.
    pub(crate) key: StreamKey,
}

/// What the publisher is to do.
pub(crate) struct Job {
    /// The manager's HTTP address.
    pub(crate) manager: SocketAddr,
    /// The stream's name, `app/name`.
    pub(crate) stream: &'static str,
    /// What to publish.
    pub(crate) clip: Clip,
    /// Limits for the client machine.
    pub(crate) limits: Limits,
}

/// A publisher on a thread of its own.
pub(crate) struct Publisher {
    /// Asks it to end by going.
    go_on: Sender<()>,
    /// Tells that it has ended by the end of its sender.
    gone: Receiver<()>,
}

impl Publisher {
    /// Publishes until [`Publisher::leave`] or the end of this handle.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(job: Job, log: Log) -> io::Result<Publisher> {
        let (go_on, ended) = mpsc::channel();
        let (going, gone) = mpsc::channel();
        thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            let _going: Sender<()> = going;
            again_and_again(&job, &ended, &log);
        })?;
        Ok(Publisher { go_on, gone })
    }

    /// Lets it take leave of its origin, for [`LEAVE`] at most.
    pub(crate) fn leave(self) {
        drop(self.go_on);
        // Nothing is ever sent: this waits for the thread to let go, or long enough.
        let _ = self.gone.recv_timeout(LEAVE);
    }
}

fn again_and_again(job: &Job, ended: &Receiver<()>, log: &Log) {
    // The same complaint every second would only hide what else is said.
    let mut told = None;
    while let Err(why) = publish(job, ended, log) {
        if told.as_ref() != Some(&why) {
            let text = format!("not publishing: {why}; trying again each second");
            say(log, job.stream, Level::Warn, text);
            told = Some(why);
        }
        match ended.recv_timeout(AGAIN) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn say(log: &Log, stream: &str, level: Level, text: String) {
    log.line(&LogLine { level, target: "demo", session: None, stream: Some(stream.to_owned()), text });
}

/// Publishes once. `Ok` if the demo ends, else why publishing did.
fn publish(job: &Job, ended: &Receiver<()>, log: &Log) -> Result<(), String> {
    let target = ask_manager(job.manager, job.stream)?;
    let seed = crate::run::seed().map_err(|failure| failure.words())?;
    let host = format!("{}:{}", target.host, target.port);
    let (app, name) = (target.key.app(), target.key.name());
    let mut client = Client::new(&host, app, name, job.limits.clone(), Rng::new(seed), Time::ZERO);
    let place = (target.host.as_str(), target.port);
    let addr = place
        .to_socket_addrs()
        .map_err(|e| format!("the origin's name {} is not known: {e}", target.host))?
        .next()
        .ok_or_else(|| format!("the origin's name {} has no address", target.host))?;
    let socket =
        TcpStream::connect_timeout(&addr, PATIENCE).map_err(|e| format!("no connection to {addr}: {e}"))?;
    let setup = || {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))
    };
    setup().map_err(|e| format!("the connection to {addr} cannot be set up: {e}"))?;
    let say = |level, text| say(log, job.stream, level, text);
    pump(&mut client, &socket, &job.clip, ended, &say).map_err(|e| format!("{addr}: {e}"))
}

/// Asks the manager where to publish, by the call that every client of the dialect uses.
fn ask_manager(manager: SocketAddr, stream: &str) -> Result<Target, String> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build(),
    );
    let url = format!("http://{manager}/streammanager/api/4.0/event/{stream}?action=broadcast");
    let silent = |e: ureq::Error| format!("the manager at {manager} does not answer: {e}");
    let mut response = agent.get(&url).call().map_err(silent)?;
    let body = response.body_mut().read_to_string().map_err(silent)?;
    let answer: Value =
        serde_json::from_str(&body).map_err(|e| format!("the manager's answer is no JSON: {e}"))?;
    if let Some(error) = answer.get("errorMessage").and_then(Value::as_str) {
        return Err(format!("the manager says: {error}"));
    }
    let url = answer.pointer("/urls/rtmp").and_then(Value::as_str);
    target(url.ok_or_else(|| format!("the manager's answer has no urls.rtmp: {body}"))?)
}

/// Takes `rtmp://HOST[:PORT]/APP/NAME` apart.
fn target(url: &str) -> Result<Target, String> {
    let bad = || format!("{url} is no address of the form rtmp://HOST:PORT/APP/NAME");
    let uri: ureq::http::Uri = url.parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("rtmp") {
        return Err(bad());
    }
    let host = uri.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target { host, port: uri.port_u16().unwrap_or(1935), key: StreamKey::parse(uri.path())? })
}

/// Carries bytes between machine and socket, and gives the machine each frame when it is due. The wait for the next
/// frame is the time limit of reading, so one thread does both.
fn pump(
    client: &mut Client,
    mut socket: &TcpStream,
    clip: &Clip,
    ended: &Receiver<()>,
    say: &dyn Fn(Level, String),
) -> Result<(), String> {
    let start = Instant::now();
    let now = || Time::ZERO + start.elapsed();
    let mut playing: Option<(Time, Peekable<_>)> = None;
    let mut leaving = false;
    let mut buffer = vec![0; 16 << 10];
    client.handle(Input::Writable(ROOM), now());
    loop {
        while let Some(said) = client.poll() {
            match said {
                Output::Send(bytes) => {
                    socket.write_all(&bytes).map_err(|e| format!("cannot send: {e}"))?;
                    client.handle(Input::Writable(ROOM), now());
                }
                Output::Ready => {
                    say(Level::Info, "publishing the clip".to_owned());
                    playing = Some((now(), clip.play().peekable()));
                }
                Output::Closed(_) if leaving => return Ok(()),
                Output::Closed(reason) => return Err(reason.to_string()),
                Output::Log(level, text) => say(level, text),
                // A publisher gets none, and this one does not obey.
                Output::Media(_) | Output::Reconnect(_) => {}
            }
        }
        if !leaving && !matches!(ended.try_recv(), Err(TryRecvError::Empty)) {
            leaving = true;
            client.handle(Input::Finish, now());
            continue;
        }
        let moment = now();
        let next = match &mut playing {
            Some((since, frames)) if !leaving => {
                if let Some(due) = frames.next_if(|due: &Due| *since + due.at <= moment) {
                    client.handle(Input::Media(&due.ingest), moment);
                    continue;
                }
                frames.peek().map(|due| Deadline::new(*since + due.at, "next frame"))
            }
            _ => None,
        };
        let wake = Deadline::earliest(client.deadline(), next).map_or(NAP, |d| d.at.since(moment).min(NAP));
        // A limit of zero would mean none at all.
        let wake = wake.max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wake)).map_err(|e| format!("cannot wait: {e}"))?;
        match socket.read(&mut buffer) {
            Ok(0) if leaving => return Ok(()),
            Ok(0) => return Err("the origin closed the connection".to_owned()),
            Ok(n) => client.handle(Input::Received(buffer.get(..n).unwrap_or_default()), now()),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(format!("cannot receive: {e}")),
        }
        client.handle(Input::Tick, now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::error::Reason;
    use proto_core::media::frame::{FrameKind, Ingest};
    use std::net::TcpListener;

    #[test]
    fn addresses_are_taken_apart() {
        let t = target("rtmp://127.0.0.3:1937/live/room1/demo").unwrap();
        assert_eq!((t.host.as_str(), t.port, t.key.as_str()), ("127.0.0.3", 1937, "live/room1/demo"));
        assert_eq!(target("rtmp://[::1]/live/demo").unwrap().host, "::1");
        assert_eq!(target("rtmp://h/live/demo").unwrap().port, 1935);
        for bad in ["", "http://h/live/demo", "rtmp://h/demo", "rtmp:///live/demo", "live/demo"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    fn manager(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let n = conn.read(&mut head).unwrap();
            let asked =
                head[..n].starts_with(b"GET /streammanager/api/4.0/event/live/demo?action=broadcast ");
            let answer = if asked { answer } else { "{\"errorMessage\":\"wrong call\"}" };
            write!(conn, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        });
        addr
    }

    #[test]
    fn the_manager_is_asked_and_its_refusal_quoted() {
        let good = manager("{\"name\":\"demo\",\"urls\":{\"rtmp\":\"rtmp://127.0.0.1:1937/live/demo\"}}");
        assert_eq!(ask_manager(good, "live/demo").unwrap().port, 1937);
        let refusing = manager("{\"errorMessage\":\"no origin is registered yet\"}");
        assert_eq!(
            ask_manager(refusing, "live/demo").unwrap_err(),
            "the manager says: no origin is registered yet"
        );
        assert!(ask_manager(manager("{}"), "live/demo").unwrap_err().contains("no urls.rtmp"));
    }

    fn client() -> Client {
        Client::new("h", "live", "demo", Limits::default(), Rng::new([1; 32]), Time::ZERO)
    }

    /// The server's side of one connection, until the publisher is gone or `enough` says so. Answers what it heard
    /// of the stream.
    fn serve(mut conn: TcpStream, refuse: bool, enough: impl Fn(&[Ingest]) -> bool) -> Vec<Ingest> {
        use proto_core::rtmp::server::{Input, Output, Server};
        let now = Time::ZERO;
        let mut server = Server::new(Limits::default(), Rng::new([2; 32]), now);
        let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        server.handle(Input::Writable(ROOM), now);
        loop {
            while let Some(said) = server.poll() {
                match said {
                    Output::Send(bytes) => {
                        conn.write_all(&bytes).unwrap();
                        server.handle(Input::Writable(ROOM), now);
                    }
                    Output::PublishRequested { stream, .. } if refuse => {
                        let reason = Reason::peer("name_busy", "somebody publishes this already");
                        server.handle(Input::PublishRefused(stream, reason), now);
                    }
                    Output::PublishRequested { stream, key, .. } => {
                        assert_eq!(key.as_str(), "live/demo");
                        server.handle(Input::PublishAccepted(stream), now);
                    }
                    Output::Media(_, ingest) => heard.push(ingest),
                    Output::Unpublished(_) | Output::Closed(_) => return heard,
                    _ => {}
                }
            }
            if enough(&heard) {
                return heard;
            }
            match conn.read(&mut buffer).unwrap() {
                0 => return heard,
                n => server.handle(Input::Received(&buffer[..n]), now),
            }
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn media_flows_in_order_and_leaves_with_a_goodbye() {
        let (near, far) = pair();
        let (go_on, ended) = mpsc::channel();
        let clip = Clip::built_in().unwrap();
        let publisher = thread::spawn(move || pump(&mut client(), &near, &clip, &ended, &|_, _| {}));
        let go_on = std::cell::Cell::new(Some(go_on));
        let heard = serve(far, false, |heard| {
            if heard.iter().filter(|i| matches!(i, Ingest::Frame(f) if f.kind != FrameKind::Data)).count()
                >= 6
            {
                drop(go_on.take());
            }
            false
        });
        assert_eq!(publisher.join().unwrap(), Ok(()));
        let letters: String = heard
            .iter()
            .filter_map(|item| match item {
                Ingest::Config { .. } => Some('c'),
                Ingest::Frame(f) if f.kind == FrameKind::Data => None,
                Ingest::Frame(f) if f.kind == FrameKind::Audio => Some('a'),
                Ingest::Frame(_) => Some('v'),
            })
            .collect();
        assert!(
            letters.starts_with("ccvaavaa"),
            "picture and sound of 0, 20 (sound only), 40, 60 ms: {letters}"
        );
    }

    #[test]
    fn an_end_from_the_other_side_is_told() {
        let clip = Clip::built_in().unwrap();
        let (_go_on, ended) = mpsc::channel();
        let (near, far) = pair();
        drop(far);
        let end = pump(&mut client(), &near, &clip, &ended, &|_, _| {}).unwrap_err();
        assert!(end.contains("the origin closed the connection") || end.contains("cannot"), "{end}");
        let (near, far) = pair();
        let server = thread::spawn(move || serve(far, true, |_| false));
        let end = pump(&mut client(), &near, &clip, &ended, &|_, _| {}).unwrap_err();
        assert!(end.contains("somebody publishes this already"), "{end}");
        assert!(server.join().unwrap().is_empty());
    }

    #[test]
    fn a_publisher_that_is_asked_to_leave_leaves() {
        let job = Job {
            manager: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
            stream: "live/demo",
            clip: Clip::built_in().unwrap(),
            limits: Limits::default(),
        };
        let publisher = Publisher::start(job, Log::new(&Default::default())).unwrap();
        let gone = publisher.gone;
        Publisher { go_on: publisher.go_on, gone: mpsc::channel().1 }.leave();
        assert_eq!(gone.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    }
}
