//! A victim behind a network of its own: a namespace, and between it and all others `tests/tools/lossy.py`.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Two namespaces with a link that can be made worse. Both go with it.
#[derive(Debug)]
pub struct Network {
    /// Where everybody is but the victim; the tool itself runs there.
    pub left: String,
    /// Where the victim is.
    pub right: String,
    lossy: Option<Child>,
    /// Who made the namespaces takes them away.
    owner: bool,
}

/// The victim's address.
pub(super) const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The `n`-th address on the other side.
pub(super) const fn other(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, n)
}

/// Addresses on the other side.
pub(super) const OTHERS: u8 = 60;

fn ip(args: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(args).output().map_err(|e| format!("ip does not run: {e}"))?;
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if ran.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", args.join(" "))) }
}

impl Network {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// What is missing: mostly, root.
    pub fn make() -> Result<Network, String> {
        let names = ["l", "r"].map(|side| format!("hwf-{side}-{}", std::process::id()));
        let [left, right] = names;
        for name in [&left, &right] {
            ip(&["netns", "add", name])?;
        }
        let made = Network { left, right, lossy: None, owner: true };
        ip(&["-n", &made.left, "link", "set", "lo", "up"])?;
        for n in 1..=OTHERS {
            ip(&["-n", &made.left, "addr", "add", &format!("{}/32", other(n)), "dev", "lo"])?;
        }
        Ok(made)
    }

    /// One that another process made.
    pub fn named(left: &str, right: &str) -> Network {
        Network { left: left.to_owned(), right: right.to_owned(), lossy: None, owner: false }
    }

    /// Puts the link there, which is a good one at first.
    ///
    /// # Errors
    /// What the tool says.
    pub fn link(&mut self) -> Result<(), String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/lossy.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["--left", &self.left, "--right", &self.right, "--delay", "5", "--control"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("Python does not start: {e}"))?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
        self.lossy = Some(child);
        if line.trim() != "ready" {
            return Err(format!("the link is not there: {line}"));
        }
        ip(&["-n", &self.right, "route", "add", "10.77.1.0/24", "dev", "lossy"])
    }

    /// Changes the link, as `lossy.py --control` reads it.
    ///
    /// # Errors
    /// If the tool has gone.
    pub fn change(&mut self, line: &str) -> Result<(), String> {
        let pipe = self.lossy.as_mut().and_then(|c| c.stdin.as_mut()).ok_or("there is no link")?;
        writeln!(pipe, "{line}").map_err(|e| format!("the link has gone: {e}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(mut child) = self.lossy.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if self.owner {
            for name in [&self.left, &self.right] {
                drop(ip(&["netns", "delete", name]));
            }
        }
    }
}
