//! A node with few descriptors: its connections do not take those of its log, and probes are answered.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Node, Ran, vouch_within};

/// Few enough to be used up in a moment.
const LIMIT: u64 = 400;

fn get(node: &Node, path: &str) -> String {
    let mut stream = TcpStream::connect(&node.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", node.http).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The value of a log line's field.
fn logged(log: &str, line: &str, field: &str) -> usize {
    let line = log.lines().find(|text| text.contains(line)).unwrap_or_else(|| panic!("no {line:?} in {log}"));
    let (_, rest) = line.split_once(&format!("{field}=")).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Connects until as many are open as can be, and keeps them.
fn connect(address: &str, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn idle_connections_take_no_descriptor_of_the_log_and_none_of_the_probes() {
    let node = Node::start_within(&format!("ulimit -n {LIMIT}"), &[]);
    let log = || support::read(&node.folder.path().join("node.log"));
    let (grpc, http) = (logged(&log(), "connections lowered", "grpc"), logged(&log(), "connections lowered", "http"));
    assert!(grpc + http + 256 <= LIMIT as usize, "{grpc} {http}");
    node.admin(&["topic", "create", "orders"]).succeeded();
    // What says nothing is closed after ten seconds; the preface and settings of HTTP/2 keep a connection.
    let mut idle = connect(&node.grpc, grpc + 50);
    let kept = idle.iter_mut().filter_map(|stream| {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (stream.read(&mut [0; 9]).ok()? == 9).then_some(())
    });
    assert_eq!(kept.count(), grpc, "so many are served and no more");
    let _heads: Vec<_> = connect(&node.http, http + 100)
        .into_iter()
        .map(|mut stream| {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\n");
            stream
        })
        .collect();
    for probe in ["/healthz", "/readyz", "/metrics"] {
        let began = Instant::now();
        assert!(get(&node, probe).starts_with("HTTP/1.1 200"), "{probe}: {}", log());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    // One place becomes free, and its client writes several segments of the log.
    idle.truncate(idle.len() / 2);
    let body = "x".repeat(1 << 20);
    let file = node.folder.path().join("body");
    std::fs::write(&file, body).unwrap();
    for _ in 0..12 {
        node.client(&["message", "send", "orders", "--file", file.to_str().unwrap()]).succeeded();
    }
    assert!(get(&node, "/readyz").starts_with("HTTP/1.1 200"), "{}", log());
    assert!(!log().contains("EMFILE") && !log().contains("os error 24"), "{}", log());
}

#[test]
fn the_soft_limit_is_raised_and_too_low_a_hard_one_is_refused_with_what_to_do() {
    let node = Node::start_within("ulimit -S -n 64", &["--connections", "100"]);
    let log = support::read(&node.folder.path().join("node.log"));
    assert!(log.contains("raised the limit of open files") && log.contains("before=64"), "{log}");
    assert!(!log.contains("connections lowered"), "{log}");
    drop(node);
    let folder = tempfile::tempdir().unwrap();
    let mut few = vouch_within("ulimit -n 319");
    few.args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"]);
    let ran = Ran::of(&few.arg(folder.path().join("d")).output().unwrap()).failed_with(1);
    assert!(ran.stderr.contains("needs 320") && ran.stderr.contains("ulimit -n"), "{ran:?}");
    assert!(!folder.path().join("d").exists());
}

#[test]
fn connections_that_do_not_fit_are_a_warning_to_who_asked_for_them_and_else_a_line_of_a_start() {
    for (flags, level) in [(&[][..], " INFO "), (&["--connections", "20000"], " WARN ")] {
        let node = Node::start_within("ulimit -n 1024", flags);
        let log = support::read(&node.folder.path().join("node.log"));
        let line = log.lines().find(|line| line.contains("connections lowered")).unwrap();
        assert!(line.contains(level), "{line}");
    }
}

#[test]
fn config_check_shows_the_connections_that_fit() {
    let check = |limit: &str, flags: &[&str]| {
        Ran::of(&vouch_within(limit).args(["config", "check"]).args(flags).output().unwrap()).succeeded()
    };
    let lowered = check("ulimit -n 1024", &["--json"]).json();
    assert_eq!(lowered["connections"], serde_json::json!({"value": "20000", "source": "default", "lowered_to": "576"}));
    assert!(check("ulimit -n 1024", &[]).stdout.contains("20000 (lowered to 576: 1024 files may be open)"));
    let as_set = check("ulimit -n 1024", &["--json", "--connections", "576"]).json();
    assert_eq!(as_set["connections"], serde_json::json!({"value": "576", "source": "flag"}));
}
