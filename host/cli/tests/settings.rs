//! Each setting is read from the file, a variable and a flag, one over the other, and does what it says.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Node, Ran, run, vouch};

/// A value of each setting that is not its default, as the file has it. The two of TLS are set together or not at all, and
/// are read with the others by the tests of signals.
const VALUES: [(&str, &str); 29] = [
    ("data_dir", "'/tmp/vouch-settings-none'"),
    ("grpc_addr", "'127.0.0.1:0'"),
    ("http_addr", "'[::1]:0'"),
    ("http_token", "'sesame'"),
    ("http_token_file", "'{file}'"),
    ("http_hosts", "'a.example'"),
    ("insecure_http", "true"),
    ("insecure_grpc", "true"),
    ("insecure", "true"),
    ("auto_create_topics", "true"),
    ("receive_invisible_min", "'2s'"),
    ("connections", "100"),
    ("bytes_in_flight", "1048576"),
    ("segment_size", "'8MiB'"),
    ("zero_ahead", "'2MiB'"),
    ("syncs_in_flight", "3"),
    ("snapshot_every", "'2MiB'"),
    ("catch_up_log", "'3MiB'"),
    ("scrub_rate", "0"),
    ("retention_every", "'1s'"),
    ("disk_high_water", "80"),
    ("disk_limit", "'100GiB'"),
    ("on_damage", "'read-only'"),
    ("plugin_threads", "1"),
    ("plugin_concurrency", "8"),
    ("sqlite_dirs", "'/var/lib/shop'"),
    ("secret_key_file", "'/etc/vouch/secrets.key'"),
    ("log_format", "'json'"),
    ("log_level", "'debug'"),
];
const OF_TLS: [&str; 2] = ["tls_certificate", "tls_key"];
/// It names a file that must be there; a test of its own sets it.
const OF_COMPONENTS: [&str; 1] = ["plugin_ca"];
/// Those of other nodes belong together, too; the tests of clusters set them.
const OF_NODES: [&str; 10] = [
    "peer_addr",
    "peer_advertise",
    "grpc_advertise",
    "routes_to_leader",
    "peer_insecure",
    "peer_certificate",
    "peer_key",
    "peer_ca",
    "join",
    "token_file",
];

/// What `vouch config check` says with these.
fn check(file: Option<&Path>, variables: &[(String, String)], flags: &[String]) -> Ran {
    let mut command = vouch();
    command.args(["config", "check", "--json"]).args(flags).envs(variables.iter().cloned());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    Ran::of(&command.output().unwrap())
}

fn variable(name: &str) -> String {
    format!("VOUCH_{}", name.to_uppercase())
}

fn flag(name: &str, value: &str) -> String {
    format!("--{}={value}", name.replace('_', "-"))
}

#[test]
fn each_setting_is_read_from_the_file_a_variable_and_a_flag_one_over_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("vouch.toml"), folder.path().join("token"));
    std::fs::write(&token, "open\n").unwrap();
    let defaults = check(None, &[], &[]).succeeded().json();
    let known: Vec<&str> = defaults.as_object().unwrap().keys().map(String::as_str).collect();
    let mut told: Vec<&str> =
        VALUES.iter().map(|(name, _)| *name).chain(OF_TLS).chain(OF_COMPONENTS).chain(OF_NODES).collect();
    told.sort_unstable();
    assert_eq!(told, known, "each setting has a value here");
    for (name, in_file) in VALUES {
        let in_file = in_file.replace("{file}", token.to_str().unwrap());
        let text = in_file.trim_matches('\'').to_owned();
        let shown = if name == "http_token" { "(set)" } else { &text };
        let said = |source: &str| json!({"value": shown, "source": source});
        let default = defaults[name]["value"].as_str().unwrap().to_owned();
        assert_ne!(default, text, "{name} is not its default here");

        std::fs::write(&file, format!("{name} = {in_file}\n")).unwrap();
        assert_eq!(check(Some(&file), &[], &[]).succeeded().json()[name], said("file"));
        let by_variable = [(variable(name), text.clone())];
        assert_eq!(check(None, &by_variable, &[]).succeeded().json()[name], said("environment"));
        let by_flag = [flag(name, &text)];
        assert_eq!(check(None, &[], &by_flag).succeeded().json()[name], said("flag"));

        // Below it stands what nobody could be: it is not even read.
        std::fs::write(&file, format!("{name} = ' '\n")).unwrap();
        let nonsense = [(variable(name), " ".to_owned())];
        assert_eq!(check(Some(&file), &by_variable, &[]).succeeded().json()[name], said("environment"));
        assert_eq!(check(Some(&file), &nonsense, &by_flag).succeeded().json()[name], said("flag"));
    }
}

