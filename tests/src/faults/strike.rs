//! The faults themselves: how each begins, what happens meanwhile, and how it ends.

use super::scene::{AGAIN, EDGE, OTHER_EDGE, OTHER_ORIGIN, Scene};
use super::{Fault, Victim};
use crate::interop::cluster::signal;
use crate::live::{Id, Protocol};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long it is looked at what comes after a fault.
const AFTER: Duration = Duration::from_secs(7);

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Scene {
    /// Does it, and looks on for a while.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<(), String> {
        let hit = self.hit_node();
        match fault {
            Fault::Restart => {
                self.nodes[hit].kill();
                self.during(s(2));
                self.nodes[hit].start_again();
            }
            Fault::Death => {
                self.nodes[hit].kill();
                self.ended = self.live.now();
                self.until(AFTER, |scene| {
                    scene.ask_the_manager();
                    false
                });
                return Ok(());
            }
            Fault::Pause | Fault::LongPause => {
                let pid = self.nodes[hit].pid();
                signal(pid, "STOP");
                self.during(if fault == Fault::Pause { s(2) } else { s(6) });
                signal(pid, "CONT");
            }
            Fault::Disk => {
                let full = |line: &str| line.contains("No space left");
                let saw = |scene: &mut Scene| scene.nodes[hit].log.count(Default::default(), full) > 0;
                if !self.until(s(40), saw) {
                    return Err("its disk was not full after 40 s".to_owned());
                }
                self.during(s(2));
            }
            Fault::Descriptors => self.no_descriptors(hit)?,
            Fault::Memory => self.no_memory(hit)?,
            Fault::Clock => return Err("it is simulated".to_owned()),
            Fault::Loss => self.network(&["loss 10"], s(5), &["loss 0"])?,
            Fault::Delay => self.network(&["delay 300"], s(5), &["delay 5"])?,
            Fault::Corruption => self.network(&["corrupt 5"], s(5), &["corrupt 0"])?,
            Fault::Cut => self.network(&["cut"], s(2), &["join"])?,
            Fault::LongCut => self.network(&["cut"], s(8), &["join"])?,
        }
        self.ended = self.live.now();
        // Who comes now is served: at the victim, or by way of the manager's word if that was it.
        match self.victim {
            Victim::Edge => self.newcomers(EDGE, "hit"),
            Victim::Origin => self.newcomers(OTHER_EDGE, "hit"),
            // An edge that has not got the stream asks the manager where it is.
            Victim::Manager => self.newcomers(OTHER_EDGE, "hit"),
        }
        self.during(AFTER);
        Ok(())
    }

    fn network(&mut self, begin: &[&str], time: Duration, end: &[&str]) -> Result<(), String> {
        for line in begin {
            self.link.as_mut().ok_or("there is no link")?.change(line)?;
        }
        self.during(time);
        for line in end {
            self.link.as_mut().ok_or("there is no link")?.change(line)?;
        }
        Ok(())
    }

    /// All descriptors but three are taken away, and strangers take those.
    fn no_descriptors(&mut self, hit: usize) -> Result<(), String> {
        let before = self.nodes[hit].few_descriptors(3)?;
        let to = SocketAddr::new(self.ip(hit).into(), 5080);
        let strangers: Vec<TcpStream> =
            (0..20).filter_map(|_| TcpStream::connect_timeout(&to, s(1)).ok()).collect();
        self.during(s(3));
        self.nodes[hit].limit_descriptors(&before)?;
        drop(strangers);
        Ok(())
    }

    /// Viewers come until no more get in, and then they leave.
    fn no_memory(&mut self, hit: usize) -> Result<(), String> {
        let (from, to) = (self.ip(OTHER_ORIGIN), self.ip(hit));
        let mut crowd: Vec<Id> = Vec::new();
        if self.victim != Victim::Manager {
            for n in 0..80 {
                let stream = if self.victim == Victim::Origin { "hit/1935" } else { "hit/8554" };
                crowd.push(self.live.play(Protocol::Rtmp, from, to, stream, Some(AGAIN)));
                if n % 8 == 7 {
                    self.during(Duration::from_millis(200));
                }
            }
            self.during(s(2));
            let refused = |line: &str| line.contains("no_memory");
            if self.nodes[hit].log.count(Default::default(), refused) == 0 {
                return Err("its memory was not taken by 80 viewers".to_owned());
            }
        } else {
            self.during(s(2));
        }
        for id in crowd {
            self.live.remove(id);
        }
        Ok(())
    }
}
