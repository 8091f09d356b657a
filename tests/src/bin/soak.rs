//! `cargo soak --minutes M`: a day of joins and leaves in M minutes, and what is left of it.
#![forbid(unsafe_code)]
// It starts processes and measures real time; the bans of clippy.toml are for the core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use clap::Parser;
use headwater_tests::soak;
use std::process::ExitCode;

/// A day of a cluster (14,400 joins by RTMP, RTSP and WHEP, 1,440 publishers) in a chosen time, at ten joins a second at most.
/// Several times everybody leaves; then sessions, descriptors, timers and memory must be where they were.
#[derive(Parser)]
#[command(name = "soak")]
struct Args {
    /// Minutes that the day takes, without the times in which everybody has left.
    #[arg(long, default_value_t = 24.0)]
    minutes: f64,
    /// How often everybody leaves.
    #[arg(long, default_value_t = 6)]
    laps: usize,
    /// Of who comes when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.minutes.is_nan() || args.minutes <= 0.0 || args.laps == 0 {
        eprintln!("--minutes and --laps must be above 0");
        return ExitCode::from(2);
    }
    match soak::real::play(args.minutes, args.laps, args.seed) {
        Ok(day) => {
            if day.tell() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(why) => {
            eprintln!("the day could not be played: {why}");
            ExitCode::FAILURE
        }
    }
}