#[test]
fn the_authorities_of_components_are_read_by_the_check_and_the_start_and_what_holds_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let [none, empty, certificates] = ["none.pem", "empty.pem", "ca"].map(|name| folder.path().join(name));
    std::fs::write(&empty, "no certificate\n").unwrap();
    let cluster = "07".repeat(16);
    let make = [
        "cluster",
        "certificates",
        "--json",
        "--node",
        "1",
        "--address",
        "localhost",
        "--cluster",
        &cluster,
        "--ca-dir",
    ];
    let made = Ran::of(&vouch().args(make).arg(&certificates).output().unwrap()).succeeded().json();
    let of = |file: &str| format!("--plugin-ca={file}");
    check(None, &[], &[of(made["peer_ca"].as_str().unwrap())]).succeeded();
    for (file, why) in [(&none, "cannot be read"), (&empty, "holds no certificate")] {
        let flag = of(file.to_str().unwrap());
        let data = folder.path().join("data");
        let serve =
            ["serve", "--data-dir", data.to_str().unwrap(), "--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0"];
        for ran in [check(None, &[], std::slice::from_ref(&flag)), run(&[&serve[..], &[flag.as_str()]].concat())] {
            assert!(ran.status != 0 && ran.stderr.contains(why), "{ran:?}");
            assert!(ran.stderr.contains(file.to_str().unwrap()), "{ran:?}");
        }
        assert!(!data.exists());
    }
}

#[test]
fn a_value_of_the_wrong_type_is_told_by_both_commands_and_a_token_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.toml");
    for (text, told) in [
        ("data_dir = 5", "data_dir is the whole number 5; write the path of a folder in quotes"),
        ("zero_ahead = true", "zero_ahead is true; write a size in quotes"),
        ("insecure = [true]", "insecure is a list; write true or false"),
        ("http_token = 48151623", "http_token is a whole number; write the token in quotes"),
        ("http_token = 'sesame\n", "line 1 is not TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in [&["config", "check"][..], &["serve"]] {
            let ran = run(&[command, &["--config", file.to_str().unwrap()]].concat()).failed_with(2);
            let begins = format!("vouch: {}: {told}", file.display());
            assert!(ran.stderr.starts_with(&begins), "{text}: {ran:?}");
            assert!(!ran.stderr.contains("48151623") && !ran.stderr.contains("sesame"), "{ran:?}");
            assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no folder is made");
}

/// Also of what is refused by whoever takes the value, where the status is another one.
#[test]
fn a_bad_number_ends_with_the_same_status_and_words_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.toml");
    for (name, value, status) in [
        ("connections", "0", 2),
        ("connections", "-1", 2),
        ("connections", "18446744073709551616", 2),
        ("disk_high_water", "100", 2),
        ("bytes_in_flight", "1", 2),
        ("syncs_in_flight", "0", 2),
        ("syncs_in_flight", "5", 1),
        ("segment_size", "5", 1),
        ("zero_ahead", "0", 1),
        ("plugin_threads", "100000", 1),
        ("disk_limit", "1048576", 1),
    ] {
        std::fs::write(&file, format!("{name} = {value}\n")).unwrap();
        let of = |ran: Ran| ran.failed_with(status).json();
        let place = folder.path().join("data").display().to_string();
        let data = [flag("data_dir", &place)];
        // The last document is the failure; before it the settings are shown.
        let last = |file: Option<&Path>, variables: &[(String, String)], flags: &[String]| {
            let mut ran = check(file, variables, &[&data[..], flags].concat());
            let at = ran.stdout.find("\n}\n{").unwrap_or_else(|| panic!("{ran:?}"));
            ran.stdout = ran.stdout.split_off(at + 3);
            of(ran)["detail"].as_str().unwrap().to_owned()
        };
        let by_file = last(Some(&file), &[], &[]);
        let by_variable = last(None, &[(variable(name), value.to_owned())], &[]);
        let by_flag = last(None, &[], &[flag(name, value)]);
        let alike = |text: &str| {
            let text = text.replace(&format!("{name} in the file"), "HERE").replace(&variable(name), "HERE");
            text.replace(&format!("--{}", name.replace('_', "-")), "HERE")
        };
        assert_eq!(alike(&by_file), alike(&by_flag), "{name} = {value}");
        assert_eq!(alike(&by_variable), alike(&by_flag), "{name} = {value}");
    }
}

#[test]
fn what_is_set_holds_in_the_node_that_runs() {
    let strict = Node::start(&[]);
    let send = ["message", "send", "new", "--body", "x"];
    assert!(strict.client(&send).failed_with(1).stderr.contains("new"), "no topic is made by a send");
    strict.admin(&["topic", "create", "t"]).succeeded();
    let receive = ["message", "receive", "t", "--group", "g", "--wait", "1s", "--invisible", "2s"];
    let refused = strict.client(&receive).failed_with(1);
    assert!(refused.stderr.contains("10"), "the shortest is named: {refused:?}");

    let flags = ["--auto-create-topics", "--receive-invisible-min=2s", "--http-token=sesame", "--log-format=json"];
    let node = Node::start(&flags);
    node.client(&send).succeeded();
    node.client(&["message", "receive", "new", "--group", "g", "--wait", "5s", "--invisible", "2s"]).succeeded();
    let stranger = node.admin(&["topic", "list"]).failed_with(1);
    assert!(stranger.stderr.contains("--http-token"), "{stranger:?}");
    let listed = node.admin(&["topic", "list", "--json", "--http-token", "sesame"]).succeeded().json();
    assert_eq!(listed["items"][0]["name"], "new");
    let log = support::read(&node.folder.path().join("node.log"));
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no document: {line}"));
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
    assert!(!log.contains("sesame"));
}
