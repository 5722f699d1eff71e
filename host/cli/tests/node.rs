//! The commands against a real node.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Node, Ran, read, run, vouch};

#[test]
fn sigterm_and_sigint_stop_a_node_with_status_0_and_remove_its_endpoints() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::start(&[]);
        assert!(node.endpoints_file().exists());
        node.signal(signal);
        assert_eq!(node.child.wait().unwrap().code(), Some(0), "SIG{signal}");
        assert!(!node.endpoints_file().exists());
    }
}

#[test]
fn a_second_node_on_the_same_folder_is_refused_and_leaves_the_first_ones_endpoints() {
    let node = Node::start(&[]);
    let before = support::read(&node.endpoints_file());
    let mut second = vouch();
    second.args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"]);
    let ran = Ran::of(&second.arg(node.folder.path().join("data")).output().unwrap()).failed_with(1);
    let holder = format!("in use by process {} (vouch serve)", node.child.id());
    assert!(ran.stderr.contains(&holder), "{ran:?}");
    assert_eq!(support::read(&node.endpoints_file()), before);
    // On the same ports, too, it is the folder that is told.
    let mut third = vouch();
    third.args(["serve", "--grpc-addr", &node.grpc, "--http-addr", &node.http, "--data-dir"]);
    let ran = Ran::of(&third.arg(node.folder.path().join("data")).output().unwrap()).failed_with(1);
    assert!(ran.stderr.contains(&holder), "{ran:?}");
}

#[test]
fn a_start_says_for_which_tool_it_waits_and_is_ready_when_that_ends() {
    let node = Node::start(&[]);
    let (data, endpoints) = (node.folder.path().join("data"), node.endpoints_file());
    node.signal("TERM");
    let mut node = node;
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let tool = std::fs::File::open(&data).unwrap();
    tool.lock_shared().unwrap();
    // In a container it knew itself by this number.
    std::fs::write(data.join("lock"), r#"{"pid":42,"purpose":"backup"}"#).unwrap();
    let waits = format!("waiting for process {} (vouch backup)", std::process::id());
    let log = node.folder.path().join("second.log");
    let mut serve = vouch();
    serve.args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"]).arg(&data);
    node.child = serve.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let give_up_at = Instant::now() + Duration::from_secs(60);
    let mut until = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(node.child.try_wait().unwrap().is_none(), "{what}: {}", support::read(&log));
            assert!(Instant::now() < give_up_at, "{what}: {}", support::read(&log));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until("it waits", &|| support::read(&log).contains(&waits));
    assert!(!endpoints.exists());
    drop(tool);
    until("it is ready", &|| endpoints.exists());
}

#[test]
fn what_a_node_writes_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start(&[]);
    let data = node.folder.path().join("data");
    for name in ["", "endpoints.json", "lock", "identity.json", "tls", "tls/key.pem", "tls/certificate.pem", "plugins"]
    {
        let mode = std::fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn an_address_in_use_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = vouch();
    command.args(["serve", "--http-addr", "127.0.0.1:0", "--grpc-addr", &taken.local_addr().unwrap().to_string()]);
    let ran = Ran::of(&command.arg("--data-dir").arg(folder.path().join("d")).output().unwrap()).failed_with(1);
    assert!(ran.stderr.contains("cannot listen") && ran.stderr.contains("port 0"), "{ran:?}");
    assert!(!folder.path().join("d").exists(), "it is told before a folder is made");
}

#[test]
fn log_lines_are_json_where_that_is_asked_for() {
    let node = Node::start(&["--log-format", "json"]);
    let log = support::read(&node.folder.path().join("node.log"));
    let levels = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["level"].clone());
    // Also where few files may be open: nobody asked for more.
    assert_eq!(levels.clone().next(), Some(json!("INFO")), "{log}");
    assert!(levels.clone().all(|level| level == "INFO"), "{log}");
}

