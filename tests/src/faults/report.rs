//! Results as lines between processes, and as the table.

use super::{Fault, Row, Victim};
use serde_json::{Value, json};
use std::time::Duration;

/// A cell's result.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What went wrong.
    pub fault: Fault,
    /// Where.
    pub victim: Victim,
    /// What came of it, or why nothing did.
    pub result: Result<Vec<Row>, String>,
}

impl Cell {
    /// Whether it is as it must be.
    pub fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|rows| !rows.is_empty() && rows.iter().all(|r| r.good))
    }
}

/// Rows as a line.
pub fn line(rows: &[Row]) -> String {
    let row = |r: &Row| {
        let back = r.back.map(|b| b.as_millis() as u64);
        json!({"who": r.who, "hit": r.hit, "lost": r.lost, "back_ms": back, "good": r.good})
    };
    json!(rows.iter().map(row).collect::<Vec<_>>()).to_string()
}

/// Rows out of a line.
///
/// # Errors
/// What is wrong with it.
pub fn rows(line: &str) -> Result<Vec<Row>, String> {
    let json: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
    let row = |v: &Value| {
        Some(Row {
            who: v["who"].as_str()?.to_owned(),
            hit: v["hit"].as_bool()?,
            lost: v["lost"].as_u64()? as usize,
            back: v["back_ms"].as_u64().map(Duration::from_millis),
            good: v["good"].as_bool()?,
        })
    };
    json.as_array().ok_or("no list")?.iter().map(|v| row(v).ok_or(format!("no row: {v}"))).collect()
}

/// The table, in Markdown.
pub fn table(cells: &[Cell]) -> String {
    let mut out = String::from(
        "| fault | at | what was not hit | what was hit, until it was back | |\n|---|---|---|---|---|\n",
    );
    for cell in cells {
        out += &row(cell);
    }
    out
}

/// A line of it.
pub fn row(cell: &Cell) -> String {
    let (calm, hit, good) = match &cell.result {
        Err(why) => (String::new(), why.replace('|', "/").replace('\n', " "), "**not run**"),
        Ok(rows) => {
            let spared = rows.iter().filter(|r| !r.hit);
            let lost: Vec<String> =
                spared.filter(|r| r.lost > 0).map(|r| format!("{}: {} lost", r.who, r.lost)).collect();
            let calm = if lost.is_empty() { "nothing lost".to_owned() } else { lost.join(", ") };
            let time = |r: &Row| match r.back {
                Some(b) => format!("{} {:.1} s", r.who, b.as_secs_f64()),
                None => format!("{} **not back**", r.who),
            };
            let hit: Vec<String> = rows.iter().filter(|r| r.hit).map(time).collect();
            (calm, hit.join(", "), if cell.is_good() { "ok" } else { "**no**" })
        }
    };
    format!("| {} | {} | {calm} | {hit} | {good} |\n", cell.fault, cell.victim.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_way_and_the_table_says_what_is_wrong() {
        let row = |hit, lost, back: Option<u64>, good| Row {
            who: "RTMP viewers".to_owned(),
            hit,
            lost,
            back: back.map(Duration::from_millis),
            good,
        };
        let all = vec![row(false, 0, None, true), row(true, 1, Some(1_234), true)];
        assert_eq!(rows(&line(&all)), Ok(all.clone()));
        assert!(rows("[{}]").is_err() && rows("x").is_err());
        let cell = |result| Cell { fault: Fault::Pause, victim: Victim::Edge, result };
        let good = cell(Ok(all));
        let bad = cell(Ok(vec![row(false, 2, None, false), row(true, 0, None, false)]));
        assert!(good.is_good() && !bad.is_good() && !cell(Err("x".to_owned())).is_good());
        assert!(!cell(Ok(Vec::new())).is_good(), "nobody was looked at");
        let text = table(&[good, bad]);
        assert!(text.contains("| pause | edge | nothing lost | RTMP viewers 1.2 s | ok |"), "{text}");
        assert!(text.contains("RTMP viewers: 2 lost | RTMP viewers **not back** | **no** |"), "{text}");
    }
}
