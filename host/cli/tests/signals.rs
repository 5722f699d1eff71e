//! What signals do to a node: while it serves, while it starts, and as process 1.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use support::{Node, read, vouch};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, log: &Path, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: {}", read(log));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

fn get(http: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn sighup_reads_token_and_log_level_anew_and_what_is_wrong_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("vouch.toml"), folder.path().join("token"));
    let settings = |log_level: &str, more: &str| {
        let text = format!("http_token_file = '{}'\nlog_level = '{log_level}'\n{more}\n", token.display());
        std::fs::write(&file, text).unwrap();
    };
    std::fs::write(&token, "first\n").unwrap();
    settings("info", "");
    let node = Node::start(&["--config", file.to_str().unwrap()]);
    let log = node.folder.path().join("node.log");
    let lines = |text: &str| read(&log).lines().filter(|line| line.contains(text)).count();
    let only = |right: &str, wrong: &str| {
        node.admin(&["topic", "list", "--http-token", right]).succeeded();
        node.admin(&["topic", "list", "--http-token", wrong]).failed_with(1);
    };
    only("first", "second");

    std::fs::write(&token, "second").unwrap();
    settings("debug", "retention_every = '20s'");
    node.signal("HUP");
    until("it is reloaded", &log, || lines("reloaded certificate and key") == 1);
    let line = read(&log).lines().find(|line| line.contains("reloaded")).unwrap().to_owned();
    assert!(line.contains(" INFO ") && line.contains("HTTP token or names, log level"), "{line}");
    assert!(line.contains("with_the_next_start=\"retention_every\"") && !line.contains("second"), "{line}");
    only("second", "first");
    // What nothing listened for ended the node; now it is a line for who looks closely.
    for (sent, name) in ["USR1", "USR2"].into_iter().zip(["SIGUSR1", "SIGUSR2"]) {
        node.signal(sent);
        until("the signal is heard", &log, || lines(name) == 1);
    }
    assert!(read(&log).lines().any(|line| line.contains(" DEBUG ") && line.contains("SIGUSR1")));

    // A token that is none, a file that is none, a level that is none: one line each, and the second token holds.
    let mut failures = 0;
    let mut fails = |why: &str| {
        node.signal("HUP");
        failures += 1;
        until(why, &log, || lines("nothing is reloaded") == failures);
        let told = read(&log);
        let line = told.lines().rfind(|line| line.contains("nothing is reloaded")).unwrap();
        assert!(line.contains(" ERROR ") && line.contains(why) && line.contains("vouch config check"), "{line}");
        only("second", "third");
    };
    std::fs::write(&token, "third token").unwrap();
    fails("visible ASCII");
    std::fs::write(&token, "third").unwrap();
    settings("a=b=c", "");
    fails("log_level in the file");
    settings("info", "tls_certificate = '/nowhere.pem'\ntls_key = '/nowhere.pem'");
    fails("/nowhere.pem");
    std::fs::remove_file(&file).unwrap();
    fails("cannot read the configuration");
    settings("info", "");
    node.signal("HUP");
    until("it is reloaded again", &log, || lines("reloaded certificate and key") == 2);
    only("third", "second");
    node.signal("TERM");
    let mut node = node;
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Ends by a signal, soon and with status 0.
fn ends_by(name: &str, child: &mut Child, log: &Path) {
    let began = Instant::now();
    signal(name, child.id());
    until("it ends", log, || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", read(log));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// Whether the process listens for SIGUSR2, and so for every other signal.
fn listens(pid: u32) -> bool {
    const USR2: u64 = 1 << (12 - 1);
    let status = read(format!("/proc/{pid}/status").as_ref());
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).unwrap() & USR2 != 0
}

/// Long enough for a process that listens to come to the file that it reads.
const READS_WITHIN: Duration = Duration::from_millis(300);

#[test]
fn a_file_that_never_comes_keeps_no_start_from_stopping() {
    for (name, setting) in [("TERM", "--http-token-file"), ("INT", "--http-token-file"), ("TERM", "--config")] {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, data, log) =
            (folder.path().join("pipe"), folder.path().join("data"), folder.path().join("node.log"));
        fifo(&pipe);
        let mut command = vouch();
        command.args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"]).arg(&data);
        command.arg(setting).arg(&pipe).stderr(File::create(&log).unwrap());
        let mut child = Ended(command.spawn().unwrap());
        until("it listens", &log, || listens(child.0.id()));
        std::thread::sleep(READS_WITHIN);
        assert!(child.0.try_wait().unwrap().is_none(), "it waits for the file: {}", read(&log));
        // There is nothing yet to reload, and it stays a start that can be stopped.
        signal("HUP", child.0.id());
        ends_by(name, &mut child.0, &log);
        let told = read(&log);
        assert!(told.contains(&format!("stopped (SIG{name})")) && told.lines().count() == 1, "{told}");
        assert!(!data.exists());
    }
}

