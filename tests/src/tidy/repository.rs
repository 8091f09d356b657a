//! Rules for the repository as a whole.

use super::{File, Problem};

/// No file makes rustup download a toolchain.
pub fn toolchain_file(path: &str, _text: &str) -> Vec<Problem> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let bad = matches!(name, "rust-toolchain" | "rust-toolchain.toml");
    let say =
        || Problem::new(path, 0, "a toolchain file makes rustup download one; rust-version says enough");
    bad.then(say).into_iter().collect()
}

/// Nothing that names one machine, or a host that packages come from: both differ elsewhere.
pub fn places(path: &str, text: &str) -> Vec<Problem> {
    if matches!(path, "Cargo.lock" | "fuzz/Cargo.lock" | "deny.toml") {
        return Vec::new();
    }
    // Written in parts, so that this file does not break its own rule.
    let paths = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    let hosts =
        [concat!("crates", ".io"), concat!("npm", "js."), concat!("py", "pi."), concat!("jsde", "livr")];
    let mut problems = Vec::new();
    for (i, line) in text.lines().enumerate() {
        // An absolute path begins after something that cannot belong to a longer path or a URL.
        let absolute = |p: &&&str| {
            line.match_indices(**p).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')' | '*'))
            })
        };
        if let Some(p) = paths.iter().find(absolute) {
            problems.push(Problem::new(path, i + 1, format!("{p} is a place on one machine")));
        }
        if let Some(h) = hosts.iter().find(|h| line.contains(**h)) {
            problems.push(Problem::new(
                path,
                i + 1,
                format!("{h} is a package registry: leave hosts to cargo's settings"),
            ));
        }
    }
    problems
}

/// The map names every room of the core.
pub fn map(files: &[File]) -> Vec<Problem> {
    const MAP: &str = "ARCHITECTURE.md";
    let Some(map) = files.iter().find(|f| f.path == MAP) else {
        return vec![Problem::new(MAP, 0, "the map is missing")];
    };
    let in_core =
        |f: &File| f.path.strip_prefix("proto-core/src/")?.split_once('/').map(|(dir, _)| dir.to_owned());
    let mut rooms: Vec<String> = files.iter().filter_map(in_core).collect();
    rooms.dedup();
    rooms
        .iter()
        .filter(|room| !map.text.lines().any(|l| l.trim_start().starts_with(&format!("{room}/"))))
        .map(|room| Problem::new(MAP, 0, format!("proto-core/src/{room}/ is not on the map")))
        .collect()
}

/// Every fuzz target is built, and every codec has one.
pub fn fuzz_targets(files: &[File]) -> Vec<Problem> {
    const MANIFEST: &str = "fuzz/Cargo.toml";
    let Some(manifest) = files.iter().find(|f| f.path == MANIFEST) else {
        return vec![Problem::new(MANIFEST, 0, "the fuzz targets are missing")];
    };
    let bins: Vec<&str> =
        manifest.text.split("[[bin]]").skip(1).map(|b| b.split("\n[").next().unwrap_or(b)).collect();
    let targets: Vec<&File> = files
        .iter()
        .filter(|f| f.path.starts_with("fuzz/fuzz_targets/") && f.path.ends_with(".rs"))
        .collect();
    let mut problems = Vec::new();
    for target in &targets {
        let path = target.path.strip_prefix("fuzz/").unwrap_or(&target.path);
        if !bins.iter().any(|b| b.contains(&format!("path = \"{path}\""))) {
            problems.push(Problem::new(&target.path, 0, format!("no [[bin]] with this path in {MANIFEST}")));
        }
    }
    for codec in files.iter().filter_map(|f| codec(&f.path)) {
        let named = |t: &&&File| super::text::words(&super::text::code_only(&t.text), codec).next().is_some();
        if !targets.iter().any(|t| named(&t)) {
            problems.push(Problem::new(&format!("the codec {codec}"), 0, "no fuzz target uses this codec"));
        }
    }
    problems
}

fn codec(path: &str) -> Option<&str> {
    if path == "proto-core/src/recording/mod.rs" {
        return Some("recording");
    }
    let name = path.strip_prefix("proto-core/src/wire/")?;
    let name = name.strip_suffix("/mod.rs").or(name.strip_suffix(".rs"))?;
    (!name.contains('/') && name != "mod" && !name.ends_with("tests")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_toolchain_file_is_seen_anywhere() {
        assert_eq!(toolchain_file("fuzz/rust-toolchain.toml", "").len(), 1);
        assert_eq!(toolchain_file("rustfmt.toml", ""), []);
    }

    #[test]
    fn places_of_one_machine_and_registries_are_seen() {
        let bad = format!("cd /{}/me/x\nsee https://{}.io/x\n\"/{}/a\"", "home", "crates", "root");
        assert_eq!(places("README.md", &bad).iter().map(|p| p.line).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(places("Cargo.lock", &bad), []);
        assert_eq!(places("README.md", "net/home/x ${DIR}/root/ /usr/bin/env"), []);
    }

    #[test]
    fn a_room_that_is_not_on_the_map_is_seen() {
        let core = file("proto-core/src/hub/mod.rs", "");
        assert_eq!(map(&[file("ARCHITECTURE.md", "  hub/   streams"), core.clone()]), []);
        assert_eq!(map(&[file("ARCHITECTURE.md", "the hub"), core.clone()]).len(), 1);
        assert_eq!(map(&[core]).len(), 1);
    }

    #[test]
    fn a_fuzz_target_without_bin_and_a_codec_without_target_are_seen() {
        let codec = file("proto-core/src/wire/amf0.rs", "");
        let target = file("fuzz/fuzz_targets/amf.rs", "use proto_core::wire::amf0;");
        let whole = "[[bin]]\nname = \"amf\"\npath = \"fuzz_targets/amf.rs\"\n";
        assert_eq!(fuzz_targets(&[file("fuzz/Cargo.toml", whole), codec.clone(), target.clone()]), []);
        assert_eq!(fuzz_targets(&[file("fuzz/Cargo.toml", ""), codec.clone(), target.clone()]).len(), 1);
        assert_eq!(fuzz_targets(&[file("fuzz/Cargo.toml", whole), codec.clone()]).len(), 1);
        assert_eq!(fuzz_targets(&[codec, target]).len(), 1);
        let recording = file("proto-core/src/recording/mod.rs", "");
        assert_eq!(fuzz_targets(&[file("fuzz/Cargo.toml", whole), recording]).len(), 1);
    }
}
