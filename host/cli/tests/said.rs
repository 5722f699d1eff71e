//! What commands say to a person, and what they leave behind.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Node, Ran, vouch};

const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
/// What the component cannot do without.
const CONFIG: [&str; 4] = ["--config", "url=http://127.0.0.1:9/{key}", "--config", "commit=200"];

/// The sessions that a node counts: of producers, of consumers.
fn sessions(node: &Node) -> (u64, u64) {
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let text = agent.get(format!("http://{}/metrics", node.http)).call().unwrap().body_mut().read_to_string().unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    };
    (value("vouch_producer_sessions"), value("vouch_consumer_sessions"))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < give_up_at, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node on which something is in the way of everything that a command may want.
fn crowded() -> (Node, String) {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    node.admin(&["topic", "create", "plain", "--type", "mixed"]).succeeded();
    node.admin(&["group", "create", "shipping"]).succeeded();
    node.client(&["message", "send", "plain", "--body", "x"]).succeeded();
    let half = ["message", "send", "orders", "--body", "x", "--transaction", "leave-open", "--json"];
    let id = node.client(&half).succeeded().json()["transaction_id"].as_str().unwrap().to_owned();
    node.admin(&["plugin", "push", "check:1.0", COMPONENT]).succeeded();
    let mut other = std::fs::read(COMPONENT).unwrap();
    other.extend([0, 3, 1, b'x', 1]);
    std::fs::write(node.folder.path().join("other.wasm"), other).unwrap();
    for topic in ["orders", "plain"] {
        let set =
            ["binding", "set", topic, "--plugin", "check:1.0", "--topic", topic, "--allow-http", "http://127.0.0.1:9"];
        node.admin(&[&set[..], &CONFIG].concat()).succeeded();
    }
    (node, id)
}

#[test]
fn refusals_name_flags_and_commands_and_never_what_only_http_has() {
    let (node, id) = crowded();
    let other = node.folder.path().join("other.wasm").display().to_string();
    let long = "r".repeat(4097);
    let ungranted = [&["binding", "set", "c", "--plugin", "check:1.0", "--topic", "orders"][..], &CONFIG].concat();
    let second = [&ungranted[..], &["--allow-http", "http://127.0.0.1:9"]].concat();
    let cases: [(&[&str], &str); 17] = [
        (&["topic", "create", "orders"], "change it with: vouch topic update orders"),
        (&["group", "create", "shipping"], "change it with: vouch group update shipping"),
        (&["topic", "delete", "orders"], "--force"),
        (&["topic", "delete", "plain"], "--force"),
        (&["topic", "show", "nothing"], "vouch topic create nothing"),
        (&["group", "show", "nothing"], "vouch group create nothing"),
        (&["topic", "update", "orders", "--queues", "1"], "queues"),
        (&["plugin", "push", "check:1.0", &other], "--replace"),
        (&["plugin", "delete", "check"], "bindings orders, plain; delete these first"),
        (&["plugin", "logs", "nothing"], "vouch plugin push"),
        (&["binding", "show", "nothing"], "vouch binding set nothing"),
        (&second, "binding orders"),
        (&ungranted, "grants nothing: every request would be denied; allow that origin with --allow-http"),
        (&["topic", "list", "--after", ""], ""),
        (&["transaction", "list", "--after", "x"], "the mark at the end of the page before"),
        (&["transaction", "commit", &id, "--by", " "], "--by"),
        (&["transaction", "commit", &id, "--by", "me", "--reason", &long], "--reason"),
    ];
    for (arguments, sentence) in cases {
        let ran = node.admin(arguments);
        if !sentence.is_empty() {
            assert_eq!((ran.status, ran.stderr.contains(sentence)), (1, true), "{arguments:?}: {ran:?}");
        }
        for foreign in ["If-", "ETag", "tag \"", "header", "force=", "/v1/", "PUT", "PATCH", "`after`", "\"by\""] {
            assert!(!ran.stderr.contains(foreign), "{arguments:?} speaks of {foreign}: {ran:?}");
        }
    }
    for (pushed, said) in [(&other, "check:1.0 moved to another component"), (&other, "check:1.0 is up to date")] {
        let ran = node.admin(&["plugin", "push", "check:1.0", pushed, "--replace"]).succeeded();
        assert!(ran.stdout.starts_with(said), "{ran:?}");
    }
    // What scripts read stays the node's own document.
    let document = node.admin(&["topic", "create", "orders", "--json"]).failed_with(1).json();
    assert_eq!((&document["status"], &document["type"]), (&json!(412), &json!("urn:vouch:error:precondition-failed")));
}

