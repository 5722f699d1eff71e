//! `vouch config check` and `vouch serve` say the same of wrong settings, and neither changes anything.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Node, Ran, vouch};

const ANY_PORTS: [&str; 2] = ["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"];

/// A folder of a node that was stopped.
fn stopped_node() -> tempfile::TempDir {
    let mut node = Node::start(&[]);
    node.signal("TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    std::mem::replace(&mut node.folder, tempfile::tempdir().unwrap())
}

/// Names, sizes and times of everything below a folder.
fn listing(folder: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                folders.push(path.clone());
            }
            all.push((path, about.len(), about.modified().unwrap()));
        }
    }
    all.sort();
    all
}

/// Flags, an environment variable, what is said of it, and the exit status.
struct Wrong {
    flags: Vec<String>,
    variable: (&'static str, &'static str),
    said: &'static str,
    status: i32,
}

/// With any free ports where the flags name none.
fn wrong(flags: &[&str], said: &'static str, status: i32) -> Wrong {
    let is_given = |port: &&&str| flags.iter().any(|flag| flag.split('=').next() == port.split('=').next());
    let ports = ANY_PORTS.iter().filter(|port| !is_given(port));
    let flags = flags.iter().chain(ports).map(ToString::to_string).collect();
    Wrong { flags, variable: ("NO_SETTING", ""), said, status }
}

