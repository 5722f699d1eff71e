//! What documents name is there: files and places in them, tests, parts of the code, paths of the API, names of errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Every file of the repository, with its path from the top.
fn files() -> anyhow::Result<Vec<(String, PathBuf)>> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        const IGNORED: [&str; 5] = ["target", "node_modules", ".venv", ".git", ".pytest_cache"];
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if !path.is_dir() {
                found.push(path);
            } else if !IGNORED.iter().any(|ignored| path.ends_with(ignored)) {
                walk(&path, found)?;
            }
        }
        Ok(())
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, &mut found)?;
    found.sort();
    let named = |path: PathBuf| Ok((path.strip_prefix(&root)?.to_string_lossy().into_owned(), path));
    found.into_iter().map(named).collect()
}

/// The documents, by their path from the top.
fn documents() -> anyhow::Result<Vec<(String, String)>> {
    let written = files()?.into_iter().filter(|(name, _)| name.ends_with(".md"));
    written.map(|(name, path)| Ok((name, fs::read_to_string(path)?))).collect()
}

/// The texts of all sources with one of these endings.
fn sources(endings: &[&str]) -> anyhow::Result<String> {
    let wanted = files()?.into_iter().filter(|(name, _)| endings.iter().any(|ending| name.ends_with(ending)));
    let texts: Result<Vec<String>, _> = wanted.map(|(_, path)| fs::read_to_string(path)).collect();
    Ok(texts?.join("\n"))
}

/// What stands between backticks, code blocks left out.
fn code_spans(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let paragraphs = prose.iter().flat_map(|prose| prose.split("\n\n")).flat_map(|paragraph| {
        // Each row of a table stands for itself.
        if paragraph.trim_start().starts_with('|') { paragraph.lines().collect::<Vec<_>>() } else { vec![paragraph] }
    });
    paragraphs.flat_map(|text| text.split('`').skip(1).step_by(2)).map(|span| span.replace('\n', " ")).collect()
}

/// A heading as the address of its place.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() -> anyhow::Result<()> {
    let mut checked = 0;
    for (name, text) in documents()? {
        let folder = root().join(&name).parent().context("a file lies in a folder")?.to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&name) } else { folder.join(file) };
            assert!(target.exists(), "{name}: nothing is at {link}");
            if !place.is_empty() {
                let there = fs::read_to_string(&target)?;
                let mut headings = there.lines().filter_map(|line| line.strip_prefix('#'));
                let found = headings.any(|heading| anchor(heading.trim_start_matches('#')) == place);
                assert!(found, "{name}: no heading of {file} is called {place}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 30, "{checked}");
    Ok(())
}

#[test]
fn every_test_that_the_table_of_bounds_names_exists() -> anyhow::Result<()> {
    let sources = sources(&[".rs", ".py"])?;
    let named_in_sources = |keyword: &'static str| {
        let names = sources.split(keyword).skip(1);
        names.map(|rest| {
            rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
        })
    };
    let known: BTreeSet<&str> = named_in_sources("fn ").chain(named_in_sources("def ")).collect();
    let bounds = fs::read_to_string(root().join("host/docs/bounds.md"))?;
    let mut checked = 0;
    for span in code_spans(&bounds) {
        // In one span there may be the file before it, and parts that are left out.
        let name = span.rsplit([' ', ':']).next().unwrap_or_default().trim_end_matches("...").trim_end_matches('…');
        let parts: Vec<&str> = name.split(['…', '.']).filter(|part| !part.is_empty()).collect();
        let is_name = |part: &&str| {
            part.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        };
        let is_test = parts.iter().all(is_name) && name.matches('_').count() >= 4;
        if !is_test {
            continue;
        }
        let fits = |test: &&&str| {
            parts.iter().try_fold(**test, |rest, part| rest.split_once(part).map(|(_, rest)| rest)).is_some()
        };
        let begins = |test: &&&str| name.starts_with(['…', '.']) || test.starts_with(parts[0]);
        assert!(known.iter().filter(fits).any(|test| begins(&test)), "bounds.md names {span}, which is no test");
        checked += 1;
    }
    assert!(checked >= 100, "{checked}");
    Ok(())
}

#[test]
fn every_file_and_part_of_the_code_that_a_document_names_exists() -> anyhow::Result<()> {
    const ENDINGS: [&str; 8] = [".rs", ".md", ".wit", ".py", ".proto", ".js", ".go", ".toml"];
    let all = files()?;
    let is_path = |span: &str| {
        let letters = span.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/".contains(letter));
        letters && span.contains('/') && ENDINGS.iter().any(|ending| span.ends_with(ending))
    };
    let (mut paths, mut parts) = (0, 0);
    for (name, text) in documents()? {
        for span in code_spans(&text) {
            if is_path(&span) && !span.starts_with('/') {
                let wanted = span.trim_start_matches("../").trim_start_matches("./");
                let there = all.iter().any(|(path, _)| path == wanted || path.ends_with(&format!("/{wanted}")));
                // Without the folder that all sources lie in.
                let (first, rest) = wanted.split_once('/').context("a path has a slash")?;
                let in_sources = format!("/{first}/src/{rest}");
                assert!(
                    there || all.iter().any(|(path, _)| path.ends_with(&in_sources)),
                    "{name}: no file is at {span}"
                );
                paths += 1;
            }
            if name == "host/docs/house.md" && span.contains("::") && !span.contains(' ') {
                assert!(exists(&span)?, "{name}: {span} is no part of the code");
                parts += 1;
            }
        }
    }
    assert!(paths >= 10 && parts >= 30, "{paths} {parts}");
    Ok(())
}

