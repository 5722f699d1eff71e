//! Wrong usage: exit status 2 and a sentence that says what to write instead. No node is needed.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use support::{Ran, run, vouch};

#[test]
fn wrong_flags_and_values_exit_2_and_say_why() {
    let cases: [(&[&str], &str); 22] = [
        (&["serv"], "unrecognized subcommand"),
        (&["topic", "create"], "<NAME>"),
        (&["topic", "create", "x", "--type", "queue"], "possible values: normal, fifo, delay, transaction, mixed"),
        (&["topic", "create", "x", "--queues", "0"], "0 is not in 1.."),
        (&["topic", "create", "x", "--max-checks", "1001"], "1001 is not in 0..=1000"),
        (&["topic", "create", "x", "--immunity", "6"], "write a number with a unit"),
        (&["topic", "create", "x", "--retention-size", "0B"], "the least is 1B"),
        (&["plugin", "push", "check", "f.wasm"], "write NAME:TAG, for example check:1.0"),
        (&["binding", "set", "b", "--plugin", "c:1", "--memory", "64MB"], "write for example 64KiB"),
        (&["binding", "set", "b", "--plugin", "c:1", "--config", "novalue"], "is not name=value"),
        (&["binding", "set", "b", "--plugin", "c:1"], "--topic <TOPIC>"),
        (&["binding", "set", "b", "--plugin", "c:1", "--group", "g"], "--subscribe <TOPIC[=FILTER]>"),
        (&["binding", "set", "b", "--plugin", "c:1", "--topic", "t", "--start", "end"], "--group <GROUP>"),
        (
            &["binding", "set", "b", "--plugin", "c:1", "--group", "g", "--subscribe", "=x"],
            "is not TOPIC or TOPIC=FILTER",
        ),
        (&["binding", "state", "b"], "list, get, delete"),
        (&["message", "receive", "t"], "--group"),
        (&["bench", "send", "--batch", "0"], "0 is not in 1..=1024"),
        (&["bench", "send", "--topics", "0"], "0 is not in 1..=100000"),
        (&["bench", "send", "--background", "--rate", "9"], "cannot be used with '--rate <N>'"),
        (&["bench", "log", "--syncs", "5"], "5 is not in 1..=4"),
        (&["demo", "--nodes", "2"], "write 1 or 3"),
        (&["demo", "--nodes", "three"], "write 1 or 3"),
    ];
    for (arguments, sentence) in cases {
        let ran = run(arguments).failed_with(2);
        assert!(ran.stderr.contains(sentence), "{arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn help_and_version_exit_0_and_help_shows_an_example() {
    for arguments in [&["topic", "create", "--help"][..], &["serve", "--help"], &["bench", "send", "--help"]] {
        let ran = run(arguments).succeeded();
        assert!(ran.stdout.contains("Example"), "{ran:?}");
    }
    assert!(run(&["--version"]).succeeded().stdout.starts_with("vouch "));
}

#[test]
fn closing_texts_of_help_are_wrapped_for_the_screen_that_is_there() {
    for (columns, line) in [
        (Some("80"), "The addresses in use are written to endpoints.json in the data folder when the\nnode is ready. "),
        (
            Some("100"),
            "The addresses in use are written to endpoints.json in the data folder when the node is ready. Until\nthen ",
        ),
        (
            None,
            "The addresses in use are written to endpoints.json in the data folder when the node is ready. Until\nthen ",
        ),
    ] {
        let mut command = vouch();
        command.env_remove("COLUMNS").envs(columns.map(|columns| ("COLUMNS", columns))).args(["serve", "--help"]);
        let ran = Ran::of(&command.output().unwrap()).succeeded();
        assert!(ran.stdout.contains(line), "{columns:?}: {ran:?}");
    }
}

#[test]
fn a_file_that_is_no_document_is_wrong_usage_and_told_by_its_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\n  plugin: 1\n}").unwrap();
    let path = file.path().to_str().unwrap();
    let ran = run(&["binding", "set", "b", "--file", path]).failed_with(2);
    assert_eq!(ran.stderr, format!("vouch: {path} is not JSON: look at line 2, column 3\n"));
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let ran = run(&["topic", "list", "--http", "https://a/b"]).failed_with(2);
    assert!(ran.stderr.contains("write host:port"), "{ran:?}");
    let ran = run(&["message", "receive", "t", "--group", "g", "--grpc", "nohost"]).failed_with(2);
    assert!(ran.stderr.contains("write host:port"), "{ran:?}");
}