#[test]
fn topics_are_created_once_shown_updated_and_deleted() {
    let node = Node::start(&[]);
    let created = ["topic", "create", "orders", "--type", "transaction", "--interval", "30s"];
    assert_eq!(node.admin(&created).succeeded().stdout, "topic orders created\n");
    let again = node.admin(&created).failed_with(1);
    assert!(again.stderr.contains("exists already; change it with: vouch topic update orders"), "{again:?}");
    node.admin(&["topic", "update", "orders", "--max-checks", "7"]).succeeded();
    let shown = node.admin(&["topic", "show", "orders", "--json"]).succeeded().json();
    assert_eq!((&shown["transaction"]["interval"], &shown["transaction"]["max_checks"]), (&json!("30s"), &json!(7)));
    let list = node.admin(&["topic", "list"]).succeeded().stdout;
    assert!(list.lines().any(|line| line.starts_with("orders  transaction")), "{list}");
    let unchanged = node.admin(&["topic", "update", "orders"]).failed_with(2);
    assert!(unchanged.stderr.contains("nothing to change"), "{unchanged:?}");
    node.admin(&["topic", "delete", "orders"]).succeeded();
    let gone = node.admin(&["topic", "show", "orders", "--json"]).failed_with(1);
    assert_eq!((&gone.json()["status"], gone.json()["type"].is_string()), (&json!(404), true));
    assert!(gone.stderr.contains("vouch topic create orders"), "{gone:?}");
}

#[test]
fn groups_have_settings_and_progress() {
    let node = Node::start(&[]);
    node.admin(&["group", "create", "shipping", "--max-attempts", "3"]).succeeded();
    let shown = node.admin(&["group", "show", "shipping", "--json"]).succeeded().json();
    assert_eq!(shown["max_attempts"], 3);
    assert!(shown["progress"].is_object() || shown["progress"].is_array(), "{shown}");
    assert!(node.admin(&["group", "list"]).succeeded().stdout.contains("shipping"));
    node.admin(&["group", "update", "shipping", "--max-attempts", "4"]).succeeded();
    node.admin(&["group", "delete", "shipping"]).succeeded();
    node.admin(&["group", "show", "shipping"]).failed_with(1);
}

#[test]
fn a_message_is_sent_received_once_and_shown() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "greetings"]).succeeded();
    let send = ["message", "send", "greetings", "--body", "hello", "--tag", "a", "--key", "k", "--property", "p=1"];
    let mut json = send.to_vec();
    json.push("--json");
    let sent = node.client(&json).succeeded().json();
    let receive = ["message", "receive", "greetings", "--group", "g", "--wait", "5s", "--json"];
    let received = node.client(&receive).succeeded().json();
    assert_eq!(received["message_id"], sent["message_id"]);
    assert_eq!((&received["body"], &received["tag"], &received["keys"]), (&json!("hello"), &json!("a"), &json!(["k"])));
    assert_eq!(received["properties"], json!({"p": "1"}));
    let nothing = node.client(&["message", "receive", "greetings", "--group", "g", "--wait", "1s"]).succeeded();
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("nothing to receive"), "{nothing:?}");
    let id = sent["message_id"].as_str().unwrap();
    let shown = node.admin(&["message", "show", "greetings", id, "--json"]).succeeded();
    assert!(shown.stdout.contains(id), "{shown:?}");
    for filter in [["--key", "k"], ["--since", "1h"]] {
        let listed = node.admin(&[&["message", "list", "--topic", "greetings"][..], &filter].concat()).succeeded();
        assert!(listed.stdout.contains(id) && listed.stdout.contains("hello"), "{listed:?}");
    }
    let none = node.admin(&["message", "list", "--topic", "greetings", "--key", "other", "--json"]).succeeded();
    assert_eq!(none.json(), json!({"items": []}));
}

#[test]
fn without_ack_a_message_comes_again() {
    let node = Node::start(&["--receive-invisible-min", "1s"]);
    node.admin(&["topic", "create", "t"]).succeeded();
    node.client(&["message", "send", "t", "--body", "x"]).succeeded();
    let first = ["message", "receive", "t", "--group", "g", "--wait", "5s", "--no-ack", "--invisible", "1s", "--json"];
    assert_eq!(node.client(&first).succeeded().json()["attempt"], 1);
    let again = node.client(&["message", "receive", "t", "--group", "g", "--wait", "10s", "--json"]).succeeded();
    assert_eq!(again.json()["attempt"], 2);
}