/// Killed when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_token_from_a_pipe_is_read_once_and_sighup_says_why_not_again() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("vouch.toml"), folder.path().join("token"));
    let settings = |text: &str| std::fs::write(&file, text).unwrap();
    settings("log_level = 'info'");
    // As with `--http-token-file <(echo first)`.
    let from_pipe = ["--config", file.to_str().unwrap(), "--http-token-file", "/dev/stdin"];
    let node = Node::start_within("exec < <(echo first)", &from_pipe);
    let refused = |node: &Node, times: usize, why: &str| {
        let log = node.folder.path().join("node.log");
        node.signal("HUP");
        until(why, &log, || read(&log).lines().filter(|line| line.contains("nothing is reloaded")).count() == times);
        let line = read(&log).lines().rfind(|line| line.contains("nothing is reloaded")).unwrap().to_owned();
        assert!(line.contains(why), "{line}");
        node.admin(&["topic", "list", "--http-token", "first"]).succeeded();
        node.admin(&["topic", "list"]).failed_with(1);
    };
    settings("log_level = 'debug'");
    refused(&node, 1, "not a regular file");
    let log = node.folder.path().join("node.log");
    let mut node = node;
    ends_by("TERM", &mut node.child, &log);
    assert!(!read(&log).contains(" DEBUG "), "not even the log level is another");

    // A pipe that takes the place of a file; nobody ever writes into it.
    std::fs::write(&token, "first").unwrap();
    settings(&format!("http_token_file = '{}'", token.display()));
    let mut node = Node::start(&["--config", file.to_str().unwrap()]);
    std::fs::remove_file(&token).unwrap();
    fifo(&token);
    refused(&node, 1, "not a regular file");
    std::fs::remove_file(&token).unwrap();
    std::fs::write(&token, "first").unwrap();
    // So may the certificate's be, which a start does not take from one either.
    let key = folder.path().join("key.pem");
    fifo(&key);
    let more = format!("tls_certificate = '{0}'\ntls_key = '{0}'", key.display());
    settings(&format!("http_token_file = '{}'\n{more}", token.display()));
    refused(&node, 2, "not a regular file");
    let log = node.folder.path().join("node.log");
    // And the settings: the node goes on, and can be stopped while it waits for them.
    std::fs::remove_file(&file).unwrap();
    fifo(&file);
    node.signal("HUP");
    std::thread::sleep(READS_WITHIN);
    node.admin(&["topic", "list", "--http-token", "first"]).succeeded();
    ends_by("TERM", &mut node.child, &log);
}

#[test]
fn a_certificate_that_is_taken_out_with_none_to_use_instead_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("vouch.toml"), folder.path().join("token"));
    std::fs::write(&token, "first").unwrap();
    let other = Node::start(&[]);
    let pair = |name: &str| other.folder.path().join("data/tls").join(name);
    let settings = |more: &str| {
        std::fs::write(&file, format!("http_token_file = '{}'\n{more}\n", token.display())).unwrap();
    };
    let (certificate, key) = (pair("certificate.pem"), pair("key.pem"));
    let own = format!("tls_certificate = '{}'\ntls_key = '{}'", certificate.display(), key.display());
    settings(&own);
    let node = Node::start(&["--config", file.to_str().unwrap()]);
    let log = node.folder.path().join("node.log");
    settings("");
    std::fs::write(&token, "second").unwrap();
    node.signal("HUP");
    until("it is refused", &log, || read(&log).contains("nothing is reloaded"));
    let line = read(&log).lines().find(|line| line.contains("nothing is reloaded")).unwrap().to_owned();
    assert!(line.contains("restart the node") && line.contains("data/tls"), "{line}");
    node.admin(&["topic", "list", "--http-token", "first"]).succeeded();
    settings(&own);
    node.signal("HUP");
    until("it is reloaded", &log, || read(&log).contains("reloaded certificate and key"));
    node.admin(&["topic", "list", "--http-token", "second"]).succeeded();
}

/// A node that starts on a folder that a tool needs as it is: until the tool ends it waits.
struct Waiting {
    child: Child,
    log: PathBuf,
    http: String,
    tool: File,
    data: PathBuf,
    _folder: tempfile::TempDir,
}

