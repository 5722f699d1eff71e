//! The house rules that a machine can check: who may depend on whom, where `unsafe` may live, what is pure,
//! which files import each other, which names stand for one type, and the figures that it is held to.

mod arrows;
mod circles;
mod figures;
mod names;
mod said_once;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The arrows of the architecture: a crate, and the crates of this house that it may use. Nothing else, in no kind of
/// dependency: a development dependency that points up would let a test reach around the boundary it tests.
const ARROWS: [(&str, &[&str]); 17] = [
    ("vouch-files", &[]),
    ("vouch-cluster", &[]),
    // Files for one thing: the keys of certificates that it issues, which only their owner may read.
    ("vouch-transport", &["vouch-files"]),
    ("vouch-commitlog", &[]),
    ("vouch-sql", &[]),
    ("vouch-broker", &["vouch-cluster"]),
    ("vouch-plugin", &["vouch-files", "vouch-sql"]),
    ("vouch-registry", &["vouch-files"]),
    ("vouch-secrets", &["vouch-files"]),
    // Consensus for what a replica must never forget: its vote, and who it is.
    (
        "vouch-storage",
        &["vouch-commitlog", "vouch-cluster", "vouch-consensus", "vouch-broker", "vouch-registry", "vouch-files"],
    ),
    ("vouch-protocol", &["vouch-broker"]),
    ("vouch-consensus", &["vouch-cluster"]),
    ("vouch-leader", &["vouch-broker"]),
    // Registry for one thing: a component's digest as people read it, in a line of the node's log.
    (
        "vouch-shard",
        &[
            "vouch-commitlog",
            "vouch-cluster",
            "vouch-broker",
            "vouch-consensus",
            "vouch-registry",
            "vouch-leader",
            "vouch-storage",
        ],
    ),
    // Protocol for one function: a component is handed the decoded body, which a gzipped one must become first.
    (
        "vouch-node",
        &[
            "vouch-broker",
            "vouch-cluster",
            "vouch-commitlog",
            "vouch-consensus",
            "vouch-files",
            "vouch-leader",
            "vouch-plugin",
            "vouch-protocol",
            "vouch-registry",
            "vouch-secrets",
            "vouch-shard",
            "vouch-storage",
            "vouch-transport",
        ],
    ),
    ("vouch-gateway", &["vouch-node", "vouch-protocol", "vouch-registry", "vouch-broker", "vouch-files"]),
    // The log itself for one command: `bench log` measures it against the raw device.
    (
        "vouch-cli",
        &[
            "vouch-gateway",
            "vouch-node",
            "vouch-storage",
            "vouch-protocol",
            "vouch-broker",
            "vouch-commitlog",
            "vouch-files",
        ],
    ),
];

/// Everything that may lie at the top; what git ignores may be there besides.
const TOP_LEVEL: [&str; 15] = [
    ".ci",
    ".clippy.toml",
    ".git",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "examples",
    "host",
    "plugins",
    "tests",
    "wit",
];
const IGNORED_TOP_LEVEL: [&str; 3] = [".pytest_cache", "target", "vouch-data"];

/// Crates that must be in the lock file, with the version they must start with.
const CORE_SET: [(&str, &str); 8] = [
    ("wasmtime", "48."),
    ("tokio", "1."),
    ("hyper", "1."),
    ("serde", "1."),
    ("bytes", "1."),
    ("memmap2", "0."),
    ("tracing", "0."),
    ("anyhow", "1."),
];

/// Where `unsafe` may live: mapped files all over the log, and one file that takes compiled code back from the cache,
/// for which the engine offers no safe way. Every other crate forbids it.
const UNSAFE_CRATE: &str = "vouch-commitlog";
const UNSAFE_FILE: (&str, &str) = ("vouch-plugin", "host/plugin/src/cache.rs");

/// Features with which a crate lends out what its own tests use.
const FEATURES_OF_TESTS: [(&str, &str); 6] = [
    ("vouch-broker", "testing"),
    ("vouch-commitlog", "simulated-disk"),
    ("vouch-consensus", "testing"),
    ("vouch-leader", "testing"),
    ("vouch-shard", "testing"),
    ("vouch-storage", "testing"),
];