#[test]
fn a_node_that_is_not_there_fails_with_advice_and_a_document_for_scripts() {
    // Bound and dropped: nobody listens there now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ran = run(&["topic", "list", "--http", &free, "--json"]).failed_with(1);
    assert!(ran.stderr.contains("vouch serve"), "{ran:?}");
    assert_eq!(ran.json()["type"], "urn:vouch:cli:unreachable");
}

#[test]
fn the_environment_names_the_node_and_a_flag_wins_over_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let asked = |flags: &[&str]| {
        let mut command = vouch();
        command.env("VOUCH_HTTP_ADDR", &free).args(["topic", "list"]).args(flags);
        Ran::of(&command.output().unwrap()).stderr
    };
    assert!(asked(&[]).contains(&free));
    assert!(!asked(&["--http", "127.0.0.1:1"]).contains(&free));
}

#[test]
fn config_check_says_every_value_and_where_it_comes_from() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "http_addr = '127.0.0.1:4'\ndata_dir = '/somewhere'\n").unwrap();
    let mut command = vouch();
    command.env("VOUCH_DATA_DIR", "/elsewhere").args(["config", "check", "--json", "--config"]).arg(file.path());
    let checked = Ran::of(&command.output().unwrap()).succeeded().json();
    assert_eq!(checked["data_dir"], serde_json::json!({"value": "/elsewhere", "source": "environment"}));
    assert_eq!(checked["http_addr"], serde_json::json!({"value": "127.0.0.1:4", "source": "file"}));
    assert_eq!(checked["grpc_addr"], serde_json::json!({"value": "127.0.0.1:8081", "source": "default"}));
}

#[test]
fn a_wrong_configuration_exits_2_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vouch.toml");
    let cases = [
        ("grcp_addr = '127.0.0.1:1'", "did you mean `grpc_addr`?"),
        ("grpc_addr = 'localhost'", "grpc_addr in the file: `localhost` is not an address"),
        ("syncs_in_flight = 0", "is not a whole number above 0"),
        ("snapshot_every = '1023KiB'", "is less than 1MiB"),
        ("tls_key = 'k.pem'", "set both or neither"),
        ("log_format = 'xml'", "neither text nor json"),
        ("bytes_in_flight = '1GB'", "is not a size"),
        ("bytes_in_flight = 0", "is less than 1MiB"),
        ("log_level = 5", "log_level is the whole number 5; write a level in quotes"),
        ("http_hosts = ['a']", "http_hosts is a list; write names in quotes"),
        ("connections = 99999999999999999999", "is not a whole number above 0"),
        ("http_token = 'sesame", "line 1 is not TOML"),
    ];
    for (text, sentence) in cases {
        std::fs::write(&file, text).unwrap();
        for command in [&["serve"][..], &["config", "check"]] {
            let data = folder.path().join("data");
            let mut vouch = vouch();
            // `serve` of a wrong configuration must end by itself: it has no time limit here.
            vouch.args(command).arg("--config").arg(&file).arg("--data-dir").arg(&data);
            let ran = Ran::of(&vouch.output().unwrap()).failed_with(2);
            assert!(ran.stderr.contains(sentence), "{text}: {ran:?}");
            assert!(!data.exists(), "{text}: nothing is made");
        }
    }
}

#[test]
fn a_mistyped_variable_is_told() {
    let mut command = vouch();
    command.env("VOUCH_GRCP_ADDR", "127.0.0.1:1").args(["config", "check"]);
    let ran = Ran::of(&command.output().unwrap()).succeeded();
    assert!(ran.stderr.contains("did you mean `VOUCH_GRPC_ADDR`?"), "{ran:?}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell]).succeeded();
        assert!(ran.stdout.contains("vouch") && ran.stdout.len() > 1_000, "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let mut child =
        vouch().args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(&child.wait_with_output().unwrap()).succeeded();
    assert!(ran.stderr.is_empty(), "{ran:?}");
}
