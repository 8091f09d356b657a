//! Lossy links from WHIP to WHEP, in virtual time.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![forbid(unsafe_code)]

use headwater_tests::sim::loss::{FREEZE, Lossy, clean, far, measure, under};
use headwater_tests::world::link::Conditions;
use std::time::Duration;

const TIME: Duration = Duration::from_secs(30);

/// Of what is lost in bursts of four, at a round trip of 80 ms, a viewer sees nothing.
fn holds(seed: u64, share: f64, lossy: &[Lossy]) {
    let without = clean(seed, TIME);
    for lossy in lossy {
        let q = measure(seed, *lossy, share, TIME, without);
        let said = format!("{share} {lossy}, seed {seed}: {q:#?}");
        assert!(q.shown >= 0.99 && q.freeze <= FREEZE && q.again <= 0.25, "{said}");
        assert!(share > 0.0 && q.again > 0.0 || share == 0.0 && q.again == 0.0, "{said}");
    }
}

#[test]
fn up_to_two_percent_lost_in_bursts_cost_no_picture_and_no_freeze() {
    holds(0, 0.0, &Lossy::ALL);
    holds(0, 0.01, &Lossy::ALL);
    holds(0, 0.02, &[Lossy::Uplink, Lossy::Downlink, Lossy::Sent]);
}

/// Where both links lose as much, pictures come, but some late: docs/loss.md says how many.
#[test]
fn two_percent_on_both_links_still_show_nearly_all_pictures() {
    let q = measure(0, Lossy::Both, 0.02, TIME, clean(0, TIME));
    assert!(q.shown >= 0.99 && q.freeze <= FREEZE * 2 && q.again <= 0.25, "{q:#?}");
}

/// The bar, over minutes: where one link loses.
#[test]
fn two_percent_on_one_link_cost_nothing_over_minutes() {
    for seed in 5..8 {
        holds(seed, 0.02, &[Lossy::Uplink, Lossy::Downlink]);
    }
}

/// In these half minutes bursts take eleven and seventeen of a viewer's reports in a row.
#[test]
fn half_a_second_without_a_viewers_reports_costs_it_nothing() {
    for seed in [11, 16] {
        holds(seed, 0.02, &[Lossy::Downlink]);
    }
}

/// Packets that others overtake are reported as lost, and are not.
#[test]
fn hardly_anything_is_sent_again_where_packets_overtake_one_another() {
    let overtakes = Conditions { reorder: 0.02, ..far() };
    let q = under(0, Lossy::Downlink, overtakes, TIME, clean(0, TIME));
    // More than half of that is the number in each packet: eight bytes.
    assert!(q.shown == 1.0 && q.freeze <= FREEZE / 2 && q.again <= 0.008, "{q:#?}");
}

/// Beyond the bar it gets worse, but slowly.
#[test]
fn five_percent_still_show_nearly_all_pictures() {
    let without = clean(0, TIME);
    for lossy in [Lossy::Uplink, Lossy::Downlink] {
        let q = measure(0, lossy, 0.05, TIME, without);
        assert!(q.shown >= 0.98 && q.freeze <= FREEZE * 2 && q.again <= 0.25, "{lossy}: {q:#?}");
    }
}