#[test]
fn the_log_has_a_line_for_each_event_and_says_who_forced_what_and_why() {
    let node = Node::start(&[]);
    let endpoints = node.endpoints_file();
    let data = endpoints.parent().unwrap();
    let told = || read(&data.with_file_name("node.log"));
    let line = |what: &str| {
        let log = told();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{what:?} in {log}");
        lines.into_iter().next().unwrap()
    };
    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    node.admin(&["topic", "update", "orders", "--max-checks", "3"]).succeeded();
    node.admin(&["group", "create", "shop"]).succeeded();
    assert!(line("topic created").contains("orders") && line("topic changed").contains("orders"));
    assert!(line("group created").contains("shop"));
    let half = ["message", "send", "orders", "--body", "x", "--transaction", "leave-open", "--json"];
    let sent = node.client(&half).succeeded().json();
    let id = sent["transaction_id"].as_str().unwrap();
    let commit = ["transaction", "commit", id, "--by", "ann\nadmin", "--reason", "row is there"];
    node.admin(&commit).succeeded();
    node.admin(&commit).succeeded();
    let settled = line("settled by an operator");
    for part in [id, "orders", "committed", "ann\\nadmin", "row is there"] {
        assert!(settled.contains(part), "{part:?} in {settled}");
    }
    let shown = node.admin(&["transaction", "show", id, "--json"]).succeeded().json();
    assert_eq!(shown["last_answer"]["reason"], "row is there");
    // What its own producer decides is traffic, and no event.
    let commits = ["message", "send", "orders", "--body", "y", "--transaction", "commit"];
    node.client(&commits).succeeded();
    node.admin(&["topic", "delete", "orders", "--reason", "x"]).failed_with(2);
    node.admin(&["topic", "delete", "orders", "--force", "--by", "ben", "--reason", "wrong name"]).succeeded();
    let forced = line("deleted by force");
    assert!(forced.contains("orders") && forced.contains("ben") && forced.contains("wrong name"), "{forced}");
    node.admin(&["group", "delete", "shop"]).succeeded();
    assert!(line("group deleted").contains("shop"));
    assert!(!told().contains("settled by its producer"));
    let dumped = run(&["log", "dump", "--data-dir", data.to_str().unwrap()]).succeeded().stdout;
    assert!(dumped.contains("TopicForced") && dumped.contains("ben") && dumped.contains("wrong name"), "{dumped}");
}

#[test]
fn an_operator_decides_a_transaction_once() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    let half = ["message", "send", "orders", "--body", "x", "--transaction", "leave-open", "--json"];
    let sent = node.client(&half).succeeded().json();
    let id = sent["transaction_id"].as_str().unwrap();
    let open = node.admin(&["transaction", "list", "--topic", "orders"]).succeeded().stdout;
    assert!(open.contains(id), "{open}");
    let committed = node.admin(&["transaction", "commit", id, "--by", "me", "--reason", "row is there"]).succeeded();
    assert_eq!(committed.stdout, format!("transaction {id} is committed\n"));
    node.admin(&["transaction", "commit", id, "--by", "me"]).succeeded();
    let conflict = node.admin(&["transaction", "rollback", id, "--by", "me", "--json"]).failed_with(1);
    assert_eq!((&conflict.json()["status"], &conflict.json()["outcome"]), (&json!(409), &json!("committed")));
    let shown = node.admin(&["transaction", "show", id, "--json"]).succeeded().json();
    assert_eq!((&shown["state"], &shown["last_answer"]["by"]), (&json!("committed"), &json!("operator me")));
    let received = node.client(&["message", "receive", "orders", "--group", "g", "--wait", "5s"]).succeeded();
    assert!(received.stdout.contains(": x"), "{received:?}");
}

