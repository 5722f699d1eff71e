//! Holds what is written for users against the command line: documents, help texts, the interface texts of plugins, the
//! description of the HTTP API, and the sentences in which the node advises a command.

mod quoted;

use std::collections::BTreeSet;
use std::fs;

use clap::{Command, CommandFactory, Parser};

use crate::args::Cli;
use crate::config::{CONFIG_VARIABLE, GRPC_ADDR, HTTP_ADDR, SETTINGS, SettingRow};
use quoted::{code_lines, code_spans, documents, files, root, words};

/// Variables that no setting has.
const OTHER_VARIABLES: [&str; 1] = [CONFIG_VARIABLE];
/// Flags in documents that belong to other programs: the order service of the example.
const OTHER_FLAGS: [&str; 1] = ["--die-at"];

fn built() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// Every command that users see, with the words that lead to it.
fn commands() -> Vec<(String, Command)> {
    fn walk(path: &str, command: &Command, found: &mut Vec<(String, Command)>) {
        found.push((path.to_owned(), command.clone()));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
            walk(&format!("{path} {}", below.get_name()), below, found);
        }
    }
    let mut found = Vec::new();
    walk("vouch", &built(), &mut found);
    found
}

/// What a command's help says besides the names of its flags.
fn help_text(command: &Command) -> String {
    let texts =
        [command.get_about(), command.get_long_about(), command.get_after_help(), command.get_after_long_help()];
    let of_flags = command.get_arguments().flat_map(|flag| [flag.get_help(), flag.get_long_help()]);
    texts.into_iter().chain(of_flags).flatten().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

/// Why a whole command would be refused.
fn refused(words: &[String]) -> Option<String> {
    let error = Cli::try_parse_from(words).err()?;
    (error.exit_code() != 0).then(|| error.to_string())
}

/// What is wrong with a command that is only named: its subcommands and flags must exist, values may be missing.
fn misnamed(words: &[String]) -> Option<String> {
    let mut command = &built();
    let mut path = words.iter().skip(1).peekable();
    while command.has_subcommands() {
        // A name may stand before what is done with it: `vouch binding state NAME list`.
        for _ in command.get_positionals() {
            path.next_if(|word| !word.starts_with('-'));
        }
        let Some(word) = path.next_if(|word| !word.starts_with('-')) else { break };
        match command.find_subcommand(word) {
            Some(below) => command = below,
            None => return Some(format!("`{}` has no subcommand {word}", command.get_name())),
        }
    }
    let flags = || command.get_arguments().filter_map(|flag| flag.get_long());
    path.filter_map(|word| word.strip_prefix("--")).find_map(|flag| {
        let name = flag.split(['=', ',', ')', '.']).next().unwrap_or_default();
        let known = matches!(name, "help" | "version") || flags().any(|known| known == name);
        (!known).then(|| format!("`{}` has no flag --{name}", command.get_name()))
    })
}

/// The words of a line that begins with this program.
fn own(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.replacen("cargo run --release -- ", "vouch ", 1);
    let line = line.strip_prefix("target/release/").unwrap_or(&line);
    line.starts_with("vouch ").then(|| words(line))
}

#[test]
fn every_command_in_a_code_block_is_one_that_is_taken() {
    let mut checked = 0;
    for (name, text) in documents() {
        for line in code_lines(&text).iter().filter_map(|line| own(line)) {
            assert_eq!(refused(&line), None, "{name}: {line:?}");
            checked += 1;
        }
    }
    assert!(checked >= 30, "{checked} commands were found: does this test still see the documents?");
}

#[test]
fn every_example_of_a_help_text_is_taken_and_of_its_command() {
    let mut checked = 0;
    for (path, command) in commands() {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let joined = examples.split("\\\n").map(str::trim_start).collect::<Vec<_>>().join("");
        let lines = joined.lines().filter(|line| line.trim_start().starts_with("vouch "));
        // Beside some stands what they do.
        for line in lines.filter_map(|line| own(line.trim().split("   ").next().unwrap_or_default())) {
            assert_eq!(refused(&line), None, "{path}: {line:?}");
            // Names may stand between.
            let mut words = line.iter();
            let is_led_to = path.split(' ').all(|part| words.any(|word| word == part));
            assert!(is_led_to, "the help of {path} shows {line:?}");
            checked += 1;
        }
    }
    assert!(checked >= 50, "{checked}");
}

#[test]
fn every_command_that_is_named_exists() {
    let helps = commands().into_iter().map(|(path, command)| (format!("help of {path}"), help_text(&command)));
    let mut checked = 0;
    for (name, text) in documents().into_iter().chain(helps) {
        for span in code_spans(&text).iter().filter_map(|span| own(span)) {
            assert_eq!(misnamed(&span), None, "{name}: {span:?}");
            checked += 1;
        }
    }
    assert!(checked >= 25, "{checked}");
}

/// Refusals and lines in the log say what to do next: `create it with: vouch topic create orders`.
#[test]
fn every_command_that_the_node_advises_exists() {
    let tops: BTreeSet<String> = built().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let mut checked = 0;
    // These files themselves have commands that do not exist.
    let sources =
        files(&root().join("host"), &[".rs"]).into_iter().filter(|file| !file.to_string_lossy().contains("documents"));
    for file in sources {
        let text = fs::read_to_string(&file).unwrap();
        // A text may go on behind a backslash, or a comment on its next line.
        let joined = text.lines().map(|line| line.trim().trim_start_matches("//").trim_start_matches(['/', '!']));
        let joined = joined.collect::<Vec<_>>().join("\n").replace("\\\n", "").replace('\n', " ");
        for (at, _) in joined.match_indices("vouch ") {
            let before = joined[..at].chars().next_back();
            let rest: String = joined[at..].chars().take_while(|letter| !"`\"\\;:,)(".contains(*letter)).collect();
            let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            let is_command = words.get(1).is_some_and(|word| tops.contains(word));
            // A path, a name, or prose.
            if before.is_some_and(|letter| letter.is_alphanumeric() || "-_./".contains(letter)) || !is_command {
                continue;
            }
            assert_eq!(misnamed(&words), None, "{}: {rest}", file.display());
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
}

#[test]
fn the_help_at_the_top_names_every_subcommand() {
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let named: BTreeSet<&str> = about.split(|letter: char| !letter.is_alphanumeric() && letter != '-').collect();
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = below.get_name();
            assert!(named.contains(name), "`vouch --help` does not name {name} of {}: {about}", command.get_name());
        }
    }
}

#[test]
fn every_setting_is_a_flag_whose_help_tells_its_default_and_its_variable() {
    let serve = built().find_subcommand("serve").unwrap().clone();
    for setting in SETTINGS {
        let flag = serve.get_arguments().find(|flag| flag.get_id().as_str() == setting.name);
        let flag = flag.unwrap_or_else(|| panic!("serve has no flag for {}", setting.name));
        assert_eq!(flag.get_long(), Some(setting.flag_name().as_str()));
        assert_eq!(flag.get_env().map(|name| name.to_string_lossy().into_owned()), Some(setting.variable()));
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        match setting.default_text().as_str() {
            "" | "false" => {}
            default => assert!(help.contains(&format!("[default: {default}]")), "--{}: {help}", setting.name),
        }
    }
}

#[test]
fn the_help_at_the_top_names_the_ports_that_a_node_has_by_default() {
    let help = built().get_after_help().map(ToString::to_string).unwrap_or_default();
    assert!(help.contains(&format!("gRPC on {GRPC_ADDR}, HTTP on {HTTP_ADDR}")), "{help}");
}

/// Rows of tables below such a heading: what their first cell names in backticks, and the cell below `default`.
fn table_rows(text: &str, heading: &str) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut default_at = None;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            default_at = None;
        } else if cells[0] == heading {
            default_at = cells.iter().position(|cell| *cell == "default");
        } else if let (Some(default_at), false) = (default_at, cells[0].starts_with("--")) {
            let name = code_spans(cells[0]).into_iter().next().unwrap_or_else(|| panic!("no name in {line}"));
            rows.push((name, cells[default_at].trim_matches('`').to_owned()));
        }
    }
    rows
}

