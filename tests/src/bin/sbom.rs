//! `cargo sbom [TARGET]`: prints the bill of materials of the binary, for this system or another target triple.
#![forbid(unsafe_code)]

use headwater_tests::{sbom, tidy};
use std::process::ExitCode;

fn main() -> ExitCode {
    let target = std::env::args().nth(1).map_or_else(tidy::host_triple, Ok);
    match target.and_then(|target| sbom::of(&tidy::root(), &target)) {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("there is no bill of materials: {text}");
            ExitCode::FAILURE
        }
    }
}