/// Runs whole groups of replicas in tests; nothing that is shipped has it.
const SIMULATOR: &str = "vouch-simulation";

/// No source file may be longer.
const MOST_LINES: usize = 600;

/// Where nothing opens a file, a socket or a thread, asks a clock or throws dice.
const PURE: [&str; 4] = ["host/broker/src", "host/consensus/src", "host/leader/src", "host/shard/src/core"];

/// What a crate without I/O and clock has no business to name.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "tokio::",
    "rand::",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The file that a crate of the host begins with.
struct Root {
    package: String,
    /// Other crates may use it.
    is_library: bool,
    path: PathBuf,
}

fn roots() -> anyhow::Result<Vec<Root>> {
    let metadata = metadata()?;
    let mut roots = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        let name = package["name"].as_str().context("a package has a name")?;
        for target in package["targets"].as_array().context("a package has targets")? {
            let kinds = target["kind"].as_array().context("a target has kinds")?;
            let is = |kind: &str| kinds.iter().any(|other| other == kind);
            if name != "vouch-tests" && name != SIMULATOR && (is("lib") || is("bin")) {
                let path = target["src_path"].as_str().context("src_path")?.into();
                roots.push(Root { package: name.to_owned(), is_library: is("lib"), path });
            }
        }
    }
    Ok(roots)
}

