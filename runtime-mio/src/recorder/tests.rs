//! The recorder before a toy node, with real files.

use super::*;
use proto_core::io::ConnId;
use proto_core::node::config::Config;
use proto_core::recording::{CODES, Item, Reader, Replay};
use std::os::unix::fs::PermissionsExt as _;

/// Gives every byte back.
#[derive(Default)]
struct Echo {
    out: VecDeque<Output>,
    told: u64,
}

impl Machine for Echo {
    type Input<'a> = Input<'a>;
    type Output = Output;

    fn handle(&mut self, input: Input<'_>, _: Time) {
        self.told += 1;
        if let Input::Received { conn, bytes } = input {
            self.out.push_back(Output::Send { conn, bytes: bytes.to_vec().into() });
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Deadline> {
        None
    }
}

fn header() -> Header {
    let (node_seed, crypto_seed) = ([1; 32], [2; 32]);
    Header { version: "test".to_owned(), config: Config::default(), node_seed, crypto_seed }
}

/// A path of one test; what lies there is removed when this is dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        Place(std::env::temp_dir().join(format!("headwater-recorder-{name}-{}", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn tell(node: &mut Recorded<Echo>, input: Input<'_>, at: Time) -> Vec<String> {
    node.handle(input, at);
    let said = std::iter::from_fn(|| node.poll());
    said.filter_map(|o| if let Output::Log(line) = o { Some(line.text) } else { None }).collect()
}

/// How many inputs a file brings back, and how it ends.
fn replayed(path: &Path) -> (u64, Option<End>) {
    let mut reader = Reader::new();
    reader.push(&std::fs::read(path).unwrap());
    let (mut replay, mut found) = (Replay::new(Echo::default()), None);
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Header(_) => {}
            Item::Input { at, mark, input } => replay.input(at, mark, input, &mut |_, _| {}),
            Item::Checkpoint { digest, end } => {
                replay.checkpoint(digest);
                found = end;
            }
        }
    }
    assert_eq!(replay.difference(), None);
    (replay.inputs(), found)
}

const CONN: ConnId = ConnId::accepted(1);

#[test]
fn what_is_recorded_can_be_replayed_a_second_later_and_at_the_end() {
    let place = Place::new("whole");
    let mut node = Recorder::create(&place.0, &header(), 1 << 20).unwrap().before(Echo::default());
    assert_eq!(std::fs::metadata(&place.0).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(replayed(&place.0), (0, None));
    assert_eq!(node.deadline(), None, "nothing waits to be written");
    for n in 0..10u8 {
        tell(&mut node, Input::Received { conn: CONN, bytes: &[n; 100] }, Time::from_millis(u64::from(n)));
    }
    assert_eq!(replayed(&place.0), (0, None), "small inputs wait");
    assert_eq!(node.deadline().map(|d| d.at), Some(Time::ZERO + FLUSH), "but not for long");
    tell(&mut node, Input::Tick, Time::ZERO + FLUSH);
    assert_eq!(replayed(&place.0), (10, None));
    tell(&mut node, Input::Received { conn: CONN, bytes: &[7; WRITE_BYTES] }, Time::from_millis(1_001));
    tell(&mut node, Input::Tick, Time::from_millis(1_002));
    assert_eq!(replayed(&place.0), (12, None), "much is written at once");
    node.finish().unwrap();
    assert_eq!(replayed(&place.0), (13, Some(End::Ended)));
}

#[test]
fn a_node_that_is_dropped_in_a_panic_leaves_what_led_to_it() {
    let place = Place::new("panic");
    let recorder = Recorder::create(&place.0, &header(), 1 << 20).unwrap();
    let panicked = std::panic::catch_unwind(move || {
        let mut node = recorder.before(Echo::default());
        tell(&mut node, Input::Received { conn: CONN, bytes: b"x" }, Time::from_millis(5));
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(replayed(&place.0), (1, None));
}

#[test]
fn at_the_limit_it_says_so_once_and_the_node_runs_on() {
    let place = Place::new("limit");
    let mut node = Recorder::create(&place.0, &header(), LEAST).unwrap().before(Echo::default());
    let mut said = Vec::new();
    for n in 0..20 {
        said.extend(tell(
            &mut node,
            Input::Received { conn: CONN, bytes: &[7; 10_000] },
            Time::from_nanos(n),
        ));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("reached its limit of 65536 bytes") && said[0].contains("runs on"), "{said:?}");
    assert_eq!((node.node.told, node.deadline()), (20, None));
    assert!(std::fs::metadata(&place.0).unwrap().len() <= LEAST);
    node.finish().unwrap();
    let (inputs, end) = replayed(&place.0);
    assert!((3..7).contains(&inputs) && end == Some(End::Cut), "{inputs} {end:?}");
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_node() {
    let place = Place::new("full");
    let mut recorder = Recorder::create(&place.0, &header(), 1 << 20).unwrap();
    recorder.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut node = recorder.before(Echo::default());
    let mut said = Vec::new();
    for n in 0..5 {
        said.extend(tell(&mut node, Input::Tick, Time::from_millis(n * 1_000)));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("cannot be written") && said[0].contains("runs on"), "{said:?}");
    assert_eq!(node.node.told, 5);
    node.finish().unwrap();
}

#[test]
fn a_file_that_exists_is_left_alone() {
    let place = Place::new("exists");
    std::fs::write(&place.0, "precious").unwrap();
    let refused = Recorder::create(&place.0, &header(), 1 << 20).unwrap_err().to_string();
    assert!(
        refused.contains("never overwritten") && refused.contains(place.0.to_str().unwrap()),
        "{refused}"
    );
    assert_eq!(std::fs::read_to_string(&place.0).unwrap(), "precious");
    let nowhere = Recorder::create(&place.0.join("x"), &header(), 1 << 20).unwrap_err().to_string();
    assert!(nowhere.contains("cannot record to"), "{nowhere}");
}

#[test]
fn every_reason_that_the_loop_gives_can_be_read_back() {
    let mut codes = Vec::new();
    for source in [include_str!("../tcp.rs"), include_str!("../udp.rs")] {
        for after in source.split("Reason::").skip(1) {
            let call = ["peer(", "local(", "limit("].iter().find_map(|c| after.strip_prefix(c));
            let text = call.and_then(|c| c.trim_start().strip_prefix('"')).and_then(|c| c.split('"').next());
            codes.extend(text);
        }
    }
    assert!(codes.len() >= 4, "{codes:?}");
    for code in codes {
        assert!(CODES.contains(&code), "proto_core::recording::CODES lacks {code}");
    }
}
