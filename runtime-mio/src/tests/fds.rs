//! A process without file descriptors. The limit is the process's, so the server is this test in a process of its own.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

const SERVER: &str = "HEADWATER_TEST_FEW_DESCRIPTORS";
const CLIENTS: usize = 60;

#[test]
fn without_descriptors_newcomers_are_closed_and_the_loop_neither_spins_nor_dies() {
    if std::env::var_os(SERVER).is_some() {
        return serve();
    }
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("tests::fds::without_descriptors_newcomers_are_closed_and_the_loop_neither_spins_nor_dies")
        .env(SERVER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    // The harness writes to the same line before us.
    let mut line = |word: &str| -> u64 {
        loop {
            let line = lines.next().expect("the server speaks").unwrap();
            if let Some((_, number)) = line.split_once(word) {
                return number.parse().unwrap();
            }
        }
    };
    let addr: SocketAddr = ([127, 0, 0, 1], u16::try_from(line("port ")).unwrap()).into();
    let ask = || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut pong = [0; 4];
        let served = stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut pong)).is_ok();
        served.then_some(stream)
    };
    let held: Vec<TcpStream> = (0..CLIENTS).filter_map(|_| ask()).collect();
    assert!(!held.is_empty() && held.len() < 40, "{} of {CLIENTS} were served", held.len());
    let refused = CLIENTS - held.len();
    for mut stream in held {
        stream.write_all(b"pong").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
    }
    assert!(ask().is_some(), "served again when descriptors are free");
    drop(server.stdin.take());
    assert_eq!(line("refused "), refused as u64);
    // A turn or two for each event; a loop that spun through the pauses would have taken thousands.
    let turns = line("turns ");
    assert!(turns < 20 * CLIENTS as u64, "{turns} turns");
    assert!(server.wait().unwrap().success());
}

fn serve() {
    let run = Running::start(echo);
    println!("\nport {}", run.addr.port());
    // The parent closes our input when it has seen enough.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let stats = run.control.stats();
    println!("\nrefused {}\nturns {}", stats.accept_refused, stats.turns);
}