/// Every crate of the workspace with the crates of the workspace it depends on.
fn dependencies() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().context("a package has a name")?.to_owned();
            let uses = package["dependencies"].as_array().context("a package has dependencies")?;
            let ours = uses
                .iter()
                .filter_map(|used| used["name"].as_str())
                .filter(|used| used.starts_with("vouch-") && *used != name)
                .map(str::to_owned)
                .collect();
            Ok((name, ours))
        })
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") && !path.ends_with(".venv") {
                rust_files(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn crates_depend_on_each_other_one_way_as_the_architecture_says() -> anyhow::Result<()> {
    let dependencies = dependencies()?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for (name, uses) in &dependencies {
        if name == "vouch-tests" {
            assert_eq!(uses.iter().collect::<Vec<_>>(), ["vouch-protocol"], "black-box suites reach into no crate");
            continue;
        }
        if name == SIMULATOR {
            continue;
        }
        assert!(!uses.contains(SIMULATOR), "{name} uses the simulator, which is for tests");
        let may = allowed.get(name.as_str()).with_context(|| format!("{name} is not in the table of arrows"))?;
        for used in uses {
            assert!(may.contains(&used.as_str()), "{name} uses {used}, which the architecture does not allow");
        }
    }
    for name in allowed.keys() {
        assert!(dependencies.contains_key(*name), "{name} of the table of arrows is not in the workspace");
    }
    Ok(())
}

/// The simulator drives what it likes, and nobody uses it. Development dependencies may ask for such features: cargo leaves those out of what `cargo build` makes of the binary.
#[test]
fn nothing_that_is_shipped_has_what_tests_borrow() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        for (_, feature) in FEATURES_OF_TESTS.iter().filter(|(owner, _)| *owner == name) {
            let features = package["features"].as_object().context("a package has features")?;
            assert!(features.contains_key(*feature), "{name} has no feature `{feature}`");
            for (other, turned_on) in features {
                let turned_on = turned_on.as_array().context("a feature is a list")?;
                assert!(turned_on.iter().all(|on| on != feature), "`{other}` of {name} turns `{feature}` on");
            }
        }
        if name == SIMULATOR {
            continue;
        }
        let uses = package["dependencies"].as_array().context("a package has dependencies")?;
        for used in uses.iter().filter(|used| used["kind"] != "dev") {
            let asked = used["features"].as_array().context("a dependency has features")?;
            for (owner, feature) in FEATURES_OF_TESTS {
                let borrows = used["name"] == owner && asked.iter().any(|asked| asked == feature);
                assert!(!borrows, "{name} uses {owner} with `{feature}`, which is for tests");
            }
        }
        // A feature of a crate above could ask for it, too.
        for turned_on in package["features"].as_object().into_iter().flat_map(|features| features.values()) {
            for (owner, feature) in FEATURES_OF_TESTS {
                let passes_on = |on: &serde_json::Value| {
                    on.as_str().is_some_and(|on| on.replace('?', "") == format!("{owner}/{feature}"))
                };
                assert!(
                    !turned_on.as_array().is_some_and(|on| on.iter().any(passes_on)),
                    "{name} passes `{feature}` on"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn unsafe_code_is_forbidden_outside_the_places_that_need_it() -> anyhow::Result<()> {
    let workspace: toml::Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for package in metadata()?["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?;
        let manifest: toml::Table =
            fs::read_to_string(package["manifest_path"].as_str().context("manifest_path")?)?.parse()?;
        let lints = manifest.get("lints").with_context(|| format!("{name} takes no lints"))?;
        match name {
            UNSAFE_CRATE => {}
            name if name == UNSAFE_FILE.0 => {
                assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("deny"), "{name} denies `unsafe` elsewhere");
            }
            name => assert_eq!(
                lints.get("workspace").and_then(toml::Value::as_bool),
                Some(true),
                "{name} must take the lints of the workspace, which forbid `unsafe`"
            ),
        }
    }
    let mut files = Vec::new();
    rust_files(&root().join("host/plugin"), &mut files)?;
    for file in files {
        let allowed = fs::read_to_string(&file)?.contains("unsafe_code");
        assert!(!allowed || file.ends_with(UNSAFE_FILE.1), "{} allows `unsafe`", file.display());
    }
    Ok(())
}

#[test]
fn every_unsafe_block_argues_its_safety() -> anyhow::Result<()> {
    let mut files = Vec::new();
    rust_files(&root().join("host"), &mut files)?;
    for file in files {
        let text = fs::read_to_string(&file)?;
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe {") || code.contains("unsafe impl") {
                let before = &lines[number.saturating_sub(8)..number];
                assert!(
                    before.iter().any(|line| line.contains("SAFETY:")),
                    "{}:{}: an unsafe block without a SAFETY argument above it",
                    file.display(),
                    number + 1
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_top_level_holds_only_what_belongs_there() -> anyhow::Result<()> {
    for entry in fs::read_dir(root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let known = TOP_LEVEL.contains(&name.as_str()) || IGNORED_TOP_LEVEL.contains(&name.as_str());
        assert!(known, "`{name}` does not belong at the top of the repository");
    }
    Ok(())
}

#[test]
fn the_core_set_is_in_the_lock_file() -> anyhow::Result<()> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let packages = lock["package"].as_array().context("Cargo.lock lists packages")?;
    for (name, version) in CORE_SET {
        assert!(
            packages.iter().any(|package| {
                package["name"].as_str() == Some(name)
                    && package["version"].as_str().is_some_and(|locked| locked.starts_with(version))
            }),
            "{name} {version}* is not in Cargo.lock"
        );
    }
    Ok(())
}

#[test]
fn state_machines_open_no_file_socket_clock_or_thread() -> anyhow::Result<()> {
    let mut files = Vec::new();
    for pure in PURE {
        let before = files.len();
        rust_files(&root().join(pure), &mut files)?;
        assert!(files.len() > before, "{pure} has no files");
    }
    for file in files {
        let is_tests = file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"));
        if file.components().any(|part| part.as_os_str() == "tests") || is_tests {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in shipped.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for impure in IMPURE {
                assert!(!code.contains(impure), "{}:{}: `{impure}` in a pure crate", file.display(), number + 1);
            }
        }
    }
    Ok(())
}

#[test]
fn source_files_stay_short_enough_to_read() -> anyhow::Result<()> {
    let mut files = Vec::new();
    rust_files(&root().join("host"), &mut files)?;
    rust_files(&root().join("tests"), &mut files)?;
    for file in files {
        let lines = fs::read_to_string(&file)?.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines, {MOST_LINES} are the most", file.display());
    }
    Ok(())
}