#[test]
fn whoever_deletes_a_topic_is_told_of_the_binding_that_names_it() {
    let (node, _) = crowded();
    let refused = node.admin(&["topic", "delete", "orders"]).failed_with(1);
    assert!(refused.stderr.contains("vouch binding delete orders"), "{refused:?}");
    let forced = node.admin(&["topic", "delete", "orders", "--force"]).succeeded();
    assert!(forced.stderr.contains("warning: binding orders names topic orders, which is gone"), "{forced:?}");
    assert!(forced.stdout.contains("topic orders deleted"), "{forced:?}");
    let document = node.admin(&["topic", "delete", "plain", "--force", "--json"]).succeeded();
    assert!(document.json()["warnings"][0].as_str().unwrap().contains("binding plain"), "{document:?}");
    let log = std::fs::read_to_string(node.folder.path().join("node.log")).unwrap();
    let told =
        log.lines().filter(|line| line.contains("WARN") && line.contains("the binding names a topic that is gone"));
    assert_eq!(told.count(), 2, "{log}");
}

#[test]
fn a_token_that_is_missing_is_asked_for_by_its_flag() {
    let node = Node::start(&["--http-token", "secret"]);
    for arguments in [&["topic", "list"][..], &["topic", "list", "--http-token", "wrong"]] {
        let ran = node.admin(arguments).failed_with(1);
        assert!(ran.stderr.contains("--http-token") && !ran.stderr.contains("authorization"), "{ran:?}");
    }
    node.admin(&["topic", "list", "--http-token", "secret"]).succeeded();
}

#[test]
fn a_command_that_is_pointed_at_the_other_port_says_so() {
    let node = Node::start(&[]);
    let send = ["message", "send", "t", "--body", "x", "--grpc", &node.http];
    let receive = ["message", "receive", "t", "--group", "g", "--grpc", &node.http];
    for arguments in [&send[..], &receive] {
        let ran = support::run(arguments).failed_with(1);
        assert!(ran.stderr.contains("is an HTTP port, and this command speaks gRPC"), "{ran:?}");
        assert!(ran.stderr.contains("--grpc ADDR") && !ran.stderr.contains("places"), "{ran:?}");
    }
    let measure = ["bench", "send", "--grpc", &node.http, "--http", &node.http, "--rounds", "1", "--seconds", "1"];
    let ran = support::run(&[&measure[..], &["--warmup", "0s", "--without-peers"]].concat()).failed_with(1);
    assert!(ran.stderr.contains("is an HTTP port, and this command speaks gRPC"), "{ran:?}");
    let ran = support::run(&["topic", "list", "--http", &node.grpc, "--json"]).failed_with(1);
    assert!(ran.stderr.contains("is a gRPC port, and this command speaks HTTP"), "{ran:?}");
    assert_eq!(ran.json()["type"], "urn:vouch:cli:wrong-port");
}

