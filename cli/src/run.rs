//! Nodes that run: one for `serve`, three for `demo`, each with its loop on a thread of its own.

use crate::demo::publisher::{Client, Said, Target};
use crate::failure::Failure;
use crate::listen;
use crate::log::Log;
use crate::signals;
use proto_core::limits::Limits;
use proto_core::machine::Machine;
use proto_core::media::frame::Ingest;
use proto_core::node::Node;
use proto_core::node::config::Config;
use proto_core::node::io::{Level, Service};
use proto_core::rand::Rng;
use proto_core::rtc::Identity;
use proto_core::rtmp::client;
use proto_core::time::{Deadline, Time};
use runtime_mio::{ExitReason, RemoteControl};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

/// What other threads may do to a running node.
pub(crate) trait Control: Send + Sync {
    /// Finish what runs, take nothing new.
    fn drain(&self);
    /// End at once.
    fn stop(&self);
}

/// A node whose listeners stand and whose loop can be entered.
pub(crate) struct Ready {
    /// The handle for other threads.
    pub(crate) control: Arc<dyn Control>,
    /// The loop. Comes back when the node has ended; an error says why it could not go on.
    pub(crate) enter: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

/// Makes a node and its listeners.
pub(crate) type Start = fn(&Config, Log) -> Result<Ready, Failure>;

/// Starts a node: its listeners, its seed, its loop.
///
/// # Errors
/// What keeps it from starting, with the remedy.
pub(crate) fn start(config: &Config, log: Log) -> Result<Ready, Failure> {
    // More descriptors are better; fewer only mean fewer clients, which `limits.conns` does not know.
    let _ = runtime_mio::raise_file_limit();
    let options = runtime_mio::Options::new(&config.limits, move |line| log.line(line));
    let mut runtime = runtime_mio::Runtime::new(options)
        .map_err(|e| Failure::Running(format!("cannot make the event loop: {e}")))?;
    for (service, addr) in [
        (Service::Http, config.http_addr()),
        (Service::Rtmp, config.rtmp_addr()),
        (Service::Link, config.cluster_addr()),
    ] {
        runtime.bind(service, addr).map_err(|e| {
            let what = match service {
                Service::Http => "HTTP",
                Service::Rtmp => "RTMP",
                Service::Link => "other nodes",
            };
            Failure::Running(listen::refusal(what, service.key(), e.addr, e.holder.as_deref(), &e.error))
        })?;
    }
    let identity = Identity::generate().map_err(|reason| Failure::Running(reason.text.into_owned()))?;
    let mut node = Node::new(config.clone(), seed()?, runtime.start_instant(), identity)
        .map_err(|reason| Failure::Running(reason.text.into_owned()))?;
    let control = Arc::new(runtime.handle());
    let enter = move || match runtime.run(&mut node) {
        ExitReason::Drained | ExitReason::Stopped => Ok(()),
        ExitReason::Fatal(reason) => Err(reason.text.into_owned()),
    };
    Ok(Ready { control, enter: Box::new(enter) })
}

impl Control for RemoteControl {
    fn drain(&self) {
        RemoteControl::drain(self);
    }
    fn stop(&self) {
        RemoteControl::stop(self);
    }
}

/// Makes the RTMP client machine of the demo's publisher.
///
/// # Errors
/// What keeps it from being made.
pub(crate) fn client(target: &Target, limits: &Limits, seed: [u8; 32]) -> Result<Box<dyn Client>, String> {
    let host = format!("{}:{}", target.host, target.port);
    let (app, name) = (target.key.app(), target.key.name());
    Ok(Box::new(client::Client::new(&host, app, name, limits.clone(), Rng::new(seed), Time::ZERO)))
}

impl Client for client::Client {
    fn received(&mut self, bytes: &[u8], now: Time) {
        self.handle(client::Input::Received(bytes), now);
    }
    fn writable(&mut self, free: usize, now: Time) {
        self.handle(client::Input::Writable(free), now);
    }
    fn media(&mut self, ingest: Ingest, now: Time) {
        self.handle(client::Input::Media(&ingest), now);
    }
    fn tick(&mut self, now: Time) {
        self.handle(client::Input::Tick, now);
    }
    fn finish(&mut self, now: Time) {
        self.handle(client::Input::Finish, now);
    }
    fn poll(&mut self) -> Option<Said> {
        Some(match Machine::poll(self)? {
            client::Output::Send(bytes) => Said::Send(bytes),
            client::Output::Ready => Said::Ready,
            client::Output::Log(level, text) => Said::Log(level, text),
            client::Output::Closed(reason) => Said::Closed(reason),
        })
    }
    fn deadline(&self) -> Option<Deadline> {
        Machine::deadline(self)
    }
}

/// A secret of 256 bits from the operating system.
///
/// # Errors
/// If the operating system has none to give.
pub(crate) fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| Failure::Running(format!("the operating system gives no random numbers: {e}")))?;
    Ok(seed)
}

