//! The simulator's clients on real sockets: a publisher and players that know every frame, beside which something else is
//! tried with a real node.
//!
//! Each client has one connection at a time and a thread of its own. It sees the time of the system, counted from one
//! start, as it sees virtual time in a world.

use crate::world::actors::{Client, In, Out};
use proto_core::time::Time;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest that a client waits for bytes before it looks at its timers again.
const LOOK: Duration = Duration::from_millis(20);
/// What a client is told that it may send: its socket takes what the kernel takes.
const ROOM: usize = 1 << 30;

/// A client of the simulator that runs on real sockets until this is dropped.
#[derive(Debug)]
pub struct Running<C> {
    client: Arc<Mutex<C>>,
    stop: Option<Sender<()>>,
    wrong: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl<C: Client + Send> Running<C> {
    /// Runs a client, whose time began at `start`.
    pub fn new(client: C, start: Instant) -> Running<C> {
        let (client, (stop, stopped)) = (Arc::new(Mutex::new(client)), channel());
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let drive = Drive { client: client.clone(), start, stopped, wrong: wrong.clone(), socket: None };
        let thread = Some(std::thread::spawn(|| drive.run()));
        Running { client, stop: Some(stop), wrong, thread }
    }

    /// The client, which stands still meanwhile.
    pub fn look(&self) -> MutexGuard<'_, C> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it saw that must never be.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<C> Drop for Running<C> {
    fn drop(&mut self) {
        // That nobody is at the other end is the sign.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Drive<C> {
    client: Arc<Mutex<C>>,
    start: Instant,
    stopped: Receiver<()>,
    wrong: Arc<Mutex<Vec<String>>>,
    socket: Option<(u32, TcpStream)>,
}

impl<C: Client> Drive<C> {
    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn tell(&self, input: In<'_>) {
        let now = self.now();
        self.client.lock().unwrap_or_else(PoisonError::into_inner).on(input, now);
    }

    fn lose(&mut self, why: &str) {
        if let Some((conn, _)) = self.socket.take() {
            self.tell(In::Closed(conn, why));
        }
    }

    fn run(mut self) {
        let mut buf = vec![0; 64 << 10];
        self.tell(In::Address([127, 0, 0, 1].into()));
        let mut wait = Duration::ZERO;
        while self.stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            self.tell(In::Tick);
            self.act();
            let Some((conn, socket)) = &mut self.socket else {
                // It has nothing to wait for but its own time.
                wait = LOOK;
                continue;
            };
            wait = Duration::ZERO;
            let conn = *conn;
            match socket.read(&mut buf) {
                Ok(0) => {
                    self.tell(In::Finished(conn));
                    self.act();
                    self.lose("the node closed it");
                }
                Ok(n) => self.tell(In::Received(conn, &buf[..n])),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => self.lose(&e.to_string()),
            }
        }
    }

    /// Does what the client says.
    fn act(&mut self) {
        loop {
            let out = self.client.lock().unwrap_or_else(PoisonError::into_inner).poll();
            let Some(out) = out else { return };
            match out {
                Out::Dial(conn, to) => match TcpStream::connect_timeout(&to, Duration::from_secs(10)) {
                    Ok(socket) => {
                        let ready = socket.set_nodelay(true).and(socket.set_read_timeout(Some(LOOK)));
                        ready.expect("a socket takes its options");
                        self.socket = Some((conn, socket));
                        self.tell(In::Connected(conn));
                        self.tell(In::Writable(conn, ROOM));
                    }
                    Err(e) => self.tell(In::Closed(conn, &e.to_string())),
                },
                Out::Send(conn, bytes) => {
                    if let Some((of, socket)) = &mut self.socket
                        && *of == conn
                        && let Err(e) = socket.write_all(&bytes)
                    {
                        self.lose(&e.to_string());
                    }
                }
                Out::Close(conn, _) => {
                    self.socket.take_if(|(of, _)| *of == conn);
                }
                Out::Violation(invariant, text) => {
                    self.wrong
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(format!("{invariant}: {text}"));
                }
                Out::Reading(..) | Out::Datagram { .. } | Out::Forged { .. } | Out::Tap(_) | Out::Vanish => {}
            }
        }
    }
}
