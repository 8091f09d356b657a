//! Nodes that run: one for `serve`, or several loops of one, three for `demo`, each with its loop on a thread of its own.

use crate::failure::Failure;
use crate::identity;
use crate::listen;
use crate::log::Log;
use crate::loops;
use crate::seeded::Seeded;
use crate::signals;
use proto_core::io::Level;
use proto_core::node::Node;
use proto_core::node::config::Config;
use proto_core::node::identity::Identity;
use proto_core::recording::Header;
use runtime_mio::{ExitReason, Recorder, RemoteControl, Runtime};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

/// A node whose listeners stand and whose loop can be entered.
pub(crate) struct Ready {
    /// The handle for other threads.
    control: RemoteControl,
    /// The loop. Comes back when the node has ended; an error says why it could not go on.
    enter: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

/// What is to be recorded, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The file, which must not exist.
    pub(crate) path: PathBuf,
    /// The most bytes that it may have.
    pub(crate) limit: u64,
}

impl Record {
    /// The recording of one of several loops: a file of its own.
    pub(crate) fn of_loop(&self, index: usize) -> Record {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{index}"));
        Record { path: path.into(), limit: self.limit }
    }
}

/// Starts a node: its listeners, its seed, its loop.
///
/// # Errors
/// What keeps it from starting, with the remedy.
pub(crate) fn start(config: &Config, log: Log) -> Result<Ready, Failure> {
    let prepared = Prepared::listening(config, log)?;
    let identity = identity::make(config)?;
    prepared.node(identity)
}

/// As [`start`], with everything that the node is told written to a file, and cryptography from a seed.
///
/// # Errors
/// What keeps it from starting, with the remedy.
pub(crate) fn start_recording(config: &Config, log: Log, record: &Record) -> Result<Ready, Failure> {
    Prepared::listening(config, log)?.recorded(record)
}

/// A loop, and what its node will be made of.
pub(crate) struct Prepared {
    /// The loop.
    pub(crate) runtime: Runtime,
    /// The node's configuration.
    pub(crate) config: Config,
    /// Where its lines go.
    pub(crate) log: Log,
}

impl Prepared {
    /// A loop without listeners.
    ///
    /// # Errors
    /// What the operating system did not give.
    pub(crate) fn runtime(config: &Config, log: &Log) -> Result<Runtime, Failure> {
        // More descriptors are better; fewer only mean fewer clients, which `limits.conns` does not know.
        let _ = runtime_mio::raise_file_limit();
        let log = log.clone();
        let options = runtime_mio::Options {
            gso: config.webrtc.gso,
            ..runtime_mio::Options::new(&config.limits, move |line| log.line(line))
        };
        Runtime::new(options).map_err(|e| Failure::Running(format!("cannot make the event loop: {e}")))
    }

    fn listening(config: &Config, log: Log) -> Result<Prepared, Failure> {
        let runtime = Prepared::runtime(config, &log)?;
        let mut prepared = Prepared { runtime, config: config.clone(), log };
        prepared.listen()?;
        Ok(prepared)
    }

    /// Opens the listeners of the node.
    ///
    /// # Errors
    /// The port that cannot be had, with the remedy.
    pub(crate) fn listen(&mut self) -> Result<(), Failure> {
        let index = self.config.loops.as_ref().map(|l| l.index);
        for (service, what, addr) in listen::listeners(&self.config) {
            let bound = match index {
                Some(index) if loops::is_shared(service) => {
                    self.runtime.bind_shared(service, addr, index == 0)
                }
                _ => self.runtime.bind(service, addr),
            };
            bound.map_err(|e| {
                Failure::Running(listen::refusal(what, service.key(), e.addr, e.holder.as_deref(), &e.error))
            })?;
        }
        Ok(())
    }

    /// The node, ready to run.
    ///
    /// # Errors
    /// What is wrong with its configuration.
    pub(crate) fn node(self, identity: Identity) -> Result<Ready, Failure> {
        let Prepared { mut runtime, config, .. } = self;
        let mut node = Node::new(config, seed()?, runtime.start_instant(), identity)
            .map_err(|reason| Failure::Running(reason.text.into_owned()))?;
        let control = runtime.handle();
        let enter = move || outcome(runtime.run(&mut node));
        Ok(Ready { control, enter: Box::new(enter) })
    }

    /// The node, ready to run and to be recorded.
    ///
    /// # Errors
    /// What keeps it from being recorded.
    pub(crate) fn recorded(self, record: &Record) -> Result<Ready, Failure> {
        determinism::os::check().map_err(|e| Failure::Running(format!("cannot record here: {e}")))?;
        let Prepared { mut runtime, config, log: said } = self;
        let header =
            Header { version: crate::VERSION.to_owned(), config, node_seed: seed()?, crypto_seed: seed()? };
        let recorder = Recorder::create(&record.path, &header, record.limit)
            .map_err(|e| Failure::Running(e.to_string()))?;
        let shown = record.path.display();
        said.say(
            Level::Warn,
            format!(
                "everything that this node is told is recorded to {shown}, at most {} bytes; the file holds secrets \
                 (keys, tokens, media): keep it as you would keep a key",
                record.limit
            ),
        );
        said.say(
            Level::Warn,
            "recording uses seeded cryptography, which is slower, and as safe as the recording is kept; \
             start without --record for normal service",
        );
        let control = runtime.handle();
        let enter = move || {
            // On the thread of the loop: what the libraries keep for a thread is seeded there.
            let mut node = recorder.before(Seeded::new(&header)?);
            let exit = runtime.run(&mut node);
            if let Err(e) = node.finish() {
                said.say(Level::Error, e.to_string());
            }
            outcome(exit)
        };
        Ok(Ready { control, enter: Box::new(enter) })
    }
}

