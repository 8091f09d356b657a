//! Work outside the loop. Host names are looked up and files are read on one small thread, because both block. Passwords are
//! verified on one thread of their own, which a flood of wrong ones can fill and nothing else. Sound is converted on as
//! many threads as there are cores to spare, because it would hold up everything else; each bridge of pictures has a thread of
//! its own, because it would hold up sound.

use crate::control::RemoteControl;
use bytes::Bytes;
use proto_core::auth::password::Check;
use proto_core::bridge::{BridgeId, BridgeJob, BridgeWork, Bridged, Convert, Workshop};
use proto_core::io::{Answer, AskId, Input, Work};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

/// Lookups that may wait for the thread; more are answered with an error at once.
const MOST_WAITING: usize = 64;
/// Pieces of work that may wait for one thread of bridges. A node asks for a few per bridge only, so that this is never
/// reached unless its limits are raised a hundredfold.
const MOST_WORKS: usize = 4_096;
/// Threads for bridges at most: each serves about a hundred streams.
const MOST_WORKERS: usize = 4;
/// Threads that may be left behind because a codec hangs in them. A thread cannot be ended from outside.
const MOST_LOST: usize = 16;

/// Passwords that may wait for the thread that verifies them. A node asks for `limits.auth_checks` at most.
const MOST_CHECKS: usize = 1_024;

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

/// The work for one thread of bridges.
type Works = SyncSender<(AskId, BridgeWork)>;

/// The questions that are being worked on.
pub(crate) struct Asks {
    control: RemoteControl,
    /// Made with the first name to look up: a node that never asks has no thread.
    worker: Option<SyncSender<Question>>,
    /// Made with the first password.
    checker: Option<SyncSender<(AskId, Check)>>,
    /// Made with the first bridge.
    workshops: Vec<Works>,
    /// Bridges of pictures: a thread ends with its bridge.
    pictures: BTreeMap<BridgeId, Works>,
    /// Threads of bridges that were left behind.
    lost: usize,
    answers: Receiver<(AskId, Answer)>,
    answered: Sender<(AskId, Answer)>,
}

