//! Every publisher with every player, through manager, origin and edge in processes of their own: what arrives is read back
//! and measured (`cargo matrix`, docs/matrix.md).

pub mod judge;
pub mod publish;
pub mod seen;
pub mod signal;
pub mod table;
pub mod watch;

use super::cluster::Cluster;
use judge::{Cell, judge};
use publish::{Pages, Publisher};
use std::path::Path;
use std::time::Duration;
use watch::{Player, Wants};

/// The functions of a page that publishes and watches the signal, `hw.matrix.…`.
pub const SCRIPT: &str = include_str!("../js/matrix.js");

/// The longest that a publisher or player may take to begin, on a slow machine.
const BEGINS: Duration = Duration::from_secs(40);

/// How a matrix is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long each player plays, seconds of pictures.
    pub seconds: u64,
    /// Players at the same time.
    pub at_once: usize,
}

/// Runs one publisher at the origin with players at the edge, and judges each. A player that asks only for what is not sent is left
/// out.
pub fn run(
    cluster: &Cluster,
    pages: Pages<'_>,
    publisher: Publisher,
    players: &[Player],
    plan: Plan,
    files: &Path,
) -> Vec<Cell> {
    let stream = format!("live/{}", publisher.name);
    let players: Vec<Player> =
        players.iter().copied().filter(|&p| Wants::of(&publisher, p).anything()).collect();
    let groups = players.chunks(plan.at_once.max(1));
    let lasts = (plan.seconds + BEGINS.as_secs()) * groups.len() as u64;
    let to = cluster.publish_at(&stream);
    let running = match publisher.start(&to, pages, files, lasts) {
        Ok(running) => running,
        Err(why) => return players.iter().map(|&p| Cell::unpublished(publisher, p, &why)).collect(),
    };
    let at = cluster.play_at(&stream);
    let mut cells = Vec::new();
    for group in groups {
        let from = cluster.edge.log.mark();
        let start = |&player: &Player| {
            let wants = Wants::of(&publisher, player);
            watch::start(player, wants, &at, pages, files.join(player.name()), BEGINS)
        };
        let mut started: Vec<_> = group.iter().map(start).collect();
        let span = Duration::from_secs(plan.seconds);
        watch::wait(&mut started, span, span + BEGINS);
        let ended: Vec<_> = started.into_iter().map(|it| (it.player, it.end())).collect();
        for (player, seen) in ended {
            let reason = judge::reason(&cluster.edge.log, from, (player, !seen.nothing()), &stream);
            let mut cell = judge(publisher, player, &seen, reason);
            if cell.failed().is_some() {
                cell.told = format!("{}\n{}", running.said(), cluster.edge.log.tail(15));
            }
            cells.push(cell);
        }
    }
    cells
}
