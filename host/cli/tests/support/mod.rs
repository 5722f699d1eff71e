//! The real binary, and a node of it in a folder of its own.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod cluster;
pub(crate) mod lines;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// `vouch` with nothing of this environment's settings.
pub(crate) fn vouch() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_vouch")))
}

/// The same, after the shell has set a limit.
pub(crate) fn vouch_within(limit: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{limit} && exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_vouch"));
    clean(command)
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VOUCH_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().expect("the command was not killed"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }

    pub(crate) fn failed_with(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// Runs `vouch` to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    Ran::of(&vouch().args(arguments).output().unwrap())
}

/// A running `vouch serve`; killed when dropped.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) child: Child,
    pub(crate) grpc: String,
    pub(crate) http: String,
}

impl Node {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), flags)
    }

    pub(crate) fn start_in(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        Self::spawn(vouch(), folder, flags)
    }

    /// Under a limit that the shell sets.
    pub(crate) fn start_within(limit: &str, flags: &[&str]) -> Self {
        Self::spawn(vouch_within(limit), tempfile::tempdir().unwrap(), flags)
    }

    fn spawn(mut vouch: Command, folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let log = std::fs::File::create(folder.path().join("node.log")).unwrap();
        // Little is set aside for snapshots, which is a quarter gigabyte by itself, unless the test is about them.
        let seldom: &[&str] = if flags.contains(&"--snapshot-every") { &[] } else { &["--snapshot-every", "32MiB"] };
        let child = vouch
            .args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
            .args(["--segment-size", "4MiB", "--zero-ahead", "1MiB", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(flags)
            .args(seldom)
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self { folder, child, grpc: String::new(), http: String::new() };
        let endpoints = node.wait_until_ready();
        node.grpc = endpoints["grpc"].as_str().unwrap().to_owned();
        node.http = endpoints["http"].as_str().unwrap().to_owned();
        node
    }

    pub(crate) fn endpoints_file(&self) -> std::path::PathBuf {
        self.folder.path().join("data").join("endpoints.json")
    }

    fn wait_until_ready(&mut self) -> Value {
        let give_up_at = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(text) = std::fs::read(self.endpoints_file()) {
                let endpoints: Value = serde_json::from_slice(&text).expect("the file is never seen half written");
                if endpoints["pid"] == self.child.id() {
                    return endpoints;
                }
            }
            let log = || read(&self.folder.path().join("node.log"));
            assert!(self.child.try_wait().unwrap().is_none(), "the node ended: {}", log());
            assert!(Instant::now() < give_up_at, "not ready: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a command against this node's HTTP API.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Ran {
        Ran::of(&vouch().args(arguments).args(["--http", &self.http]).output().unwrap())
    }

    /// Runs a command against this node's gRPC service.
    pub(crate) fn client(&self, arguments: &[&str]) -> Ran {
        Ran::of(&vouch().args(arguments).args(["--grpc", &self.grpc]).output().unwrap())
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file as text, empty if it is not there.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
