//! Work outside the loop: host names are looked up and files are read on one small thread, because both block.

use crate::control::RemoteControl;
use bytes::Bytes;
use proto_core::io::{Answer, AskId, Input, Work};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

/// Lookups that may wait for the thread; more are answered with an error at once.
const MOST_WAITING: usize = 64;

enum Question {
    Resolve { ask: AskId, host: String, port: u16 },
    Read { ask: AskId, path: String },
}

impl Question {
    fn what(&self) -> &str {
        match self {
            Question::Resolve { host, .. } => host,
            Question::Read { path, .. } => path,
        }
    }
}

/// The questions that are being worked on.
pub(crate) struct Asks {
    control: RemoteControl,
    /// Made with the first name to look up: a node that never asks has no thread.
    worker: Option<SyncSender<Question>>,
    answers: Receiver<(AskId, Answer)>,
    answered: Sender<(AskId, Answer)>,
}

impl Asks {
    pub(crate) fn new(control: RemoteControl) -> Asks {
        let (answered, answers) = channel();
        Asks { control, worker: None, answers, answered }
    }

    /// Starts work on a question, or answers it into `reports` where that needs no waiting.
    pub(crate) fn ask(&mut self, ask: AskId, work: Work, reports: &mut VecDeque<Input<'static>>) {
        let (host, port) = match work {
            Work::Resolve { host, port } => (host, port),
            Work::ReadFile { path } => {
                if let Err(why) = self.work(Question::Read { ask, path }) {
                    reports.push_back(Input::Answer { ask, answer: Answer::File(Err(why)) });
                }
                return;
            }
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&host);
        let at_once = if let Ok(ip) = bare.parse::<IpAddr>() {
            Ok(vec![SocketAddr::new(ip, port)])
        } else {
            self.control.counters.lookups.add(1);
            match self.work(Question::Resolve { ask, host, port }) {
                Ok(()) => return,
                Err(why) => Err(why),
            }
        };
        reports.push_back(Input::Answer { ask, answer: Answer::Resolved(at_once) });
    }

    /// Moves the answers that came in to `reports`.
    pub(crate) fn collect(&mut self, reports: &mut VecDeque<Input<'static>>) {
        while let Ok((ask, answer)) = self.answers.try_recv() {
            reports.push_back(Input::Answer { ask, answer });
        }
    }

    fn work(&mut self, question: Question) -> Result<(), String> {
        if self.worker.is_none() {
            let (questions, work) = sync_channel(MOST_WAITING);
            let (answered, control) = (self.answered.clone(), self.control.clone());
            thread::Builder::new()
                .name("asks".into())
                .spawn(move || resolve_all(&work, &answered, &control))
                .map_err(|e| format!("no thread for name lookups and files could be started: {e}"))?;
            self.worker = Some(questions);
        }
        let Some(worker) = &self.worker else {
            return Err("name lookups and files are not available".into());
        };
        worker.try_send(question).map_err(|e| match e {
            TrySendError::Full(q) => {
                format!("{}: {MOST_WAITING} name lookups and files are waiting already", q.what())
            }
            TrySendError::Disconnected(q) => {
                format!("{}: the thread for name lookups and files has ended", q.what())
            }
        })
    }
}

/// The resolver thread: ends when the loop is gone.
fn resolve_all(questions: &Receiver<Question>, answered: &Sender<(AskId, Answer)>, control: &RemoteControl) {
    for question in questions {
        let (ask, answer) = match question {
            Question::Resolve { ask, host, port } => {
                let found = match (host.as_str(), port).to_socket_addrs() {
                    Ok(found) => Ok(found.collect()),
                    Err(e) => Err(format!("{host} could not be looked up: {e}")),
                };
                (ask, Answer::Resolved(found))
            }
            Question::Read { ask, path } => (ask, Answer::File(read(&path))),
        };
        if answered.send((ask, answer)).is_err() {
            return;
        }
        control.wake();
    }
}

/// Reads a file that is not too large to be a certificate.
pub fn read(path: &str) -> Result<Bytes, String> {
    const MOST: u64 = 1 << 20;
    let failed = |e: std::io::Error| format!("{path} cannot be read: {e}");
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err(format!("{path} is larger than {MOST} bytes: that is no certificate and no key"));
    }
    Ok(bytes.into())
}