fn outcome(exit: ExitReason) -> Result<(), String> {
    match exit {
        ExitReason::Drained | ExitReason::Stopped => Ok(()),
        ExitReason::Fatal(reason) => Err(reason.text.into_owned()),
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

/// Runs nodes until all have ended. The first SIGTERM or SIGINT calls `first` with all of them, from a thread of its
/// own; the second stops them. If one fails, the others are stopped.
///
/// # Errors
/// Why the first of them failed.
pub(crate) fn until_all_end(
    nodes: Vec<(String, Ready)>,
    log: &Log,
    first: impl FnOnce(&[RemoteControl]) + Send + 'static,
) -> Result<(), Failure> {
    let controls: Vec<RemoteControl> = nodes.iter().map(|(_, node)| node.control.clone()).collect();
    let (to_first, to_second, log) = (controls.clone(), controls.clone(), log.clone());
    signals::watch(
        move || first(&to_first),
        move || {
            log.say(Level::Warn, "asked to end at once");
            to_second.iter().for_each(RemoteControl::stop);
        },
    )
    .map_err(|e| Failure::Running(format!("cannot watch for signals: {e}")))?;
    join(nodes, &controls)
}

fn join(nodes: Vec<(String, Ready)>, controls: &[RemoteControl]) -> Result<(), Failure> {
    let (ended, ends) = mpsc::channel();
    let mut failure = None;
    for (name, node) in nodes {
        let guard = Guard {
            ended: ended.clone(),
            name: name.clone(),
            result: Err("its thread panicked; see above".to_owned()),
        };
        let spawned = thread::Builder::new().name(name.clone()).spawn(move || {
            let mut guard = guard;
            guard.result = (node.enter)();
        });
        if let Err(e) = spawned {
            failure.get_or_insert(format!("{name} has no thread to run on: {e}"));
            controls.iter().for_each(RemoteControl::stop);
        }
    }
    drop(ended);
    // Ends when every thread has let go of its sender.
    for (name, result) in ends {
        if let Err(text) = result {
            failure.get_or_insert(format!("{name} ended: {text}"));
            controls.iter().for_each(RemoteControl::stop);
        }
    }
    failure.map_or(Ok(()), |text| Err(Failure::Running(text)))
}

/// Tells how a node ended, also where its thread was unwound.
struct Guard {
    ended: mpsc::Sender<(String, Result<(), String>)>,
    name: String,
    result: Result<(), String>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        // The receiver waits for all senders, so this arrives.
        let _ = self.ended.send((std::mem::take(&mut self.name), result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole node on ports that the system picks. It runs until it is told to end.
    fn node() -> Ready {
        let mut config = Config { bind: [127, 0, 0, 1].into(), ..Config::default() };
        (config.http.port, config.rtmp.port) = (0, 0);
        (config.https.port, config.rtmps.port) = (0, 0);
        (config.webrtc.port, config.cluster.port) = (0, 0);
        (config.rtsp.port, config.rtsps.port, config.rtsp.udp_pairs) = (0, 0, 0);
        start(&config, Log::new(&config.log)).unwrap()
    }

    fn ending(enter: impl FnOnce() -> Result<(), String> + Send + 'static) -> Ready {
        Ready { enter: Box::new(enter), ..node() }
    }

    fn run(nodes: Vec<(String, Ready)>) -> Result<(), Failure> {
        let controls: Vec<_> = nodes.iter().map(|(_, n)| n.control.clone()).collect();
        join(nodes, &controls)
    }

    #[test]
    fn one_failure_ends_the_others_and_is_told() {
        let nodes = vec![
            ("manager".to_owned(), node()),
            ("edge".to_owned(), ending(|| Err("out of luck".to_owned()))),
        ];
        assert_eq!(run(nodes), Err(Failure::Running("edge ended: out of luck".to_owned())));
    }

    #[test]
    fn a_panic_in_a_loop_is_a_failure_and_not_silence() {
        let nodes =
            vec![("manager".to_owned(), node()), ("edge".to_owned(), ending(|| panic!("on purpose")))];
        assert_eq!(
            run(nodes),
            Err(Failure::Running("edge ended: its thread panicked; see above".to_owned()))
        );
    }

    #[test]
    fn all_good_is_good() {
        let idle = node();
        idle.control.drain();
        assert_eq!(run(vec![("a".to_owned(), ending(|| Ok(()))), ("b".to_owned(), idle)]), Ok(()));
    }
}
