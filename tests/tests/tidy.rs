//! The repository, held to the rules that lints cannot see (`headwater_tests::tidy` has the rules and shows that
//! each can fail).
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use headwater_tests::sbom;
use headwater_tests::tidy::{
    File, Problem, files, host_triple, imports, licence, repository, root, source, text,
};
use std::process::Command;

fn hold(problems: &[Problem]) {
    let all: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert!(all.is_empty(), "{} problems:\n{}", all.len(), all.join("\n"));
}

fn hold_files(wanted: impl Fn(&str) -> bool, rule: fn(&str, &str) -> Vec<Problem>) {
    let files: Vec<File> = files(&root()).into_iter().filter(|f| wanted(&f.path)).collect();
    assert!(!files.is_empty(), "the rule looks at nothing");
    hold(&files.iter().flat_map(|f| rule(&f.path, &f.text)).collect::<Vec<_>>());
}

fn rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Sources of the core that are part of the product.
fn core(rule: fn(&str, &str) -> Vec<Problem>) {
    let tests = text::test_only(&files(&root()));
    hold_files(|p| rust(p) && p.starts_with("proto-core/src/") && !tests.contains(p), rule);
}

#[test]
fn files_are_short() {
    hold_files(rust, source::length);
}

#[test]
fn nothing_is_unfinished() {
    hold_files(rust, source::unfinished);
}

#[test]
fn nothing_sleeps_and_no_test_is_ignored() {
    hold_files(rust, source::sleeps_and_ignored);
}

#[test]
fn the_core_is_pure() {
    core(source::purity);
}

#[test]
fn imports_of_the_core_point_one_way() {
    core(imports::one_way);
}

#[test]
fn parsers_deny_what_panics() {
    const ROOTS: [&str; 2] = ["proto-core/src/wire/mod.rs", "proto-core/src/recording/mod.rs"];
    hold_files(|p| ROOTS.contains(&p), source::denies_panics);
    let tests = text::test_only(&files(&root()));
    let below = |p: &str| ROOTS.iter().any(|r| p.starts_with(r.trim_end_matches("mod.rs")));
    hold_files(|p| below(p) && rust(p) && !tests.contains(p), source::allows_no_panics);
}

#[test]
fn unsafe_stands_in_its_places_alone() {
    hold_files(rust, source::unsafe_code);
}

#[test]
fn every_unsafe_has_its_proof() {
    hold_files(rust, source::unsafe_proofs);
}

#[test]
fn the_bill_of_materials_names_all_that_is_in_the_binary() {
    let bill = sbom::of(&root(), &host_triple().expect("rustc names its host")).expect("there is a bill");
    let all = bill["components"].as_array().expect("components");
    for ours in ["proto-core", "runtime-mio"] {
        assert!(all.iter().any(|c| c["name"] == ours), "{ours} is not in it");
    }
    for tests in ["headwater-tests", "proptest", "rml_rtmp", "tokio"] {
        assert!(!all.iter().any(|c| c["name"] == tests), "{tests} is in it");
    }
    // What is not ours is told by the hash of its source, and all is under some licence.
    let ours = |c: &&serde_json::Value| c["hashes"].is_null();
    let path: Vec<_> = all.iter().filter(ours).filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(path, ["audio-bridge", "determinism", "proto-core", "runtime-mio", "video-bridge"]);
    assert!(all.iter().all(|c| c["licenses"].is_array()));
}

#[test]
fn crate_roots_have_words_and_bans() {
    let test_root = |p: &str| p.strip_prefix("tests/tests/").is_some_and(|p| !p.contains('/'));
    let root = |p: &str| p.ends_with("/src/lib.rs") || p.ends_with("/src/main.rs") || test_root(p);
    hold_files(|p| rust(p) && root(p), source::crate_root);
}

#[test]
fn no_file_makes_rustup_download_a_toolchain() {
    hold_files(|_| true, repository::toolchain_file);
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    hold_files(|_| true, repository::places);
}

#[test]
fn the_map_names_every_room() {
    hold(&repository::map(&files(&root())));
}

#[test]
fn every_codec_has_a_fuzz_target_and_every_target_is_built() {
    hold(&repository::fuzz_targets(&files(&root())));
}

#[test]
fn deny_toml_allows_no_other_licence() {
    hold_files(|p| p == "deny.toml", licence::no_other_list);
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |more: &[&str]| {
        let mut command = Command::new(&cargo);
        command
            .current_dir(root())
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(more);
        command.output().expect("cargo runs")
    };
    let mut got = run(&[]);
    if !got.status.success() {
        // Packages for other systems may never have been fetched here; those of this one have been.
        let host = host_triple().expect("rustc names its host");
        got = run(&["--filter-platform", &host]);
    }
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let metadata = serde_json::from_slice(&got.stdout).expect("cargo metadata is JSON");
    hold(&licence::dependencies(&metadata));
}