impl Asks {
    pub(crate) fn new(control: RemoteControl) -> Asks {
        let (answered, answers) = channel();
        Asks {
            control,
            worker: None,
            checker: None,
            workshops: Vec::new(),
            pictures: BTreeMap::new(),
            lost: 0,
            answers,
            answered,
        }
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
            Work::Check(check) => {
                if let Err(why) = self.check(ask, check) {
                    reports.push_back(Input::Answer { ask, answer: Answer::Checked(Err(why)) });
                }
                return;
            }
            Work::Bridge(work) => {
                if let Err(why) = self.convert(ask, work) {
                    let done = Bridged { failed: Some(why), ..Bridged::default() };
                    reports.push_back(Input::Answer { ask, answer: Answer::Bridged(done) });
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

    fn check(&mut self, ask: AskId, check: Check) -> Result<(), String> {
        if self.checker.is_none() {
            let (checks, work) = sync_channel(MOST_CHECKS);
            let (answered, control) = (self.answered.clone(), self.control.clone());
            thread::Builder::new()
                .name("passwords".into())
                .spawn(move || check_all(&work, &answered, &control))
                .map_err(|e| format!("no thread for passwords could be started: {e}"))?;
            self.checker = Some(checks);
        }
        let Some(checker) = &self.checker else { return Err("passwords cannot be verified".into()) };
        checker.try_send((ask, check)).map_err(|e| match e {
            TrySendError::Full(_) => format!("{MOST_CHECKS} passwords are waiting already"),
            TrySendError::Disconnected(_) => "the thread for passwords has ended".into(),
        })
    }

    /// Hands work to the thread of its bridge: one bridge stays on one thread, which keeps the order.
    fn convert(&mut self, ask: AskId, work: BridgeWork) -> Result<(), String> {
        let bridge = work.bridge;
        let ends = matches!(work.job, BridgeJob::Close | BridgeJob::Abandon);
        let of_pictures = matches!(work.job, BridgeJob::Open { to, .. } if to.is_video());
        if of_pictures && !self.pictures.contains_key(&bridge) {
            let name = format!("pictures-{}", bridge.0);
            let works = self.workshop::<video_bridge::Bridge>(name)?;
            self.pictures.insert(bridge, works);
        }
        if matches!(work.job, BridgeJob::Abandon) {
            self.leave_behind(bridge);
            return Ok(());
        }
        let full = |e: TrySendError<_>| match e {
            TrySendError::Full(_) => format!("{MOST_WORKS} pieces of work are waiting for the codec already"),
            TrySendError::Disconnected(_) => "the thread of the bridge has ended".to_owned(),
        };
        if let Some(thread) = self.pictures.get(&bridge) {
            let sent = thread.try_send((ask, work)).map_err(full);
            if ends {
                self.pictures.remove(&bridge);
            }
            return sent;
        }
        if self.workshops.is_empty() && !ends {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            for n in 0..cores.saturating_sub(1).clamp(1, MOST_WORKERS) {
                let works = self.workshop::<audio_bridge::Bridge>(format!("bridges-{n}"))?;
                self.workshops.push(works);
            }
        }
        match self.slot(bridge).and_then(|n| self.workshops.get(n)) {
            Some(workshop) => workshop.try_send((ask, work)).map_err(full),
            None if ends => Ok(()),
            None => Err("sound bridges are not available".into()),
        }
    }

    /// Which of the threads of sound has a bridge.
    fn slot(&self, bridge: BridgeId) -> Option<usize> {
        Some(bridge.0.checked_rem(self.workshops.len() as u64)? as usize)
    }

    /// Starts a thread of bridges.
    fn workshop<B: Convert + 'static>(&self, name: String) -> Result<Works, String> {
        if self.lost >= MOST_LOST {
            return Err(format!("codecs hang in {MOST_LOST} threads of this node: restart it"));
        }
        let (works, queue) = sync_channel(MOST_WORKS);
        let (answered, control) = (self.answered.clone(), self.control.clone());
        thread::Builder::new()
            .name(name)
            // A workshop is made where it works: codecs need not be fit to move between threads.
            .spawn(move || convert_all::<B>(&queue, &answered, &control, Workshop::default()))
            .map_err(|e| format!("no thread for a bridge could be started: {e}"))?;
        Ok(works)
    }

    /// The codec of a bridge hangs: its thread is left behind. Sound bridges that were on it as well fail and begin anew on
    /// another.
    fn leave_behind(&mut self, bridge: BridgeId) {
        self.lost += 1;
        if self.pictures.remove(&bridge).is_some() {
            return;
        }
        let Some(n) = self.slot(bridge) else { return };
        // Where there is none to be had, what comes for the old one waits in vain and is given up in turn.
        if let Ok(works) = self.workshop::<audio_bridge::Bridge>(format!("bridges-{n}+{}", self.lost))
            && let Some(slot) = self.workshops.get_mut(n)
        {
            *slot = works;
        }
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

/// The thread of passwords: ends when the loop is gone.
fn check_all(checks: &Receiver<(AskId, Check)>, answered: &Sender<(AskId, Answer)>, control: &RemoteControl) {
    for (ask, check) in checks {
        if answered.send((ask, Answer::Checked(Ok(check.run())))).is_err() {
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

/// A thread of bridges: ends when the loop is gone.
fn convert_all<B: Convert>(
    works: &Receiver<(AskId, BridgeWork)>,
    answered: &Sender<(AskId, Answer)>,
    control: &RemoteControl,
    mut shop: Workshop<B>,
) {
    for (ask, work) in works {
        let silent = matches!(work.job, BridgeJob::Close);
        let done = shop.work(work);
        if answered.send((ask, Answer::Bridged(done))).is_err() {
            return;
        }
        // Nobody waits for the answer to that.
        if !silent {
            control.wake();
        }
    }
}
