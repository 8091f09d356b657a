//! The table of abuses is whole, and the page about it says what it holds.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use headwater_tests::world::abuse::ABUSES;
use proto_core::limits::Limits;

#[test]
fn every_row_has_an_abuse() {
    let rows: Vec<&str> =
        (1..=33).map(|n| ABUSES.iter().find(|a| a.row == format!("A{n}")).map_or("", |a| a.row)).collect();
    let wanted: Vec<String> = (1..=33).map(|n| format!("A{n}")).collect();
    assert_eq!(rows, wanted);
}

/// docs/abuse.md says of each row what the table here holds, and names keys that exist.
#[test]
fn the_page_says_what_is_tested() {
    let page = include_str!("../../docs/abuse.md");
    let row = |name: &str| page.lines().find(|l| l.starts_with(&format!("| {name} |"))).expect("a row");
    for abuse in ABUSES {
        for sign in abuse.signs {
            assert!(row(abuse.row).contains(sign.counter), "{}: {}", abuse.row, sign.counter);
        }
    }
    for n in 1..=33 {
        let cells: Vec<&str> = row(&format!("A{n}")).split('|').collect();
        for key in cells[3].split('`').skip(1).step_by(2).filter(|key| !key.contains('.')) {
            assert!(Limits::DOCS.iter().any(|(name, _)| *name == key), "A{n}: limits.{key} is no key");
        }
    }
}