#[test]
fn retention_can_be_taken_away_again_and_the_list_shows_it() {
    let node = Node::start(&[]);
    let create = ["topic", "create", "t", "--retention", "72h", "--retention-size", "10GiB", "--schedule", "10s,30s"];
    node.admin(&create).succeeded();
    let line = || {
        let list = node.admin(&["topic", "list"]).succeeded().stdout;
        list.lines().find(|line| line.starts_with("t ")).unwrap().to_owned()
    };
    assert!(line().contains("3days, 10GiB") && line().contains("after 10s,30s"), "{}", line());
    node.admin(&["topic", "update", "t", "--retention", "none", "--schedule", "none"]).succeeded();
    assert!(line().contains(" 10GiB  ") && !line().contains("3days") && line().contains("every 30s"), "{}", line());
    node.admin(&["topic", "update", "t", "--retention-size", "none"]).succeeded();
    let shown = node.admin(&["topic", "show", "t", "--json"]).succeeded().json();
    assert!(shown["retention"].is_null() && shown["retention_size"].is_null(), "{shown}");
    // The least of both, and less than that.
    node.admin(&["topic", "update", "t", "--retention", "1s", "--retention-size", "1B"]).succeeded();
    let refused = node.admin(&["topic", "update", "t", "--retention", "999ms"]).failed_with(1);
    assert!(refused.stderr.contains("1s"), "{refused:?}");
    node.admin(&["topic", "create", "u", "--retention", "none", "--schedule", "none"]).succeeded();

    node.admin(&["topic", "create", "rest"]).succeeded();
    node.admin(&["group", "create", "g", "--dead-letter-topic", "rest", "--backoff", "1s"]).succeeded();
    node.admin(&["group", "update", "g", "--dead-letter-topic", "", "--backoff", "none"]).succeeded();
    let shown = node.admin(&["group", "show", "g", "--json"]).succeeded().json();
    assert!(shown["dead_letter_topic"].is_null() && shown["backoff"].as_array().unwrap().len() > 1, "{shown}");
}

#[test]
fn sends_and_receives_leave_no_session_behind_whatever_became_of_them() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "t"]).succeeded();
    node.client(&["message", "send", "t", "--body", "x"]).succeeded();
    assert_eq!(sessions(&node), (0, 0), "sent");
    node.client(&["message", "send", "nothing", "--body", "x"]).failed_with(1);
    assert_eq!(sessions(&node), (0, 0), "refused");
    let receive = ["message", "receive", "t", "--group", "g", "--wait"];
    node.client(&[&receive[..], &["5s"]].concat()).succeeded();
    assert_eq!(sessions(&node), (0, 0), "received");
    node.client(&["message", "receive", "nothing", "--group", "g", "--wait", "1s"]).failed_with(1);
    assert_eq!(sessions(&node), (0, 0), "refused");

    let mut waiting = vouch();
    waiting.args(receive).args(["10m", "--grpc", &node.grpc]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    until("it waits", || sessions(&node) == (0, 1));
    std::process::Command::new("kill").args(["-INT", &waiting.id().to_string()]).status().unwrap();
    let ran = Ran::of(&waiting.wait_with_output().unwrap()).failed_with(1);
    assert!(ran.stderr.contains("interrupted"), "{ran:?}");
    assert_eq!(sessions(&node), (0, 0), "interrupted");
}

