//! `headwater replay`: a recorded node, run again without network, and whether it does the same.

mod columns;

use crate::args::Replay as Args;
use crate::failure::Failure;
use crate::seeded::Seeded;
use columns::Columns;
use proto_core::recording::{Damage, End, Header, Item, Reader, Replay};
use proto_core::time::Time;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

/// Bytes that are read from the file at a time.
const READ: usize = 64 << 10;

/// Replays a file and prints what came of it.
///
/// # Errors
/// If the replay differs, or the file cannot be used.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (source, header) = Source::open(&args.file)?;
    let trace = args.trace.then(|| Columns::new(args.from.unwrap_or(Time::ZERO), args.to));
    // Of its own, because what libraries keep for a thread must come from the recording's seed.
    let replaying = thread::Builder::new()
        .name("replay".to_owned())
        .spawn(move || replay(source, &header, trace))
        .map_err(|e| Failure::Running(format!("there is no thread to replay on: {e}")))?;
    let outcome = replaying.join();
    outcome.unwrap_or_else(|_| Err(Failure::Running("the replay panicked; see above".to_owned())))
}

/// The file, as items.
struct Source {
    shown: String,
    file: File,
    buffer: Vec<u8>,
    reader: Reader,
}

impl Source {
    fn open(path: &Path) -> Result<(Source, Box<Header>), Failure> {
        let shown = path.display().to_string();
        let file =
            File::open(path).map_err(|e| Failure::Wrong(vec![format!("{shown} cannot be opened: {e}")]))?;
        let mut source = Source { shown, file, buffer: vec![0; READ], reader: Reader::new() };
        match source.next() {
            Ok(Some(Item::Header(header))) => Ok((source, header)),
            Ok(_) => Err(Failure::Running(format!(
                "{}: the file is cut off before anything was recorded",
                source.shown
            ))),
            Err(e) => Err(e),
        }
    }

    /// The next item; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            match self.reader.next() {
                Ok(Some(item)) => return Ok(Some(item)),
                Ok(None) => {}
                Err(e @ (Damage::NotARecording | Damage::OtherFormat(_))) => {
                    return Err(Failure::Wrong(vec![format!("{}: {e}", self.shown)]));
                }
                Err(e) => return Err(Failure::Running(format!("{}: {e}", self.shown))),
            }
            let read = self.file.read(&mut self.buffer);
            match read.map_err(|e| Failure::Running(format!("{} cannot be read: {e}", self.shown)))? {
                0 => return Ok(None),
                n => self.reader.push(self.buffer.get(..n).unwrap_or_default()),
            }
        }
    }
}

/// How far a replay came.
#[derive(Default)]
struct Far {
    end: Option<End>,
    failure: Option<Failure>,
}

fn replay(mut source: Source, header: &Header, mut trace: Option<Columns>) -> Result<(), Failure> {
    let node = Seeded::new(header).map_err(|e| {
        Failure::Running(format!("{}: the node of this recording cannot be made: {e}", source.shown))
    })?;
    let name = node.name();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut replay = Replay::new(node);
    let ran = catch_unwind(AssertUnwindSafe(|| feed(&mut source, &mut replay, trace.as_mut(), &mut out)));
    let far = ran.unwrap_or_else(|_| {
        let text = format!(
            "the node panicked at input {} ({} s), as it may have done when it was recorded; the panic stands above",
            replay.inputs(),
            replay.at()
        );
        Far { failure: Some(Failure::Running(text)), ..Far::default() }
    });
    let report = report(&source, header, &name, &replay, &far);
    // A reader that has seen enough is no failure.
    let _ = out.write_all(report.as_bytes()).and_then(|()| out.flush());
    match (far.failure, replay.difference()) {
        (Some(failure), _) => Err(failure),
        (None, Some(d)) => Err(Failure::Running(difference(&d, header))),
        (None, None) => Ok(()),
    }
}

fn feed(
    source: &mut Source,
    replay: &mut Replay<Seeded>,
    mut trace: Option<&mut Columns>,
    out: &mut impl io::Write,
) -> Far {
    let mut far = Far::default();
    loop {
        match source.next() {
            Ok(Some(Item::Input { at, mark, input })) => {
                let number = replay.inputs() + 1;
                replay.input(at, mark, input, &mut |at, seen| {
                    if let Some(columns) = trace.as_mut() {
                        // As with the report.
                        let _ = columns.line(out, number, at, &seen);
                    }
                });
            }
            Ok(Some(Item::Checkpoint { digest, end })) => {
                replay.checkpoint(digest);
                far.end = far.end.or(end);
            }
            Ok(Some(Item::Header(_))) => {}
            Ok(None) => return far,
            Err(failure) => {
                far.failure = Some(failure);
                return far;
            }
        }
    }
}

fn report(source: &Source, header: &Header, name: &str, replay: &Replay<Seeded>, far: &Far) -> String {
    let mut text = String::new();
    let (inputs, at) = (replay.inputs(), replay.at());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: node {name}", source.shown);
    let _ =
        writeln!(text, "recorded by headwater {}, replayed by headwater {}", header.version, crate::VERSION);
    let _ = writeln!(text, "{inputs} inputs in {at} s of the node's time");
    let _ = match (&far.failure, far.end) {
        (Some(_), _) => Ok(()),
        (None, Some(End::Ended)) => writeln!(text, "the recording goes on to the end of the node"),
        (None, Some(End::Cut)) => {
            writeln!(
                text,
                "the recording ended at its limit, or because it could not be written; the node ran on"
            )
        }
        (None, None) => writeln!(
            text,
            "the recording has no end: the process was killed, or the file was cut off; a last part that was not \
             whole is left out ({} bytes)",
            source.reader.left_over()
        ),
    };
    if replay.difference().is_none() && far.failure.is_none() {
        let _ = writeln!(text, "reproduced bit for bit: {:016x}", replay.digest());
    }
    text
}

fn difference(d: &proto_core::recording::Difference, header: &Header) -> String {
    let mut text = format!(
        "the replay differs: what the node said to input {}, at {} s, is not what was recorded (the checkpoint after \
         input {} was the same, ",
        d.input, d.at, d.same_until
    );
    let _ = match d.seen_by {
        Some(by) => write!(text, "that after input {by} was not)"),
        None => write!(text, "none follows)"),
    };
    if header.version != crate::VERSION {
        let _ = write!(
            text,
            "; another version may well do something else: try version {}, which recorded it",
            header.version
        );
    }
    text
}
