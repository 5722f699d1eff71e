//! Finds the commands that a text quotes.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files below a folder with one of these endings, those that git ignores left out.
pub(crate) fn files(below: &Path, endings: &[&str]) -> Vec<PathBuf> {
    const IGNORED: [&str; 6] = ["target", "node_modules", ".venv", ".git", ".pytest_cache", "deps"];
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap_or_else(|error| panic!("{}: {error}", below.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !IGNORED.iter().any(|ignored| path.ends_with(ignored)) {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What users read: a name to tell it by, and the text.
pub(crate) fn documents() -> Vec<(String, String)> {
    let root = root();
    let mut paths = files(&root, &[".md", ".wit"]);
    paths.extend(["host/gateway/openapi.json", "host/gateway/src/http/root.html"].map(|path| root.join(path)));
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    paths.iter().map(|path| (path.strip_prefix(&root).unwrap_or(path).display().to_string(), text(path))).collect()
}

/// Lines that stand for themselves in a document: in fences, or indented by four. Lines that a backslash continues are one.
pub(crate) fn code_lines(text: &str) -> Vec<String> {
    let (mut lines, mut fenced, mut before) = (Vec::new(), false, String::new());
    for line in text.lines() {
        let line = line.strip_prefix("///").unwrap_or(line);
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            before.clear();
            continue;
        }
        match line.strip_suffix('\\') {
            Some(first) => before.push_str(first),
            None => lines.push(std::mem::take(&mut before) + line),
        }
    }
    lines
}

/// What stands between single backticks.
pub(crate) fn code_spans(text: &str) -> Vec<String> {
    let (mut spans, mut fenced) = (Vec::new(), false);
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.push_str(line.trim_start().trim_start_matches("//!").trim_start_matches("///"));
            prose.push('\n');
        }
    }
    // A span does not go beyond its paragraph: a lone backtick spoils no more than that.
    for paragraph in prose.split("\n\n") {
        let span = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        spans.extend(paragraph.split('`').skip(1).step_by(2).map(span));
    }
    spans
}

/// The words of a command as a shell reads them, up to what is not the command's own: a pipe, a redirection, a comment.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(letters.next()),
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '<' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn words_are_split_as_a_shell_does() {
    let line = r#"vouch a --b 'c d' "e f" g\ h '' # comment"#;
    assert_eq!(words(line), ["vouch", "a", "--b", "c d", "e f", "g h", ""]);
    assert_eq!(words("vouch log dump --json | jq .damage"), ["vouch", "log", "dump", "--json"]);
}

#[test]
fn code_is_found_in_fences_indented_and_in_backticks() {
    let text = "See `a b`\nand `c\nd`.\n\n```sh\nvouch x \\\n  y\n```\n\n    vouch z\n";
    assert_eq!(code_lines(text), ["vouch x   y", "    vouch z"]);
    assert_eq!(code_spans(text), ["a b", "c d"]);
}