#[test]
fn what_a_component_said_is_read_once_and_followed() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "orders", "--type", "transaction", "--immunity", "0s"]).succeeded();
    node.admin(&["plugin", "push", "check:1.0", COMPONENT]).succeeded();
    // Nobody answers there, which the host says in its log at each ask.
    let set = ["binding", "set", "orders", "--plugin", "check:1.0", "--topic", "orders"];
    let set = [&set[..], &["--allow-http", "http://127.0.0.1:9", "--config"]].concat();
    let config = ["url=http://127.0.0.1:9/{key}", "--config", "commit=200", "--config", "rollback=404"];
    node.admin(&[&set[..], &config].concat()).succeeded();
    let nothing = node.admin(&["plugin", "logs", "check"]).succeeded();
    assert!(
        nothing.stdout.is_empty() && nothing.stderr.contains("keeps no line of the components of check:"),
        "{nothing:?}"
    );
    let half = ["message", "send", "orders", "--body", "x", "--key", "1", "--transaction", "leave-open", "--json"];
    let id = node.client(&half).succeeded().json()["transaction_id"].as_str().unwrap().to_owned();
    let logs = |more: &[&str]| node.admin(&[&["plugin", "logs", "check"][..], more].concat()).succeeded().stdout;
    until("the component is asked", || logs(&[]).contains(&id));
    let line = logs(&["--since", "1h"]).lines().next().unwrap().to_owned();
    assert!(line.contains("  orders  ") && line.contains(&id) && line.contains("127.0.0.1:9"), "{line}");
    assert_eq!(logs(&["--since", "2100-01-01T00:00:00Z"]), "");
    let first: serde_json::Value = serde_json::from_str(logs(&["--json"]).lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["binding"], &first["number"], &first["transaction_id"]),
        (&json!("orders"), &json!(1), &json!(id))
    );

    let mut following = vouch();
    following.args(["plugin", "logs", "check", "--follow", "--http", &node.http]);
    let mut following = following.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(following.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), line);
    let second = node.client(&half).succeeded().json()["transaction_id"].as_str().unwrap().to_owned();
    assert!(lines.any(|line| line.unwrap().contains(&second)), "a line that came later");
    following.kill().unwrap();
    following.wait().unwrap();

    // It said something since the node started, and none of it is kept.
    node.admin(&["binding", "delete", "orders"]).succeeded();
    for since in [&[][..], &["--since", "1h"]] {
        let nothing = node.admin(&[&["plugin", "logs", "check"][..], since].concat()).succeeded();
        assert!(nothing.stdout.is_empty() && !nothing.stderr.contains("said anything"), "{nothing:?}");
        assert!(nothing.stderr.contains("when the binding is set again or deleted"), "{nothing:?}");
    }
}

#[test]
fn what_a_pushed_component_reads_of_its_config_is_told_in_lines() {
    let node = Node::start(&[]);
    let pushed = node.admin(&["plugin", "push", "check:1.0", COMPONENT]).succeeded();
    let shown = node.admin(&["plugin", "show", "check"]).succeeded();
    for ran in [&pushed, &shown] {
        assert!(
            !ran.stdout.contains('{')
                && ran.stdout.lines().any(|line| line == "  url                     request-url   required"),
            "{ran:?}"
        );
        assert!(ran.stdout.contains("\n  rollback-missing-after  duration"), "{ran:?}");
    }
    let document = node.admin(&["plugin", "push", "check:1.0", COMPONENT, "--json"]).succeeded().json();
    let url = &document["config"][0];
    assert_eq!((&url["name"], &url["type"], &url["required"]), (&json!("url"), &json!("request-url"), &json!(true)));
}

#[test]
fn a_long_error_is_short_in_the_list_and_whole_where_one_is_shown() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "orders", "--type", "transaction", "--immunity", "0s"]).succeeded();
    node.admin(&["plugin", "push", "check:1.0", COMPONENT]).succeeded();
    let set = ["binding", "set", "orders", "--plugin", "check:1.0", "--topic", "orders"];
    let set = [&set[..], &["--allow-http", "http://127.0.0.1:9", "--config"]].concat();
    let config = [
        &format!("url=http://127.0.0.1:9/{}/{{key}}", "x".repeat(120)),
        "--config",
        "commit=200",
        "--config",
        "rollback=404",
    ];
    node.admin(&[&set[..], &config].concat()).succeeded();
    let half = ["message", "send", "orders", "--body", "x", "--key", "1", "--transaction", "leave-open", "--json"];
    let id = node.client(&half).succeeded().json()["transaction_id"].as_str().unwrap().to_owned();
    let error = || {
        let shown = node.admin(&["transaction", "show", &id, "--json"]).succeeded().json();
        shown["last_answer"]["error"].as_str().map(str::to_owned)
    };
    until("the component is asked", || error().is_some());
    assert!(error().unwrap().chars().count() > 60, "{:?}", error());
    let list = node.admin(&["transaction", "list"]).succeeded().stdout;
    let row = list.lines().find(|line| line.contains(&id)).unwrap();
    assert!(row.contains('…') && row.chars().count() < 180, "{row}");
    assert!(node.admin(&["transaction", "list", "--json"]).succeeded().stdout.contains(&error().unwrap()));
}