impl Waiting {
    fn start(through: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, log) = (folder.path().join("data"), folder.path().join("node.log"));
        std::fs::create_dir(&data).unwrap();
        let tool = File::open(&data).unwrap();
        tool.lock_shared().unwrap();
        let serve = vouch();
        let mut command = match through {
            [] => vouch(),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(serve.get_program());
                serve.get_envs().for_each(|(name, value)| match value {
                    Some(value) => drop(command.env(name, value)),
                    None => drop(command.env_remove(name)),
                });
                command
            }
        };
        command.args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        command.args(["--segment-size", "4MiB", "--zero-ahead", "1MiB", "--data-dir"]).arg(&data);
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut waiting = Self { child, log, http: String::new(), tool, data, _folder: folder };
        let listens = |text: &str| text.lines().any(|line| line.contains("starting; ") && line.contains(" http="));
        until("it listens", &waiting.log, || listens(&read(&waiting.log)));
        until("it waits", &waiting.log, || read(&waiting.log).contains("waiting for process"));
        let text = read(&waiting.log);
        let (_, address) = text.lines().find_map(|line| line.split_once("starting; ")?.1.split_once(" http=")).unwrap();
        waiting.http = address.trim().to_owned();
        waiting
    }

    /// Ends by a signal to a process, soon and with status 0, and leaves nothing.
    fn ends_by(mut self, name: &str, pid: u32) {
        let began = Instant::now();
        signal(name, pid);
        let log = self.log.clone();
        until("it ends", &log, || self.child.try_wait().unwrap().is_some());
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", read(&log));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(read(&log).trim_end().ends_with("stopped"), "{}", read(&log));
        let left: Vec<_> = std::fs::read_dir(&self.data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_node_that_starts_answers_probes_and_reloads_and_ends_at_once() {
    for name in ["TERM", "INT"] {
        let waiting = Waiting::start(&[]);
        assert!(get(&waiting.http, "/healthz").starts_with("HTTP/1.1 200"), "{}", read(&waiting.log));
        let ready = get(&waiting.http, "/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("recovering: waiting for process"), "{ready}");
        assert!(get(&waiting.http, "/v1/topics").starts_with("HTTP/1.1 503"));
        assert!(!read(&waiting.log).contains(" ERROR "), "nothing failed: {}", read(&waiting.log));
        let id = waiting.child.id();
        ["USR1", "USR2", "HUP"].into_iter().for_each(|ignored| signal(ignored, id));
        until("it is reloaded", &waiting.log, || read(&waiting.log).contains("reloaded certificate"));
        waiting.ends_by(name, id);
    }
}

#[test]
fn a_node_that_was_told_to_reload_while_it_starts_serves_when_it_can() {
    let mut waiting = Waiting::start(&[]);
    signal("HUP", waiting.child.id());
    until("it is reloaded", &waiting.log, || read(&waiting.log).contains("reloaded certificate"));
    waiting.tool.unlock().unwrap();
    until("it is ready", &waiting.log, || get(&waiting.http, "/readyz").starts_with("HTTP/1.1 200"));
    let text = read(&waiting.log);
    assert!(waiting.child.try_wait().unwrap().is_none(), "{text}");
}

/// As in a container: the system drops every signal for process 1 that this does not listen for.
#[test]
fn process_1_ends_by_sigterm_and_sigint_while_it_starts_and_while_it_serves() {
    const NEW_PROCESSES: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child"];
    let may = Command::new(NEW_PROCESSES[0]).args(&NEW_PROCESSES[1..]).arg("true").output();
    if !may.is_ok_and(|ran| ran.status.success()) {
        // Only root may do that, and not in every container.
        return;
    }
    // The child of `unshare`, as it is called here.
    let process_1 = |unshare: u32| -> u32 {
        let children = read(format!("/proc/{unshare}/task/{unshare}/children").as_ref());
        children.split_whitespace().next().unwrap_or_else(|| panic!("{unshare} has no child")).parse().unwrap()
    };
    for name in ["TERM", "INT"] {
        let waiting = Waiting::start(&NEW_PROCESSES);
        let id = process_1(waiting.child.id());
        signal("USR1", id);
        waiting.ends_by(name, id);

        let mut serving = Waiting::start(&NEW_PROCESSES);
        serving.tool.unlock().unwrap();
        until("it is ready", &serving.log, || get(&serving.http, "/readyz").starts_with("HTTP/1.1 200"));
        signal("HUP", process_1(serving.child.id()));
        until("it is reloaded", &serving.log, || read(&serving.log).contains("reloaded certificate"));
        signal(name, process_1(serving.child.id()));
        let log = serving.log.clone();
        until("it ends", &log, || serving.child.try_wait().unwrap().is_some());
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{}", read(&log));
        assert!(!serving.data.join("endpoints.json").exists());
    }
}