/// Runs nodes until all have ended. SIGTERM and SIGINT reach every one of them. If one fails, the others are stopped.
///
/// # Errors
/// Why the first of them failed.
pub(crate) fn until_all_end(nodes: Vec<(&'static str, Ready)>, log: &Log) -> Result<(), Failure> {
    let controls: Vec<Arc<dyn Control>> = nodes.iter().map(|(_, node)| Arc::clone(&node.control)).collect();
    let (first, second) = (controls.clone(), controls.clone());
    let (log_first, log_second) = (log.clone(), log.clone());
    signals::watch(
        move || {
            log_first.say(
                Level::Info,
                "asked to end: sessions may finish, nothing new is taken; once more ends at once",
            );
            first.iter().for_each(|c| c.drain());
        },
        move || {
            log_second.say(Level::Warn, "asked to end at once");
            second.iter().for_each(|c| c.stop());
        },
    )
    .map_err(|e| Failure::Running(format!("cannot watch for signals: {e}")))?;
    join(nodes, &controls)
}

fn join(nodes: Vec<(&'static str, Ready)>, controls: &[Arc<dyn Control>]) -> Result<(), Failure> {
    let (ended, ends) = mpsc::channel();
    let mut failure = None;
    for (name, node) in nodes {
        let guard =
            Guard { ended: ended.clone(), name, result: Err("its thread panicked; see above".to_owned()) };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut guard = guard;
            guard.result = (node.enter)();
        });
        if let Err(e) = spawned {
            failure.get_or_insert(format!("{name} has no thread to run on: {e}"));
            controls.iter().for_each(|c| c.stop());
        }
    }
    drop(ended);
    // Ends when every thread has let go of its sender.
    for (name, result) in ends {
        if let Err(text) = result {
            failure.get_or_insert(format!("{name} ended: {text}"));
            controls.iter().for_each(|c| c.stop());
        }
    }
    failure.map_or(Ok(()), |text| Err(Failure::Running(text)))
}

/// Tells how a node ended, also where its thread was unwound.
struct Guard {
    ended: mpsc::Sender<(&'static str, Result<(), String>)>,
    name: &'static str,
    result: Result<(), String>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        // The receiver waits for all senders, so this arrives.
        let _ = self.ended.send((self.name, result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    /// A node that runs until it is told to end.
    #[derive(Default)]
    struct Waiting {
        told: Mutex<bool>,
        changed: Condvar,
    }

    impl Control for Waiting {
        fn drain(&self) {
            self.stop();
        }
        fn stop(&self) {
            *self.told.lock().unwrap() = true;
            self.changed.notify_all();
        }
    }

    fn waiting() -> Ready {
        let control = Arc::new(Waiting::default());
        let inside = Arc::clone(&control);
        let enter = move || {
            let told = inside.told.lock().unwrap();
            drop(inside.changed.wait_while(told, |told| !*told).unwrap());
            Ok(())
        };
        Ready { control, enter: Box::new(enter) }
    }

    fn ending(enter: impl FnOnce() -> Result<(), String> + Send + 'static) -> Ready {
        Ready { control: Arc::new(Waiting::default()), enter: Box::new(enter) }
    }

    fn run(nodes: Vec<(&'static str, Ready)>) -> Result<(), Failure> {
        let controls: Vec<_> = nodes.iter().map(|(_, n)| Arc::clone(&n.control)).collect();
        join(nodes, &controls)
    }

    #[test]
    fn one_failure_ends_the_others_and_is_told() {
        let nodes = vec![("manager", waiting()), ("edge", ending(|| Err("out of luck".to_owned())))];
        assert_eq!(run(nodes), Err(Failure::Running("edge ended: out of luck".to_owned())));
    }

    #[test]
    fn a_panic_in_a_loop_is_a_failure_and_not_silence() {
        let nodes = vec![("manager", waiting()), ("edge", ending(|| panic!("on purpose")))];
        assert_eq!(
            run(nodes),
            Err(Failure::Running("edge ended: its thread panicked; see above".to_owned()))
        );
    }

    #[test]
    fn all_good_is_good() {
        assert_eq!(run(vec![("a", ending(|| Ok(()))), ("b", ending(|| Ok(())))]), Ok(()));
    }
}
