//! Holds the page for operators, `host/docs/settings.md`, to the table.
//!
//! What stands there between the two marks is made of the table. `VOUCH_WRITE_DOCUMENTS=1 cargo test -p vouch-cli page`
//! writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::setting::{DefaultValue, SettingRow};
use super::table::SETTINGS;

/// Between these lines nobody writes by hand.
const BEGIN: &str = "<!-- made of the table of settings, see host/cli/src/config/page.rs -->";
const END: &str = "<!-- so far -->";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md")
}

/// Names of flags, keys and words, as a document quotes them; placeholders and bare sentences are not.
fn quoted(text: &str) -> String {
    let quote = |word: &str| {
        let name = word.trim_end_matches([',', '.', ';', ':']);
        match name.starts_with("--") {
            true => word.replacen(name, &format!("`{name}`"), 1),
            false => word.to_owned(),
        }
    };
    text.split(' ').map(quote).collect::<Vec<_>>().join(" ")
}

/// From where to where, in a cell.
fn range(setting: &SettingRow) -> String {
    match setting.about().bounds {
        [Some(least), Some(most)] => format!("`{}` {least} to {most}", setting.about().placeholder),
        [Some(least), None] => format!("`{}` from {least} on", setting.about().placeholder),
        [None, Some(most)] => format!("`{}` to {most}", setting.about().placeholder),
        [None, None] => format!("`{}`", setting.about().placeholder),
    }
}

fn default_cell(setting: &SettingRow) -> String {
    match setting.default {
        DefaultValue::Value(text) => format!("`{}`", text()),
        DefaultValue::Nothing("") => "–".to_owned(),
        DefaultValue::Nothing(means) => means.to_owned(),
    }
}

/// What stands between the marks.
fn tables() -> String {
    let mut lines = vec![
        "| setting of the node | flag | variable | value | default | what it does |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(SETTINGS.iter().map(|setting| {
        let reloads = if setting.reloads { " ↻" } else { "" };
        let (value, default, text) = (range(setting), default_cell(setting), quoted(&setting.text()));
        let (flag, variable) = (setting.flag(), setting.variable());
        format!("| `{}`{reloads} | `{flag}` | `{variable}` | {value} | {default} | {text} |", setting.name)
    }));
    lines.extend(["", "| value | what to write in the file |", "|---|---|"].map(str::to_owned));
    let mut forms = BTreeMap::new();
    for setting in SETTINGS {
        let expected = setting.about().expected;
        let before = forms.insert(setting.about().placeholder, expected.clone());
        assert!(before.is_none_or(|before| before == expected), "{} has two meanings", setting.about().placeholder);
    }
    lines.extend(forms.iter().map(|(placeholder, expected)| format!("| `{placeholder}` | {expected} |")));
    lines.join("\n")
}

#[test]
fn the_page_of_settings_says_what_the_table_says() {
    let path = page();
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the page has the first mark");
    let (made, after) = rest.split_once(END).expect("the page has the second mark");
    let expected = format!("\n\n{}\n\n", tables());
    if made == expected {
        return;
    }
    assert!(
        std::env::var_os("VOUCH_WRITE_DOCUMENTS").is_some(),
        "{} differs from the table of settings; write it anew with VOUCH_WRITE_DOCUMENTS=1. It should say:\n{expected}",
        path.display()
    );
    fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
}

#[test]
fn every_setting_is_told_in_one_sentence_for_people() {
    for setting in SETTINGS {
        let text = setting.text();
        assert!(text.ends_with('.') && !text.contains(['|', '{', '}', '\n']), "{}: {text}", setting.name);
        assert!(!setting.help().ends_with('.'), "{}", setting.name);
    }
}