/// The properties of a schema in the description of the API, with their defaults as people write them.
fn defaults(schema: &serde_json::Value) -> Vec<(String, String)> {
    let properties = schema["properties"].as_object().unwrap().iter();
    let text = |default: &serde_json::Value| default.as_str().map_or_else(|| default.to_string(), str::to_owned);
    properties.map(|(name, property)| (name.clone(), property.get("default").map(text).unwrap_or_default())).collect()
}

#[test]
fn every_setting_in_a_table_exists_and_has_that_default() {
    let api: serde_json::Value = serde_json::from_str(include_str!("../../gateway/openapi.json")).unwrap();
    let schemas = &api["components"]["schemas"];
    let of_node: Vec<(String, String)> =
        SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.default_text())).collect();
    let tables = [
        ("setting of the node", of_node),
        ("setting of a topic", defaults(&schemas["Topic"])),
        ("`limits`", defaults(&schemas["Binding"]["properties"]["limits"])),
    ];
    let mut checked = 0;
    for (name, text) in documents() {
        for (heading, known) in &tables {
            for (setting, told) in table_rows(&text, heading) {
                let found = known.iter().find(|(known, _)| *known == setting);
                let (_, default) = found.unwrap_or_else(|| panic!("{name}: {setting} is no {heading}"));
                // Where there is none, a document says what that means.
                assert!(
                    default.is_empty() || told == *default,
                    "{name}: {setting} is {default} by default, not {told}"
                );
                checked += 1;
            }
        }
    }
    assert!(checked >= 12, "{checked}");
}