#[test]
fn a_check_says_what_a_start_would_say_and_neither_changes_anything() {
    let of_node = stopped_node();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let of_nodes = |name: &str| of_node.path().join("data").join(name).display().to_string();
    // Somebody else's, a backup, a node's without its log, a node's with an identity that is none, a file.
    for made in ["others", "backup", "unmounted", "torn/shards/0/log"] {
        fs::create_dir_all(at(made)).unwrap();
    }
    for (file, text) in [
        ("others/thesis.odt", ""),
        ("backup/backup.json", "{}"),
        ("torn/identity.json", "{"),
        ("torn/shards/0/log/00000000000000000000.log", ""),
        ("file", "not a token"),
        ("token", "two words\n"),
    ] {
        fs::write(at(file), text).unwrap();
    }
    fs::write(at("bytes"), [0xff, b'a']).unwrap();
    fs::copy(of_nodes("identity.json"), at("unmounted/identity.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    let (certificate, key) = (of_nodes("tls/certificate.pem"), of_nodes("tls/key.pem"));
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let data = |name: &str| flag("data-dir", &at(name));
    let cases = [
        wrong(&["--segment-size=5"], "5 bytes is not a multiple", 1),
        wrong(&["--zero-ahead=0B"], "kept zero-filled", 1),
        wrong(&["--syncs-in-flight=5"], "5 syncs in flight", 1),
        wrong(&["--plugin-threads=100000"], "threads", 1),
        wrong(&["--disk-limit=1MiB"], "would fill at once", 1),
        wrong(&["--http-addr=0.0.0.0:0"], "--insecure-http", 1),
        wrong(&["--http-addr=0.0.0.0:0", "--insecure-grpc"], "--insecure-http", 1),
        wrong(&["--grpc-addr=0.0.0.0:0"], "--insecure-grpc", 1),
        wrong(&["--grpc-addr=[::]:0", "--insecure-http"], "--insecure-grpc", 1),
        wrong(&["--grpc-addr=0.0.0.0:0", "--http-token=t"], "--insecure-grpc", 1),
        wrong(&["--http-token=two words"], "visible ASCII", 2),
        wrong(&["--http-token=a line\n"], "visible ASCII", 2),
        wrong(&["--http-hosts=http://x"], "is not a host name", 2),
        wrong(&["--grpc-addr=127.0.0.1:7", "--http-addr=127.0.0.1:7"], "are both 127.0.0.1:7", 1),
        wrong(&["--grpc-addr=203.0.113.7:0", "--insecure-grpc"], "cannot listen on 203.0.113.7:0", 1),
        wrong(&["--http-token=t", &flag("http-token-file", &at("file"))], "are both set", 2),
        wrong(&[&flag("http-token-file", &at("missing"))], "cannot read the token", 1),
        wrong(&[&flag("http-token-file", &at("token"))], "visible ASCII", 2),
        wrong(&[&flag("http-token-file", &at("bytes"))], "is no text", 2),
        Wrong {
            variable: ("VOUCH_HTTP_TOKEN", ""),
            ..wrong(&[&flag("http-token-file", &at("file"))], "http_token is set and empty", 2)
        },
        wrong(&["--log-level=a=b=c"], "--log-level: ", 2),
        Wrong { variable: ("RUST_LOG", "a=b=c"), ..wrong(&[], "RUST_LOG: ", 2) },
        Wrong { variable: ("VOUCH_INSECURE_GRPC", "yes"), ..wrong(&[], "VOUCH_INSECURE_GRPC: `yes`", 2) },
        wrong(&[&flag("tls-certificate", &at("missing")), &flag("tls-key", &key)], "cannot read the certificate", 1),
        wrong(
            &[&flag("tls-certificate", &certificate), &flag("tls-key", &at("file"))],
            "cannot read the private key",
            1,
        ),
        wrong(&[&data("others")], "holds thesis.odt", 1),
        wrong(&[&data("backup")], "is a backup", 1),
        wrong(&[&data("unmounted")], "there was a log", 1),
        wrong(&[&data("torn")], "identity.json cannot be read", 1),
        wrong(&[&data("file")], "Not a directory", 1),
        wrong(&[&data("file/below/it")], "Not a directory", 1),
        wrong(&["--data-dir=/sys/vouch-data"], "cannot create /sys/vouch-data: ", 1),
        wrong(&["--data-dir=/proc/vouch/data"], "cannot create /proc/vouch: proc is a file system of the kernel's", 1),
        wrong(&[&data("dangling")], "File exists", 1),
        wrong(&[&data(&["missing", &"n".repeat(256)].join("/"))], "File name too long", 1),
        wrong(&[&flag("data-dir", &of_nodes("")), "--segment-size=8MiB"], "leave the setting out", 1),
    ];
    for Wrong { mut flags, variable, said, status } in cases {
        if !flags.iter().any(|flag| flag.starts_with("--data-dir")) {
            flags.push(data("new"));
        }
        let before = (listing(folder.path()), listing(of_node.path()));
        let run = |command: &[&str]| {
            let mut vouch = vouch();
            // What is no setting is warned of by both.
            vouch.args(command).args(&flags).env(variable.0, variable.1);
            // A start that goes on would not end by itself.
            vouch.args(if command == ["serve"] { &["--stop-with-parent"][..] } else { &[] });
            Ran::of(&vouch.output().unwrap()).failed_with(status)
        };
        let (checked, served) = (run(&["config", "check"]), run(&["serve"]));
        assert!(checked.stderr.contains(said), "{flags:?}: {checked:?}");
        assert_eq!(checked.stderr, served.stderr, "{flags:?}");
        assert_eq!((listing(folder.path()), listing(of_node.path())), before, "{flags:?}");
    }
}

#[test]
fn what_is_right_is_right_also_beyond_loopback_and_beside_a_node_that_runs() {
    let node = Node::start(&[]);
    let check = |flags: &[&str]| {
        let data = node.folder.path().join("data");
        let mut vouch = vouch();
        vouch.args(["config", "check", "--json", "--data-dir"]).arg(data).args(flags);
        Ran::of(&vouch.output().unwrap()).succeeded().json()
    };
    // Its own ports and folder, which are in use.
    check(&["--grpc-addr", &node.grpc, "--http-addr", &node.http]);
    let beyond = ["--grpc-addr", "0.0.0.0:0", "--http-addr", "[::]:0"];
    let shown = check(&[&beyond[..], &["--insecure"]].concat());
    assert_eq!(shown["insecure"], serde_json::json!({"value": "true", "source": "flag"}));
    check(&[&beyond[..], &["--insecure-grpc", "--insecure-http"]].concat());
    check(&[&beyond[..], &["--insecure-grpc", "--http-token", "t"]].concat());
    let shown = check(&["--insecure-grpc"]);
    assert_eq!(shown["insecure_grpc"], serde_json::json!({"value": "true", "source": "flag"}));
}
