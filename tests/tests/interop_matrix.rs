//! Some cells of the matrix (docs/matrix.md): real publishers with real players through manager, origin and edge. Numbers in
//! the picture and pips in the sound are read back: nothing damaged, repeated or out of order, and both together.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::interop::browser::{Browser, Page};
use headwater_tests::interop::cluster::{Cluster, turn};
use headwater_tests::interop::matrix::judge::Outcome;
use headwater_tests::interop::matrix::publish::{Pages, Publisher};
use headwater_tests::interop::matrix::watch::Player;
use headwater_tests::interop::matrix::{self, Plan, SCRIPT};

/// Three pips.
const PLAN: Plan = Plan { seconds: 7, at_once: 3 };

/// What a cell is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Passed,
    Bridged,
    Refused,
}

/// Runs one publisher with some players in a cluster of its own.
fn cells(publisher: &str, players: &[(Player, Expected)], browser: Option<&Browser>) {
    let cluster = Cluster::start();
    if let Some(page) = browser {
        page.open(&cluster.manager.url("/healthz"));
        page.eval(&format!("{SCRIPT}; return true;"));
    }
    let pages = Pages { chromium: browser.map(|b| b as &dyn Page), firefox: None };
    let files = std::env::temp_dir().join(format!("headwater-cells-{}-{publisher}", std::process::id()));
    std::fs::create_dir_all(&files).expect("a directory for temporary files");
    let kinds: Vec<Player> = players.iter().map(|p| p.0).collect();
    let publisher = Publisher::named(publisher).expect("there is one of this name");
    let got = matrix::run(&cluster, pages, publisher, &kinds, PLAN, &files);
    drop(std::fs::remove_dir_all(&files));
    for (cell, (player, expected)) in got.iter().zip(players) {
        let outcome = match cell.outcome {
            Outcome::Passed => Some(Expected::Passed),
            Outcome::Bridged(_) => Some(Expected::Bridged),
            Outcome::Refused(_) => Some(Expected::Refused),
            Outcome::Unable(_) | Outcome::Failed(_) => None,
        };
        assert_eq!(outcome, Some(*expected), "{player:?}: {}\n{}", cell.json(), cell.told);
    }
}

#[test]
fn h264_and_aac_by_rtmp_are_whole_and_together_by_rtmp_rtsp_and_whep() {
    let _turn = turn();
    let browser = Browser::start();
    let players = [
        (Player::RtmpPlain, Expected::Passed),
        (Player::RtspUdp, Expected::Passed),
        (Player::Gstreamer, Expected::Passed),
        (Player::Chromium, Expected::Bridged),
        (Player::Aiortc, Expected::Bridged),
    ];
    cells("rtmp", &players, Some(&browser));
}

// What a bridge makes of H.265 for a player without it is seen in interop_codecs.rs: how many pictures it can make is a
// question of speed, and these builds have none.
#[test]
fn h265_by_enhanced_rtmp_is_whole_where_it_can_be_played() {
    let _turn = turn();
    cells("rtmp-hevc", &[(Player::Rtmp, Expected::Passed), (Player::RtspTcp, Expected::Passed)], None);
}

#[test]
fn av1_by_enhanced_rtmp_is_refused_with_words_to_a_player_that_does_not_know_it() {
    let _turn = turn();
    cells("rtmp-av1", &[(Player::RtmpPlain, Expected::Refused)], None);
}

#[test]
fn vp9_of_chromium_is_whole_and_together_in_chromium_and_by_rtsp() {
    let _turn = turn();
    let browser = Browser::start();
    let players = [(Player::RtspTcp, Expected::Passed), (Player::Chromium, Expected::Passed)];
    cells("chromium-vp9", &players, Some(&browser));
}
