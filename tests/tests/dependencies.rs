//! What the project builds on: where it comes from, under which licences, and not below the versions that mended something.
//!
//! Read from `cargo metadata`, without a network. Known advisories are looked up by `tests/run advisories`.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences that may be linked into a program under the project's own, as SPDX names them.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Where crates come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Lowest version of a crate, and the release line that it must be of.
const FLOORS: [(&str, [u64; 3], u64); 4] = [
    // Faults of the sandbox are mended in patches of this line.
    ("wasmtime", [48, 0, 4], 48),
    ("wasmtime-wasi", [48, 0, 4], 48),
    ("wasmtime-wasi-http", [48, 0, 4], 48),
    // Before it a peer could make a connection allocate without bound.
    ("h2", [0, 4, 4], 0),
];

/// What `cargo metadata` says of the workspace at this manifest.
fn metadata(manifest: &str) -> Value {
    let manifest = format!("{}/../{manifest}", env!("CARGO_MANIFEST_DIR"));
    let arguments = ["metadata", "--format-version", "1", "--locked", "--manifest-path", &manifest];
    let told = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    serde_json::from_slice(&told.stdout).unwrap()
}

fn packages(metadata: &Value) -> impl Iterator<Item = (&str, &Value)> {
    metadata["packages"].as_array().unwrap().iter().map(|package| (package["name"].as_str().unwrap(), package))
}

/// Whether what an SPDX expression asks for can be had with these licences. (`/` is an old way to write `OR`.)
fn is_usable(licence: &str) -> bool {
    let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut left = words.as_slice();
    let usable = any_of(&mut left);
    left.is_empty() && usable
}

/// `a OR b OR …`
fn any_of(words: &mut &[&str]) -> bool {
    let mut usable = all_of(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        usable |= all_of(words);
    }
    usable
}

/// `a AND b AND …`
fn all_of(words: &mut &[&str]) -> bool {
    let mut usable = one_of(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        usable &= one_of(words);
    }
    usable
}

/// A licence, perhaps with an exception, or an expression in parentheses.
fn one_of(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let usable = any_of(words);
            let [")", rest @ ..] = *words else { return false };
            *words = rest;
            usable
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            LICENCES.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, rest @ ..] => {
            *words = rest;
            LICENCES.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn a_licence_is_usable_if_all_that_it_asks_for_is() {
    for usable in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0", "MPL-2.0 OR MIT OR ISC"]
    {
        assert!(is_usable(usable), "{usable}");
    }
    for not in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND GPL-3.0",
        "Apache-2.0 WITH other",
        "(MIT",
        "",
        "none said",
    ] {
        assert!(!is_usable(not), "{not}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_and_may_be_linked() {
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        let metadata = metadata(manifest);
        let mut wrong = BTreeMap::new();
        for (name, package) in packages(&metadata) {
            let Some(source) = package["source"].as_str() else { continue };
            let licence = package["license"].as_str().unwrap_or("none said");
            if source != REGISTRY {
                wrong.insert(name, source);
            } else if !is_usable(licence) {
                wrong.insert(name, licence);
            }
        }
        assert!(wrong.is_empty(), "{manifest}: {wrong:#?}");
    }
}

#[test]
fn no_crate_is_older_than_what_mended_it() {
    let metadata = metadata("Cargo.toml");
    let mut seen = BTreeSet::new();
    for (name, package) in packages(&metadata) {
        let Some((_, floor, line)) = FLOORS.iter().find(|(floored, ..)| *floored == name) else { continue };
        let version = package["version"].as_str().unwrap();
        let parts: Vec<u64> = version.split(['.', '-', '+']).take(3).map(|part| part.parse().unwrap()).collect();
        assert!(parts[0] == *line && parts.as_slice() >= floor.as_slice(), "{name} {version} is below {floor:?}");
        seen.insert(name);
    }
    assert_eq!(seen.len(), FLOORS.len(), "{seen:?}: a floor of what is not there holds nothing");
}

#[test]
fn the_engine_has_no_asynchronous_components() {
    let metadata = metadata("Cargo.toml");
    let engine =
        packages(&metadata).find(|(name, _)| *name == "wasmtime").unwrap().1["id"].as_str().unwrap().to_owned();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["id"].as_str() == Some(&engine)).unwrap();
    let features: Vec<&str> = node["features"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(features.contains(&"component-model") && !features.contains(&"component-model-async"), "{features:?}");
}
