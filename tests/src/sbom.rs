//! What is in the binary `headwater`, as a bill of materials (CycloneDX 1.6, JSON): every crate with its version, licence
//! and the hash of its source, and which needs which. From cargo's own files, and the same for the same `Cargo.lock`.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The package that becomes the binary.
const BINARY: &str = "headwater";

/// Name and version.
type Crate = (String, String);

/// The bill of the repository at `root` for a target triple.
///
/// # Errors
/// What cargo says, or what of it cannot be understood.
pub fn of(root: &Path, target: &str) -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |args: &[&str]| {
        let ran = Command::new(&cargo).current_dir(root).args(args).args(["--locked", "--offline"]).output();
        let ran = ran.map_err(|e| format!("cargo does not run: {e}"))?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        if ran.status.success() { Ok(ran.stdout) } else { Err(format!("cargo {}: {said}", args.join(" "))) }
    };
    let metadata = run(&["metadata", "--format-version", "1", "--filter-platform", target])?;
    // The features that the binary has, which are fewer than those that the tests ask for.
    let tree =
        ["tree", "-p", BINARY, "-e", "normal,build", "--prefix", "none", "-f", "{p}", "--target", target];
    let tree = String::from_utf8_lossy(&run(&tree)?).into_owned();
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).map_err(|e| format!("Cargo.lock: {e}"))?;
    make(&serde_json::from_slice(&metadata).map_err(|e| format!("cargo metadata: {e}"))?, &tree, &lock)
}

fn make(metadata: &Value, tree: &str, lock: &str) -> Result<Value, String> {
    let wanted: BTreeSet<Crate> = tree
        .lines()
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned()))
        .collect();
    let lock: toml::Value = toml::from_str(lock).map_err(|e| format!("Cargo.lock: {e}"))?;
    let text = |v: &toml::Value, key: &str| v.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let hashes: BTreeMap<Crate, String> = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|p| Some(((text(p, "name")?, text(p, "version")?), text(p, "checksum")?)))
        .collect();
    let packages: BTreeMap<&str, Crate> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| {
            let (name, version) = (p["name"].as_str()?.to_owned(), p["version"].as_str()?.to_owned());
            Some((p["id"].as_str()?, (name, version)))
        })
        .collect();
    let by_crate: BTreeMap<Crate, &Value> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| Some((packages.get(p["id"].as_str()?)?.clone(), p)))
        .collect();
    let (mut components, mut main) = (Vec::new(), None);
    for of in &wanted {
        let package = by_crate.get(of).ok_or(format!("cargo metadata does not name {} {}", of.0, of.1))?;
        let component = component(of, package, hashes.get(of));
        if of.0 == BINARY { main = Some(component) } else { components.push(component) }
    }
    let mut needs: BTreeMap<Crate, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().into_iter().flatten() {
        let Some(of) = node["id"].as_str().and_then(|id| packages.get(id)).filter(|of| wanted.contains(of))
        else {
            continue;
        };
        let entry = needs.entry(of.clone()).or_default();
        for dep in node["deps"].as_array().into_iter().flatten() {
            let kinds = dep["dep_kinds"].as_array();
            let goes_in = kinds.is_none_or(|k| k.iter().any(|k| k["kind"].as_str() != Some("dev")));
            if let Some(on) = dep["pkg"].as_str().and_then(|id| packages.get(id))
                && goes_in
                && wanted.contains(on)
            {
                entry.insert(reference(on));
            }
        }
    }
    let needs: Vec<Value> =
        needs.iter().map(|(of, on)| json!({"ref": reference(of), "dependsOn": on})).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main.ok_or(format!("the tree does not name {BINARY}"))?},
        "components": components,
        "dependencies": needs,
    }))
}

/// The package's name in other bills too (purl).
fn reference((name, version): &Crate) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(of: &Crate, package: &Value, hash: Option<&String>) -> Value {
    let kind = if of.0 == BINARY { "application" } else { "library" };
    let mut it = json!({
        "type": kind, "bom-ref": reference(of), "name": of.0, "version": of.1, "purl": reference(of),
    });
    if let Some(licence) = package["license"].as_str() {
        // The old spelling of OR.
        it["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(hash) = hash {
        it["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
    }
    if let Some(url) = package["repository"].as_str() {
        it["externalReferences"] = json!([{"type": "vcs", "url": url}]);
    }
    it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_what_goes_in_and_nothing_else() {
        let package = |name: &str, license: &str| {
            json!({"name": name, "version": "1.0.0", "id": format!("id-{name}"), "license": license,
                   "repository": format!("https://example.com/{name}")})
        };
        let dep =
            |name: &str, kind: Value| json!({"pkg": format!("id-{name}"), "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("headwater", "MIT OR Apache-2.0"), package("a", "MIT/Apache-2.0"), package("t", "MIT")],
            "resolve": {"nodes": [
                {"id": "id-headwater", "deps": [dep("a", Value::Null), dep("t", "dev".into())]},
                {"id": "id-a", "deps": []},
                {"id": "id-t", "deps": [dep("a", Value::Null)]},
            ]},
        });
        let tree = "headwater v1.0.0 (/x/cli)\na v1.0.0\na v1.0.0 (*)\n";
        let lock = "[[package]]\nname = 'a'\nversion = '1.0.0'\nchecksum = 'abc'\n";
        let bill = make(&metadata, tree, lock).unwrap();
        let a = json!({
            "type": "library", "bom-ref": "pkg:cargo/a@1.0.0", "name": "a", "version": "1.0.0",
            "purl": "pkg:cargo/a@1.0.0", "licenses": [{"expression": "MIT OR Apache-2.0"}],
            "hashes": [{"alg": "SHA-256", "content": "abc"}],
            "externalReferences": [{"type": "vcs", "url": "https://example.com/a"}],
        });
        assert_eq!(bill["components"], json!([a]));
        assert_eq!(bill["metadata"]["component"]["bom-ref"], "pkg:cargo/headwater@1.0.0");
        let needs = json!([
            {"ref": "pkg:cargo/a@1.0.0", "dependsOn": []},
            {"ref": "pkg:cargo/headwater@1.0.0", "dependsOn": ["pkg:cargo/a@1.0.0"]},
        ]);
        assert_eq!(bill["dependencies"], needs);
        assert!(make(&metadata, "headwater v1.0.0\nb v2.0.0\n", lock).unwrap_err().contains("b 2.0.0"));
        assert!(make(&metadata, "a v1.0.0\n", lock).unwrap_err().contains("headwater"));
        assert!(make(&metadata, tree, "[").is_err());
    }
}
