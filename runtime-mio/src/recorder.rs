//! The recorder: writes every input of a node with its time to a file, so that the node can be run again from it.
//!
//! It stands between the loop and the node and looks like a node itself. It changes nothing that the node is told, and
//! adds nothing but log lines of its own. Writing is bounded and never fails the node: where it cannot go on, it says
//! so once and lets the node run on.

use crate::Drive;
use proto_core::io::{Input, Level, LogLine, Output};
use proto_core::machine::Machine;
use proto_core::recording::{End, Header, Writer};
use proto_core::time::{Deadline, Time};
use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an input may wait to be written: what a process that is killed loses.
const FLUSH: Duration = Duration::from_secs(1);
/// Bytes that are written at once, however soon after the last.
const WRITE_BYTES: usize = 64 << 10;
/// More than an input takes beside the bytes that it carries.
const INPUT_BYTES: u64 = 1 << 10;
/// The smallest limit that is taken: room for the header and some inputs.
const LEAST: u64 = 64 << 10;

/// A recording that cannot begin. Its text names the file and the remedy.
#[derive(Debug)]
pub struct RecordError(String);

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RecordError {}

/// A file to which a recording is being written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
    writer: Writer,
    limit: u64,
    written_at: Time,
    over: bool,
}

impl Recorder {
    /// Makes the file (mode 0600; one that exists is left alone and refused) and writes the header. `limit` bounds its
    /// bytes, and is 64 KiB at least.
    ///
    /// # Errors
    /// If the file exists, or the operating system does not let it be made or written.
    pub fn create(path: &Path, header: &Header, limit: u64) -> Result<Recorder, RecordError> {
        let shown = path.display();
        let writer = Writer::new(header).map_err(|e| RecordError(e.text.into_owned()))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| {
            RecordError(match e.kind() {
                ErrorKind::AlreadyExists => {
                    format!("cannot record to {shown}: the file exists, and recordings are never overwritten")
                }
                _ => format!("cannot record to {shown}: {e}"),
            })
        })?;
        let (path, limit) = (path.to_owned(), limit.max(LEAST));
        let mut made = Recorder { path, file, writer, limit, written_at: Time::ZERO, over: false };
        made.write().map_err(|e| RecordError(format!("cannot record to {shown}: {e}")))?;
        Ok(made)
    }

    /// Stands before `node` from now on.
    pub const fn before<N: Drive>(self, node: N) -> Recorded<N> {
        Recorded { node, recorder: self, says: VecDeque::new() }
    }

    /// Takes an input. What is to be said about it, if anything, is a line for the log.
    fn input(&mut self, input: &Input<'_>, now: Time) -> Option<(Level, String)> {
        if self.over {
            return None;
        }
        // What was said to the inputs before is known now, so this is where a block can end.
        let due = now.since(self.written_at) >= FLUSH;
        let full = self.writer.len() + carried(input) + INPUT_BYTES > self.limit;
        if full {
            self.over = true;
            self.writer.finish(End::Cut);
        } else {
            if due {
                self.writer.checkpoint();
            }
            self.writer.input(input, now);
        }
        if full || due || self.writer.ready().len() >= WRITE_BYTES {
            self.written_at = now;
            if let Err(e) = self.write() {
                self.over = true;
                let shown = self.path.display();
                let text =
                    format!("the recording {shown} cannot be written and ends here ({e}); the node runs on");
                return Some((Level::Error, text));
            }
        }
        full.then(|| {
            let (shown, limit) = (self.path.display(), self.limit);
            let text = format!(
                "the recording {shown} has reached its limit of {limit} bytes and ends here; the node runs on"
            );
            (Level::Warn, text)
        })
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all(self.writer.ready())?;
        self.writer.ready().clear();
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Also where a panic unwinds the loop: what led to it is what the recording is for.
        if !self.over {
            self.writer.checkpoint();
            // Nobody is left to be told.
            let _ = self.write();
        }
    }
}

/// Bytes that an input carries.
fn carried(input: &Input<'_>) -> u64 {
    let bytes = match input {
        Input::Received { bytes, .. } | Input::Datagram { bytes, .. } => bytes.len(),
        Input::Sent { batch, .. } => batch.buf.len() + 64 * batch.items.len(),
        Input::HostAddresses(addresses) => 17 * addresses.len(),
        _ => 0,
    };
    bytes as u64
}

/// A node with a recorder before it: drive this in place of the node.
#[derive(Debug)]
pub struct Recorded<N> {
    node: N,
    recorder: Recorder,
    says: VecDeque<Output>,
}

impl<N: Drive> Recorded<N> {
    /// Ends the recording in good order, after the loop has ended.
    ///
    /// # Errors
    /// If its last bytes cannot be written.
    pub fn finish(mut self) -> Result<(), RecordError> {
        if std::mem::replace(&mut self.recorder.over, true) {
            return Ok(());
        }
        self.recorder.writer.finish(End::Ended);
        let written = self.recorder.write();
        let shown = self.recorder.path.display();
        written.map_err(|e| RecordError(format!("the end of the recording {shown} cannot be written: {e}")))
    }
}

impl<N: Drive> Machine for Recorded<N> {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, now: Time) {
        if let Some((level, text)) = self.recorder.input(&input, now) {
            let line = LogLine { level, target: "record", session: None, stream: None, text };
            self.says.push_back(Output::Log(line));
        }
        self.node.handle(input, now);
    }

    fn poll(&mut self) -> Option<Output> {
        let Some(output) = self.node.poll() else { return self.says.pop_front() };
        if !self.recorder.over {
            self.recorder.writer.output(&output);
        }
        Some(output)
    }

    fn deadline(&self) -> Option<Deadline> {
        let flush = (!self.recorder.over && self.recorder.writer.has_block())
            .then(|| Deadline::new(self.recorder.written_at + FLUSH, "the recording is written to its file"));
        Deadline::earliest(self.node.deadline(), flush)
    }
}

#[cfg(test)]
mod tests;
