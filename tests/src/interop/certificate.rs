//! Certificates of servers at an address, made by openssl.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate that signs itself, in files of a directory.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate alone, for those who are to trust it.
    pub alone: PathBuf,
    /// With its private key after it.
    pub whole: PathBuf,
}

impl Certificate {
    /// Makes one for an address.
    ///
    /// # Panics
    /// Without openssl, or room for the files.
    pub fn of(ip: Ipv4Addr, dir: &Path) -> Certificate {
        std::fs::create_dir_all(dir).expect("there is room for files");
        let (whole, alone) = (dir.join("cert.pem"), dir.join("cert.pem.crt"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
            ])
            .args(["-subj", "/CN=far", "-addext", &format!("subjectAltName=IP:{ip}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&whole)
            .arg("-out")
            .arg(&alone)
            .output()
            .expect("openssl is not installed; run ./check");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let certificate = std::fs::read_to_string(&alone).expect("it was written");
        let key = std::fs::read_to_string(&whole).expect("it was written");
        std::fs::write(&whole, format!("{certificate}{key}")).expect("there is room");
        Certificate { alone, whole }
    }
}
