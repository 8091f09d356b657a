//! Lossy links from WHIP to WHEP, in virtual time.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]

use headwater_tests::sim::loss::{Lossy, measure};
use std::time::Duration;

const FREEZE: Duration = Duration::from_millis(300);

/// The bar: of 2 % lost in bursts of four, at a round trip of 80 ms, a viewer sees nothing.
#[test]
fn two_percent_lost_in_bursts_cost_no_picture_and_no_freeze() {
    for share in [0.0, 0.01, 0.02] {
        for lossy in Lossy::ALL {
            let q = measure(0, lossy, share, Duration::from_secs(30));
            assert!(q.shown >= 0.99 && q.freeze <= FREEZE && q.again <= 0.25, "{share} {lossy}: {q:?}");
            assert!(share > 0.0 && q.again > 0.0 || share == 0.0 && q.again == 0.0, "{share} {lossy}: {q:?}");
        }
    }
}

/// Beyond the bar it gets worse, but slowly.
#[test]
fn five_percent_still_show_nearly_all_pictures() {
    for lossy in [Lossy::Uplink, Lossy::Downlink] {
        let q = measure(0, lossy, 0.05, Duration::from_secs(30));
        assert!(q.shown >= 0.98 && q.freeze <= FREEZE * 2 && q.again <= 0.25, "{lossy}: {q:?}");
    }
}