/// Whether `crate::module::item` exists, with or without the crate: each module as a file or a folder, what is no module by
/// its name in the last one.
fn exists(path: &str) -> anyhow::Result<bool> {
    let crates: Vec<PathBuf> =
        fs::read_dir(root().join("host"))?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    let parts: Vec<&str> = path.split("::").collect();
    let within = |folder: &PathBuf, parts: &[&str]| -> anyhow::Result<bool> {
        let mut at = folder.join("src");
        let mut parts = parts.iter().peekable();
        while let Some(part) = parts.next_if(|part| at.join(part).is_dir() || at.join(format!("{part}.rs")).is_file()) {
            at = at.join(part);
        }
        let items: Vec<&&str> = parts.collect();
        let mut sources = vec![at.with_extension("rs")];
        if at.is_dir() {
            sources.extend(fs::read_dir(&at)?.filter_map(|entry| entry.ok().map(|entry| entry.path())));
        }
        let text: String = sources.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let words: BTreeSet<&str> = text.split(|letter| !is_part(letter)).collect();
        Ok(items.iter().all(|item| words.contains(**item)))
    };
    if let Some(folder) = crates.iter().find(|folder| folder.ends_with(parts[0])) {
        return within(folder, &parts[1..]);
    }
    for folder in &crates {
        if within(folder, &parts)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn every_path_of_the_api_and_name_of_an_error_in_a_document_exists() -> anyhow::Result<()> {
    let api: serde_json::Value = serde_json::from_str(&fs::read_to_string(root().join("host/gateway/openapi.json"))?)?;
    let paths = api["paths"].as_object().context("the description lists paths")?;
    let shape = |path: &str| -> Vec<String> {
        let parts = path.split('/').skip(1);
        parts.map(|part| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() }).collect()
    };
    let known: Vec<(Vec<String>, &serde_json::Value)> =
        paths.iter().map(|(path, methods)| (shape(path), methods)).collect();
    let fits = |wanted: &[String], is: &[String]| {
        wanted.len() == is.len() && wanted.iter().zip(is).all(|(want, is)| want == "{}" || is == "{}" || want == is)
    };
    let errors = sources(&[".rs"])?;
    let (mut checked, mut named) = (0, 0);
    for (name, text) in documents()?.into_iter().filter(|(name, _)| !name.starts_with("examples")) {
        for span in code_spans(&text) {
            let (method, path) = match span.split_once(' ') {
                Some((method, path)) if method.chars().all(|letter| letter.is_ascii_uppercase()) => {
                    (Some(method), path)
                }
                _ => (None, span.as_str()),
            };
            let path = path.split(['?', ' ']).next().unwrap_or_default();
            if ["/v1", "/healthz", "/readyz", "/metrics", "/openapi.json"].iter().any(|begin| path.starts_with(begin)) {
                let route = known.iter().find(|(wanted, _)| fits(wanted, &shape(path)));
                let (_, methods) = route.with_context(|| format!("{name}: {span} is no path of the API"))?;
                let method = method.unwrap_or("GET").to_lowercase();
                assert!(methods.get(&method).is_some() || method == "get", "{name}: {span}");
                checked += 1;
            }
        }
        for rest in text.split("urn:vouch:error:").skip(1) {
            let error: String =
                rest.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
            assert!(errors.contains(&format!("\"urn:vouch:error:{error}\"")), "{name}: no error is called {error}");
            named += 1;
        }
    }
    assert!(checked >= 8 && named >= 2, "{checked} {named}");
    Ok(())
}

/// The description of the HTTP interface has those that hold, which its own tests see to.
#[test]
fn the_limits_of_a_binding_are_all_listed_for_plugin_authors_with_their_defaults() -> anyhow::Result<()> {
    let readme = fs::read_to_string(root().join("plugins/README.md"))?;
    let described = fs::read_to_string(root().join("host/gateway/openapi.json"))?;
    let described: serde_json::Value = serde_json::from_str(&described)?;
    let limits = &described["components"]["schemas"]["Binding"]["properties"]["limits"]["properties"];
    let limits = limits.as_object().context("a binding has limits")?;
    assert!(limits.len() >= 11, "{limits:?}");
    for (name, limit) in limits {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}` (")));
        let row = row.with_context(|| format!("plugins/README.md does not list the limit `{name}`"))?;
        let default = &limit["default"];
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        assert!(default == "null" || row.contains(&format!("| {default} |")), "{default} is the default: {row}");
    }
    Ok(())
}
