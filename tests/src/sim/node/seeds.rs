//! What the fuzz targets `node` and `cluster` begin with: whole conversations, in clusters of each shape. `cargo fuzzing seeds` writes
//! them, for a new request or operation makes others of them.

use super::cluster::WAYS;
use super::requests::{REQUESTS, Request};
use crate::world::actors::evil::Evil;
use proto_core::io::Service;

/// The first byte: rules, TLS, an honest publisher, other servers.
const SETUPS: [u8; 6] = [0b0100, 0b0101, 0b1101, 0b0110, 0b1100, 0b0111];
/// The second byte of clusters: what it is made of, and links by TCP, sites, a server of somebody else.
const SHAPES: [u8; 8] = [0, 0x10, 1, 0x12, 3, 0x14, 0x1b, 7];
/// Requests in one seed.
const LENGTH: usize = 30;

fn byte(n: usize) -> u8 {
    u8::try_from(n).expect("there are fewer")
}

/// Requests from `from` on, each to the connection of its service. What is not answered in one go has one that is new.
fn requests(from: usize) -> Vec<u8> {
    let conn = |request: &Request| match request.said().0 {
        Service::Rtmp => 1,
        Service::Rtsp => 2,
        _ if request.is_stream() => 1,
        _ => u8::from(matches!(request, Request::Text(_)) || request.is_upgrade()) * 3,
    };
    let said = |(n, request): (usize, &Request)| {
        let new = [5 << 5 | conn(request)];
        let begins = request.is_stream() || request.is_upgrade();
        [if begins { &new[..] } else { &[] }, &[1 << 5 | conn(request), byte(n)]].concat()
    };
    REQUESTS.iter().enumerate().skip(from).take(LENGTH).flat_map(said).collect()
}

fn lapse(squared: u8) -> [u8; 2] {
    [3 << 5, squared]
}

fn happens(what: u8, b: u8) -> [u8; 2] {
    [7 << 5 | what, b]
}

/// One or more of each kind of abuse.
fn abuses(from: usize, n: usize) -> Vec<u8> {
    let kinds = Evil::ALL.iter().enumerate().skip(from).take(n);
    kinds.flat_map(|(n, _)| [4 << 5 | byte(n) & 31, byte(n)]).collect()
}

/// The seeds of `node`, by name.
pub fn of_node() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for setup in SETUPS {
        for from in (0..REQUESTS.len()).step_by(LENGTH) {
            let script = [
                &[setup][..],
                &requests(from),
                &lapse(90),
                &happens(0, 0),
                &happens(0b01100, 0),
                &lapse(120),
            ];
            all.push((format!("requests-{setup}-{from}"), script.concat()));
        }
    }
    for from in (0..Evil::ALL.len()).step_by(20) {
        all.push((format!("abuses-{from}"), [&[0b0101][..], &abuses(from, 20), &lapse(60)].concat()));
    }
    all
}

/// The seeds of `http1_request`, by name: some requests each, behind the byte that cuts them.
pub fn of_http() -> Vec<(String, Vec<u8>)> {
    let said = |request: &Request| {
        let (service, bytes) = request.said();
        (service == Service::Http && !matches!(request, Request::Text(_))).then_some(bytes)
    };
    let all: Vec<Vec<u8>> = REQUESTS.iter().filter_map(said).collect();
    let some =
        |(n, some): (usize, &[Vec<u8>])| (format!("requests-{n}"), [&[200][..], &some.concat()].concat());
    all.chunks(3).enumerate().map(some).collect()
}

/// The seeds of `cluster`, by name.
pub fn of_cluster() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (n, shape) in SHAPES.into_iter().enumerate() {
        // Where there is a server of somebody else, streams are pulled from it and pushed to it.
        let setup = SETUPS[n % SETUPS.len()] | if shape & 0x10 == 0 { 0 } else { 0b1000 };
        // Everybody publishes, and everybody plays at another node.
        for (first, way) in WAYS.iter().enumerate().step_by(3) {
            let mut script = vec![setup, shape];
            script.extend(happens(11 + byte(first) % 6, 0x11));
            script.extend(lapse(60));
            for second in first..first + 4 {
                script.extend(happens(byte(second % WAYS.len()), byte(n + second) << 4 | byte(second % 6)));
                script.extend(lapse(30));
            }
            script.extend(lapse(100));
            for what in 17..26 {
                script.extend(happens(what, byte(first + n) << 2 | what & 3));
                script.extend(lapse(50));
            }
            script.extend(lapse(120));
            all.push((format!("{way:?}-{shape}").to_lowercase(), script));
        }
        for from in (0..REQUESTS.len()).step_by(LENGTH) {
            let turn = happens(24, byte((n + from / LENGTH) % 3) << 4);
            let script = [&[setup, shape][..], &turn, &requests(from), &lapse(90)];
            all.push((format!("requests-{shape}-{from}"), script.concat()));
        }
        // Renditions, and viewers at links of all kinds.
        let layers = [
            happens(25, 0x90),
            lapse(105),
            happens(25, 0xaa),
            happens(25, 0x99),
            happens(25, 0xaf),
            lapse(180),
        ];
        all.push((format!("layers-{shape}"), [&[setup, shape][..], &layers.concat()].concat()));
        let faults: Vec<u8> = (25..32)
            .flat_map(|what| {
                let some =
                    [happens(what, 0x10 | byte(n)), lapse(55), happens(what, 0x21 + byte(n)), lapse(55)];
                some.concat()
            })
            .collect();
        let watched =
            [happens(0, 0x10), happens(3, 0x20), happens(12, 0x11), happens(4, 0x21), lapse(80)].concat();
        all.push((format!("faults-{shape}"), [&[setup, shape][..], &watched, &faults].concat()));
    }
    all
}
