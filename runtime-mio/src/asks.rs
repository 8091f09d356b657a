//! Work outside the loop: host names are looked up on one small thread, because the system's resolver blocks.

use crate::control::RemoteControl;
use proto_core::io::{Answer, AskId, Input, Work};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

/// Lookups that may wait for the thread; more are answered with an error at once.
const MOST_WAITING: usize = 64;

struct Question {
    ask: AskId,
    host: String,
    port: u16,
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
        let Work::Resolve { host, port } = work;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&host);
        let at_once = if let Ok(ip) = bare.parse::<IpAddr>() {
            Ok(vec![SocketAddr::new(ip, port)])
        } else {
            self.control.counters.lookups.add(1);
            match self.look_up(Question { ask, host, port }) {
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

    fn look_up(&mut self, question: Question) -> Result<(), String> {
        if self.worker.is_none() {
            let (questions, work) = sync_channel(MOST_WAITING);
            let (answered, control) = (self.answered.clone(), self.control.clone());
            thread::Builder::new()
                .name("resolver".into())
                .spawn(move || resolve_all(&work, &answered, &control))
                .map_err(|e| format!("no thread for name lookups could be started: {e}"))?;
            self.worker = Some(questions);
        }
        let Some(worker) = &self.worker else { return Err("name lookups are not available".into()) };
        worker.try_send(question).map_err(|e| match e {
            TrySendError::Full(q) => format!("{}: {MOST_WAITING} name lookups are waiting already", q.host),
            TrySendError::Disconnected(q) => format!("{}: the thread for name lookups has ended", q.host),
        })
    }
}

/// The resolver thread: ends when the loop is gone.
fn resolve_all(questions: &Receiver<Question>, answered: &Sender<(AskId, Answer)>, control: &RemoteControl) {
    for Question { ask, host, port } in questions {
        let found = match (host.as_str(), port).to_socket_addrs() {
            Ok(found) => Ok(found.collect()),
            Err(e) => Err(format!("{host} could not be looked up: {e}")),
        };
        if answered.send((ask, Answer::Resolved(found))).is_err() {
            return;
        }
        control.wake();
    }
}