#[test]
fn every_variable_and_flag_in_a_document_exists() {
    let known: BTreeSet<String> = SETTINGS.iter().map(SettingRow::variable).collect();
    let flags: BTreeSet<String> = commands()
        .iter()
        .flat_map(|(_, command)| {
            command.get_arguments().filter_map(|flag| flag.get_long()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    // Tests and tools have variables of their own: where they are read they are spelled the same.
    let elsewhere: Vec<String> = ["host", "tests", "plugins"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), &[".rs", ".py", "run", "build"]))
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    for (name, text) in documents() {
        let is_part = |letter: char| letter.is_ascii_uppercase() || letter == '_';
        for (at, _) in text.match_indices("VOUCH_") {
            let variable: String = text[at..].chars().take_while(|letter| is_part(*letter)).collect();
            let exists = known.contains(&variable)
                || OTHER_VARIABLES.contains(&variable.as_str())
                || elsewhere.iter().any(|text| text.contains(&variable));
            assert!(exists, "{name}: {variable} is read nowhere");
        }
        for span in code_spans(&text).iter().filter(|span| span.starts_with("--")) {
            let flag = span.split([' ', '=']).next().unwrap_or_default();
            let exists = flags.contains(&flag[2..]) || OTHER_FLAGS.contains(&flag);
            assert!(exists, "{name}: no command has the flag {flag}");
        }
    }
}

#[test]
fn a_command_that_does_not_exist_would_be_noticed() {
    let split = |line: &str| words(line);
    assert!(refused(&split("vouch topic create")).is_some() && refused(&split("vouch topic list --json")).is_none());
    assert!(refused(&split("vouch plugin log x")).is_some() && refused(&split("vouch --help")).is_none());
    assert!(misnamed(&split("vouch plugin replay")).is_some() && misnamed(&split("vouch plugin logs")).is_none());
    assert!(misnamed(&split("vouch serve --on-damag x")).is_some() && misnamed(&split("vouch serve --help")).is_none());
}
