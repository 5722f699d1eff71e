//! Nodes of one cluster, each a process with a folder of its own.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Ran, read, vouch};

/// What takes longer is never.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The settings of a node that has others, and no TLS.
pub(crate) const INSECURE: [&str; 3] = ["--peer-addr", "127.0.0.1:0", "--peer-insecure"];

/// A process that serves a folder; killed when dropped.
pub(crate) struct Member {
    pub(crate) folder: PathBuf,
    child: Child,
    endpoints: Value,
}

impl Member {
    /// Starts a node in a folder, and waits until it serves.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Self {
        Self::start_program(vouch(), folder, flags)
    }

    /// The same of another program than the one under test.
    pub(crate) fn start_program(program: Command, folder: &Path, flags: &[&str]) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let child = Self::command(program, folder, flags).stderr(Self::log(folder)).spawn().unwrap();
        let mut member = Self { folder: folder.to_owned(), child, endpoints: Value::Null };
        until("the node serves", || {
            let ended = member.child.try_wait().unwrap();
            assert!(ended.is_none(), "the node ended: {}", read(&member.folder.join("node.log")));
            let text = std::fs::read(member.folder.join("data/endpoints.json")).unwrap_or_default();
            let endpoints: Value = serde_json::from_slice(&text).unwrap_or_default();
            let is_its_own = endpoints["pid"] == member.child.id();
            member.endpoints = endpoints;
            is_its_own
        });
        member
    }

    /// Starts a node that is to be refused.
    pub(crate) fn refused(folder: &Path, flags: &[&str]) -> Ran {
        Self::refused_program(vouch(), folder, flags)
    }

    /// The same of another program.
    pub(crate) fn refused_program(program: Command, folder: &Path, flags: &[&str]) -> Ran {
        std::fs::create_dir_all(folder).unwrap();
        Ran::of(&Self::command(program, folder, flags).output().unwrap())
    }

    fn command(mut vouch: Command, folder: &Path, flags: &[&str]) -> Command {
        vouch
            .args([
                "serve",
                "--grpc-addr",
                "127.0.0.1:0",
                "--http-addr",
                "127.0.0.1:0",
                "--zero-ahead",
                "1MiB",
                "--data-dir",
            ])
            .arg(folder.join("data"))
            .args(flags);
        if !flags.contains(&"--snapshot-every") {
            vouch.args(["--snapshot-every", "32MiB"]);
        }
        vouch
    }

    fn log(folder: &Path) -> File {
        OpenOptions::new().create(true).append(true).open(folder.join("node.log")).unwrap()
    }

    /// Where it is: `grpc`, `http` or `peer`.
    pub(crate) fn at(&self, port: &str) -> &str {
        self.endpoints[port].as_str().unwrap_or_else(|| panic!("no {port} in {}", self.endpoints))
    }

    /// Whether `endpoints.json` names such a port.
    pub(crate) fn has(&self, port: &str) -> bool {
        self.endpoints[port].is_string()
    }

    /// Runs a command against its HTTP API.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Ran {
        Ran::of(&vouch().args(arguments).args(["--http", self.at("http")]).output().unwrap())
    }

    /// Runs a command against its gRPC service.
    pub(crate) fn client(&self, arguments: &[&str]) -> Ran {
        Ran::of(&vouch().args(arguments).args(["--grpc", self.at("grpc")]).output().unwrap())
    }

    /// What it knows of the cluster.
    pub(crate) fn status(&self) -> Value {
        self.admin(&["cluster", "status", "--json"]).succeeded().json()
    }

    /// What it knows of a node.
    pub(crate) fn knows_of(&self, node: u64) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|known| known["id"] == node).cloned().unwrap_or_default()
    }

    /// An answer of its HTTP API, with its status.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("http://{}{path}", self.at("http"))).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Lets it end well.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", read(&self.folder.join("node.log")));
    }

    /// Waits until it ends by itself, and well; what it wrote to its log.
    pub(crate) fn ends(mut self) -> String {
        until("it ends", || self.child.try_wait().unwrap().is_some());
        let log = read(&self.folder.join("node.log"));
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{log}");
        log
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node alone, with a topic and three messages, started again so that others can come.
pub(crate) fn first(folder: &Path) -> Member {
    let alone = Member::start(folder, &["--segment-size", "4MiB"]);
    alone.admin(&["topic", "create", "t", "--queues", "1"]).succeeded();
    for body in ["m1", "m2", "m3"] {
        alone.client(&["message", "send", "t", "--body", body]).succeeded();
    }
    assert!(!alone.has("peer"), "who has no others listens to nobody");
    alone.stop();
    Member::start(folder, &INSECURE)
}

/// Adds a node by whoever leads, and lets it join by another one.
pub(crate) fn join(leader: &Member, by: &Member, folder: &Path, more: &[&str]) -> Member {
    let token = folder.with_extension("token");
    let token = token.to_str().unwrap();
    leader.admin(&[&["cluster", "add", "--token-file", token], more].concat()).succeeded();
    Member::start(folder, &[&INSECURE[..], &["--join", by.at("peer"), "--token-file", token]].concat())
}

/// Waits until all of these know that those vote.
pub(crate) fn voters_are(members: &[&Member], voters: &[u64]) {
    until("all know who votes", || members.iter().all(|member| member.status()["voters"] == json!(voters)));
}

/// Nodes 1, 2 and 3 vote; node 1 leads.
pub(crate) fn three(folder: &Path) -> [Member; 3] {
    let one = first(&folder.join("1"));
    let two = join(&one, &one, &folder.join("2"), &[]);
    let three = join(&one, &two, &folder.join("3"), &[]);
    voters_are(&[&one, &two, &three], &[1, 2, 3]);
    [one, two, three]
}

/// Bodies that a new group receives from whoever leads.
pub(crate) fn bodies(leader: &Member, group: &str, count: &str) -> Vec<String> {
    leader.admin(&["group", "create", group]);
    let receive = ["message", "receive", "t", "--group", group, "--count", count, "--wait", "20s"];
    let received = leader.client(&receive).succeeded().stdout;
    let mut bodies: Vec<String> =
        received.split_whitespace().filter(|word| word.starts_with('m')).map(str::to_owned).collect();
    bodies.sort();
    bodies.dedup();
    bodies
}
