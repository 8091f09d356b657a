//! The matrix as tables.

use super::judge::{Cell, Outcome};
use super::publish::Publisher;
use super::watch::Player;
use std::fmt::Write;

/// Publishers and players, each once, in the order of the cells.
fn axes(cells: &[Cell]) -> (Vec<Publisher>, Vec<Player>) {
    let (mut publishers, mut players) = (Vec::new(), Vec::new());
    for cell in cells {
        if !publishers.contains(&cell.publisher) {
            publishers.push(cell.publisher);
        }
        if !players.contains(&cell.player) {
            players.push(cell.player);
        }
    }
    (publishers, players)
}

fn sent(publisher: Publisher) -> String {
    let codecs = [publisher.video, publisher.audio];
    codecs.iter().filter(|c| !c.is_empty()).copied().collect::<Vec<_>>().join(" + ")
}

/// The short form: a row a publisher, a column a player, a word a cell.
pub fn short(cells: &[Cell]) -> String {
    let (publishers, players) = axes(cells);
    let mut out = String::from("| publisher | sends |");
    for player in &players {
        let _ = write!(out, " {} |", player.title());
    }
    out.push_str("\n|---|---|");
    out.push_str(&"---|".repeat(players.len()));
    for publisher in publishers {
        let _ = write!(out, "\n| {} | {} |", publisher.title, sent(publisher));
        for &player in &players {
            let cell = cells.iter().find(|c| c.publisher == publisher && c.player == player);
            let word = match cell.map(|c| &c.outcome) {
                None => "".to_owned(),
                Some(Outcome::Passed) => "passed".to_owned(),
                Some(Outcome::Bridged(what)) => what.clone(),
                Some(Outcome::Unable(_)) => "lacks the codec".to_owned(),
                Some(Outcome::Refused(_)) => "refused".to_owned(),
                Some(Outcome::Failed(_)) => "**failed**".to_owned(),
            };
            let _ = write!(out, " {word} |");
        }
    }
    out.push('\n');
    out
}

/// The long form: a row a cell, with what was measured.
pub fn long(cells: &[Cell]) -> String {
    let mut out = String::from(
        "| publisher | player | result | arrives | first picture | pictures | missing | repeated | out of order | \
         damaged | longest gap | sound − picture | of the first pips | of the last pips | tone |\n\
         |---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for cell in cells {
        let m = &cell.measure;
        let result = match &cell.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Bridged(what) => format!("bridged: {what}"),
            Outcome::Refused(_) => "refused".to_owned(),
            Outcome::Unable(_) => "the player lacks the codec".to_owned(),
            Outcome::Failed(why) => format!("**failed**: {}", why.replace('|', "/")),
        };
        let number =
            |value: Option<f64>, unit: &str| value.map_or("–".to_owned(), |v| format!("{v:.0} {unit}"));
        let codecs: Vec<&str> = cell.codecs.iter().map(String::as_str).filter(|c| !c.is_empty()).collect();
        let _ = writeln!(
            out,
            "| {} ({}) | {} | {result} | {} | {} | {} | {} | {} | {} | {} | {} ms | {} | {} | {} | {} |",
            cell.publisher.title,
            sent(cell.publisher),
            cell.player.title(),
            codecs.join(" + "),
            number(cell.start_ms.map(|ms| ms as f64), "ms"),
            m.pictures,
            m.missing,
            m.repeated,
            m.disordered,
            m.damaged,
            m.frozen_ms,
            number(m.offset_ms, "ms"),
            number(m.offset_ends_ms.map(|e| e.0), "ms"),
            number(m.offset_ends_ms.map(|e| e.1), "ms"),
            number(m.tone_hz, "Hz"),
        );
    }
    let mut refused = cells.iter().filter_map(|c| match &c.outcome {
        Outcome::Refused(why) => Some((c, why)),
        _ => None,
    });
    if let Some(first) = refused.next() {
        out.push_str("\nWhat those are told who are refused:\n\n");
        for (cell, why) in std::iter::once(first).chain(refused) {
            let _ = writeln!(
                out,
                "* {} ({}) to {}: {why}",
                cell.publisher.title,
                sent(cell.publisher),
                cell.player.title()
            );
        }
    }
    out
}
