//! The nodes that are the broker: one alone, or several of one cluster. Who leads is asked, and never assumed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::child::{ChildStart, Server};
use crate::http::HttpClient;

/// What every node is started with. The system chooses the ports; a small log is enough for some orders and sixty sales, and
/// quicker to make than the default.
const FLAGS: [&str; 10] = [
    "serve",
    "--stop-with-parent",
    "--grpc-addr",
    "127.0.0.1:0",
    "--http-addr",
    "127.0.0.1:0",
    "--segment-size",
    "16MiB",
    "--zero-ahead",
    "1MiB",
];
/// And one that has others. They are all on this machine, so nothing between them is encrypted.
const WITH_OTHERS: [&str; 3] = ["--peer-addr", "127.0.0.1:0", "--peer-insecure"];

/// All nodes, dead ones included.
pub(super) struct DemoNodes {
    /// Each node has a folder in it.
    folder: PathBuf,
    /// Whether others may join.
    several: bool,
    all: Vec<DemoNode>,
}

/// A node, as it runs or ran last.
pub(super) struct DemoNode {
    /// Under this number its cluster knows it.
    pub(super) id: u64,
    /// What the transcript calls it.
    pub(super) name: String,
    /// Asks it.
    pub(super) http: HttpClient,
    pub(super) http_address: String,
    pub(super) grpc_address: String,
    folder: PathBuf,
    server: Server,
    is_dead: bool,
}

/// What a node that leads says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DemoLeader {
    /// Which of the nodes it is.
    pub(super) at: usize,
    /// Since which election.
    pub(super) term: u64,
    /// The position after the last entry of its log, in bytes.
    pub(super) log_end: u64,
}

impl DemoNodes {
    /// Starts the first node, below `folder`; `several`: others will come.
    pub(super) fn start(folder: &Path, several: bool) -> anyhow::Result<Self> {
        let mut nodes = Self { folder: folder.to_owned(), several, all: Vec::new() };
        nodes.begin(&[])?;
        Ok(nodes)
    }

    /// Starts one more, which joins by the first with the token in this file. Returns which it is.
    pub(super) fn join(&mut self, token_file: &Path) -> anyhow::Result<&DemoNode> {
        let by = self.all[0].server.endpoints.peer.context("the first node listens to no others")?;
        self.begin(&["--join".into(), by.to_string().into(), "--token-file".into(), token_file.into()])
    }

    /// Starts one in a folder of its own.
    fn begin(&mut self, joins: &[OsString]) -> anyhow::Result<&DemoNode> {
        let number = self.all.len() + 1;
        let folder = self.folder.join(if self.several { format!("node-{number}") } else { "broker".to_owned() });
        let server = self.serve(&folder, joins)?;
        self.all.push(DemoNode::of(self.several, folder, server)?);
        Ok(&self.all[number - 1])
    }

    /// A process that serves this folder.
    fn serve(&self, folder: &Path, joins: &[OsString]) -> anyhow::Result<Server> {
        let with_others: &[&str] = if self.several { &WITH_OTHERS } else { &[] };
        let mut arguments: Vec<OsString> = FLAGS.iter().chain(with_others).map(Into::into).collect();
        arguments.extend(["--data-dir".into(), folder.into()]);
        arguments.extend_from_slice(joins);
        Server::start(ChildStart { name: "the node", arguments, folder, environment: &[] })
    }

    /// Whether the broker is a cluster.
    pub(super) fn are_several(&self) -> bool {
        self.several
    }

    /// One of them.
    pub(super) fn node(&self, at: usize) -> &DemoNode {
        &self.all[at]
    }

    /// All of them, in the order in which they came.
    pub(super) fn all(&self) -> &[DemoNode] {
        &self.all
    }

    /// The one that is dead, if one is.
    pub(super) fn dead(&self) -> Option<usize> {
        self.all.iter().position(|node| node.is_dead)
    }

    /// Which leads, says that node itself; `None` while none does. Of two that say so the one of the later election is right.
    pub(super) fn leader(&self) -> Option<DemoLeader> {
        let living = self.all.iter().enumerate().filter(|(_, node)| !node.is_dead);
        living.filter_map(|(at, node)| leads(at, &node.standing()?)).max_by_key(|leader| leader.term)
    }

    /// A text that names nodes by the addresses of their gRPC services, with what the transcript calls them instead.
    pub(super) fn named(&self, text: &str) -> String {
        self.all.iter().fold(text.to_owned(), |text, node| text.replace(&node.grpc_address, &node.name))
    }

    /// Kills it like a crash would.
    pub(super) fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        self.all[at].is_dead = true;
        self.all[at].server.kill()
    }

    /// Starts it again, on the folder that it had. The system gives it other ports.
    pub(super) fn restart(&mut self, at: usize) -> anyhow::Result<()> {
        let folder = self.all[at].folder.clone();
        let server = self.serve(&folder, &[])?;
        self.all[at] = DemoNode::of(self.several, folder, server)?;
        Ok(())
    }

    /// Stops all; each must end by itself and well.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.all.into_iter().try_for_each(|node| node.server.stop())
    }

    /// The end of what each wrote in its log.
    pub(super) fn last_words(&self) -> String {
        let said = |node: &DemoNode| format!("{}:\n{}", node.name, node.server.last_messages());
        self.all.iter().map(said).collect::<Vec<_>>().join("\n")
    }
}

impl DemoNode {
    /// One that serves; `several`: it is not alone.
    fn of(several: bool, folder: PathBuf, server: Server) -> anyhow::Result<Self> {
        let (http_address, grpc_address) = (server.http()?, server.grpc()?);
        let http = HttpClient::new(&http_address, None)?;
        let id = http.get("/v1/cluster")?.body["node"].as_u64().context("a node does not say which it is")?;
        let name = if several { format!("node {id}") } else { "broker".to_owned() };
        Ok(Self { id, name, http, http_address, grpc_address, folder, server, is_dead: false })
    }

    /// What it knows of the cluster; `None`: it does not answer.
    pub(super) fn standing(&self) -> Option<Value> {
        Some(self.http.get("/v1/cluster").ok()?.body)
    }
}

/// What a node says of another one, or of itself.
pub(super) fn knows_of(standing: &Value, node: u64) -> Option<&Value> {
    standing["nodes"].as_array()?.iter().find(|known| known["id"] == node)
}

/// The answer of a node that says that it leads itself.
fn leads(at: usize, standing: &Value) -> Option<DemoLeader> {
    let itself = standing["node"].as_u64()?;
    let log_end = knows_of(standing, itself)?["appended"].as_u64()?;
    let term = standing["term"].as_u64()?;
    (standing["leader"] == itself).then_some(DemoLeader { at, term, log_end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_who_says_it_of_itself_leads() {
        let standing = |leader: Value| {
            let nodes = json!([{"id": 1, "appended": 7}, {"id": 2, "appended": 9}]);
            json!({"node": 2, "leader": leader, "term": 3, "nodes": nodes})
        };
        assert_eq!(leads(1, &standing(json!(2))), Some(DemoLeader { at: 1, term: 3, log_end: 9 }));
        assert_eq!(leads(1, &standing(json!(1))), None, "another one, which may be dead");
        assert_eq!(leads(1, &standing(Value::Null)), None);
        assert_eq!(leads(1, &json!({})), None, "what a node alone does not say");
    }
}