#[test]
fn tables_of_a_fence_are_printed_as_a_database_takes_them() {
    for (database, takes) in [("postgres", "timestamptz"), ("mysql", "InnoDB"), ("mariadb", "InnoDB")] {
        let ran = Ran::of(&vouch().args(["sql", "fence-table", "--database", database]).output().unwrap()).succeeded();
        assert!(ran.stdout.contains("create table vouch_fence") && ran.stdout.contains(takes), "{ran:?}");
    }
    let print = |more: &[&str]| {
        let mut command = vouch();
        command.args(["sql", "fence-table", "--database", "sqlite"]).args(more);
        Ran::of(&command.output().unwrap()).succeeded().stdout
    };
    for (more, is_final) in [(&[][..], true), (&["--without-trigger"], false)] {
        let shop = rusqlite::Connection::open_in_memory().unwrap();
        shop.execute_batch(&print(more)).unwrap();
        shop.execute("insert into vouch_fence (fence_key, outcome) values ('m1', 'rolled_back')", []).unwrap();
        let changed = shop.execute("update vouch_fence set outcome = 'committed'", []);
        assert_eq!(changed.is_err(), is_final, "{changed:?}");
    }
}

#[test]
fn a_secret_comes_from_a_file_is_listed_without_its_value_and_stays_while_it_is_named() {
    let node = Node::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    std::fs::write(&file, "Bearer s3cr3t-value\n").unwrap();
    let set = ["secret", "set", "orders-api", "--file", file.to_str().unwrap()];
    assert!(node.admin(&set).succeeded().stdout.contains("secret orders-api set"));
    assert!(node.admin(&set).succeeded().stdout.contains("replaced"));
    let piped = node.admin(&["secret", "set", "empty"]).failed_with(2);
    assert!(piped.stderr.contains("the value is empty"), "{piped:?}");

    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    node.admin(&["plugin", "push", "check:1.0", COMPONENT]).succeeded();
    let bind = ["binding", "set", "orders", "--plugin", "check:1.0", "--topic", "orders"];
    let config = ["--config", "url=http://127.0.0.1:9/{key}", "--config", "commit=200"];
    let bind = [&bind[..], &config, &["--allow-http", "http://127.0.0.1:9"]].concat();
    let missing = node.admin(&[&bind[..], &["--config-secret", "authorization=orders-apo"]].concat()).failed_with(1);
    assert!(missing.stderr.contains("vouch secret set orders-apo"), "{missing:?}");
    node.admin(&[&bind[..], &["--config-secret", "authorization=orders-api"]].concat()).succeeded();
    let list = node.admin(&["secret", "list"]).succeeded().stdout;
    let line = list.lines().find(|line| line.starts_with("orders-api ")).unwrap();
    assert!(line.contains(" orders ") && line.ends_with("yes"), "{list}");
    let shown = node.admin(&["binding", "show", "orders", "--json"]).succeeded().json();
    assert_eq!(shown["config"]["authorization"], json!({"secret": "orders-api"}));
    let used = node.admin(&["secret", "delete", "orders-api"]).failed_with(1);
    assert!(used.stderr.contains("orders"), "{used:?}");
    let rotated = node.admin(&["secret", "rotate-key"]).succeeded().stdout;
    assert!(rotated.contains("1 secrets were sealed with it, 1 keys of before are kept"), "{rotated}");
    node.admin(&["binding", "delete", "orders"]).succeeded();
    node.admin(&["secret", "delete", "orders-api"]).succeeded();
    assert!(!list.contains("s3cr3t") && !node.admin(&["secret", "list"]).succeeded().stdout.contains("orders-api"));
}