#[test]
fn a_component_is_pushed_tagged_bound_and_deleted() {
    let node = Node::start(&[]);
    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let pushed = node.admin(&["plugin", "push", "check:1.0", component, "--json"]).succeeded().json();
    let digest = pushed["digest"].as_str().unwrap();
    assert!(node.admin(&["plugin", "push", "check:1.0", component]).succeeded().stdout.contains("is up to date"));
    node.admin(&["plugin", "tag", "check:1.0", "stable"]).succeeded();
    let list = node.admin(&["plugin", "list"]).succeeded().stdout;
    assert!(list.contains("1.0,stable"), "{list}");
    assert!(node.admin(&["plugin", "show", "check"]).succeeded().stdout.contains(digest));
    let tagged = node.admin(&["plugin", "show", "check:1.0"]).succeeded().stdout;
    assert!(tagged.contains(digest) && tagged.contains("config, which a binding gives"), "{tagged}");
    assert_eq!(node.admin(&["plugin", "show", "check:1.0", "--json"]).succeeded().json()["digest"], json!(digest));
    node.admin(&["plugin", "show", &format!("check@{digest}")]).failed_with(2);
    let untagged = node.admin(&["plugin", "show", "check:2.0"]).failed_with(1);
    assert!(untagged.stderr.contains("plugin check has no tag 2.0"), "{untagged:?}");
    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    let set = ["binding", "set", "b", "--plugin", "check:stable", "--topic", "orders", "--allow-http"];
    let set = [&set[..], &["http://127.0.0.1:9", "--config", "url=http://127.0.0.1:9/{key}", "--config", "commit=200"]];
    node.admin(&set.concat()).succeeded();
    let shown = node.admin(&["binding", "show", "b", "--json"]).succeeded().json();
    assert_eq!((&shown["digest"], &shown["topics"]), (&json!(digest), &json!(["orders"])));
    assert!(node.admin(&["binding", "list"]).succeeded().stdout.contains("check:stable"));
    let bound = node.admin(&["plugin", "delete", "check"]).failed_with(1);
    assert!(bound.stderr.contains("binding b"), "{bound:?}");
    node.admin(&["binding", "delete", "b"]).succeeded();
    node.admin(&["plugin", "delete", "check:stable"]).succeeded();
    node.admin(&["plugin", "delete", "check"]).succeeded();
    node.admin(&["plugin", "show", "check"]).failed_with(1);
}

#[test]
fn a_file_that_is_no_component_is_refused_with_the_reason() {
    let node = Node::start(&[]);
    let file = node.folder.path().join("not.wasm");
    std::fs::write(&file, "hello").unwrap();
    let refused = node.admin(&["plugin", "push", "x:1", file.to_str().unwrap(), "--json"]).failed_with(1);
    assert_eq!(refused.json()["status"], 422);
}

#[test]
fn a_component_that_ends_its_compiler_does_not_end_the_node() {
    let node = Node::start(&[]);
    // One section of types: a type of a component, which lists one type of a component, and so on. Reading it takes a stack as
    // deep; the length of the section stands before it, seven bits a byte.
    let types = [&[1][..], &[0x41, 1, 1].repeat(1 << 20)].concat();
    let length = [0, 7, 14, 21].map(|shift| (types.len() >> shift) as u8 & 0x7f | if shift < 21 { 0x80 } else { 0 });
    let file = node.folder.path().join("deep.wasm");
    std::fs::write(&file, [&b"\0asm\x0d\0\x01\0\x07"[..], &length, &types].concat()).unwrap();
    for _ in 0..2 {
        let refused = node.admin(&["plugin", "push", "x:1", file.to_str().unwrap(), "--json"]).failed_with(1);
        assert_eq!((&refused.json()["status"], &refused.json()["kind"]), (&json!(422), &json!("invalid")));
        assert!(refused.stderr.contains("nested too deeply"), "{refused:?}");
    }
    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    node.admin(&["plugin", "push", "check:1.0", component]).succeeded();
}

/// A component whose compilation takes many seconds: some large functions that do nothing of use.
fn slow_component() -> Vec<u8> {
    let length = |mut left: usize| {
        let mut bytes = Vec::new();
        while left >= 0x80 {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes
    };
    let section = |id: u8, content: &[u8]| [&[id][..], &length(content.len()), content].concat();
    // local 0 += memory[local 1 + 16]; if local 0 < local 1, local 1 *= local 0.
    let step = b"\x20\0\x20\x01\x28\x02\x10\x6a\x21\0\x20\0\x20\x01\x49\x04\x40\x20\x01\x20\0\x6c\x21\x01\x0b";
    let body = [&b"\x01\x02\x7f"[..], &step.repeat(9_600), b"\x0b"].concat();
    let functions = 20;
    let code = [length(functions), [length(body.len()), body].concat().repeat(functions)].concat();
    let module = [
        &b"\0asm\x01\0\0\0"[..],
        &section(1, b"\x01\x60\0\0"),
        &section(3, &[length(functions), vec![0; functions]].concat()),
        &section(5, b"\x01\0\x01"),
        &section(10, &code),
    ];
    [&b"\0asm\x0d\0\x01\0"[..], &section(1, &module.concat())].concat()
}

/// The compiler that a node runs, and whether it runs still.
fn compiler_of(node: u32) -> Option<u32> {
    let is_its_compiler = |pid: &u32| {
        let stat = support::read(format!("/proc/{pid}/stat").as_ref());
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(node) && support::read(format!("/proc/{pid}/cmdline").as_ref()).starts_with("vouch-compiler")
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find(is_its_compiler)
}

/// One that ended stays a zombie until the system buries it.
fn runs(pid: u32) -> bool {
    let status = support::read(format!("/proc/{pid}/stat").as_ref());
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_compiler_ends_with_the_upload_that_is_given_up_and_with_the_node() {
    let mut node = Node::start(&[]);
    let file = node.folder.path().join("slow.wasm");
    std::fs::write(&file, slow_component()).unwrap();
    let give_up_at = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let until = |done: &dyn Fn() -> bool, what: &str| {
        while !done() {
            assert!(std::time::Instant::now() < give_up_at, "{what}");
            std::thread::yield_now();
        }
    };
    let id = node.child.id();
    let push = || {
        let mut push = vouch();
        push.args(["plugin", "push", "slow:1"]).arg(&file).args(["--http", &node.http]);
        let upload = push.stderr(std::process::Stdio::null()).spawn().unwrap();
        until(&|| compiler_of(id).is_some(), "no compiler was started");
        (upload, compiler_of(id).unwrap())
    };
    for _ in 0..4 {
        let (mut upload, compiler) = push();
        upload.kill().unwrap();
        upload.wait().unwrap();
        until(&|| !runs(compiler), "the compiler goes on without the upload");
    }
    let (mut upload, compiler) = push();
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    until(&|| !runs(compiler), "the compiler goes on without the node");
    upload.wait().unwrap();
}

#[test]
fn who_finds_all_places_for_connections_taken_is_told_so() {
    use std::io::{Read, Write};
    let node = Node::start(&["--connections", "1"]);
    let mut only = std::net::TcpStream::connect(&node.grpc).unwrap();
    only.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    only.read_exact(&mut [0; 9]).unwrap();
    for _ in 0..5 {
        let refused = node.client(&["message", "send", "t", "--body", "x", "--json"]).failed_with(1);
        assert_eq!(refused.json()["type"], "urn:vouch:cli:closed", "{refused:?}");
        assert!(refused.stderr.contains("`connections` in its settings"), "{refused:?}");
    }
}

#[test]
fn a_node_with_a_token_lets_in_who_has_it() {
    let node = Node::start(&["--http-token", "sesame"]);
    let refused = node.admin(&["topic", "list", "--json"]).failed_with(1);
    assert_eq!(refused.json()["status"], 401);
    node.admin(&["topic", "list", "--http-token", "sesame"]).succeeded();
}
