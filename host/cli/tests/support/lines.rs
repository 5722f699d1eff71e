//! The lines of a node's log that are documents.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Node, read};

/// Lines about single calls, without those of the libraries.
pub(crate) const LEVEL: &str = "info,vouch_gateway=debug,vouch_node=debug,vouch_shard=debug";

pub(crate) fn log(node: &Node) -> String {
    read(&node.folder.path().join("node.log"))
}

/// The lines of a log of documents.
pub(crate) fn lines(node: &Node) -> Vec<Value> {
    // The last one may be half written.
    let (text, whole) = (log(node), |line: &&str| line.ends_with('\n'));
    text.split_inclusive('\n').filter(whole).map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The first line with this message for which `holds`.
pub(crate) fn line(node: &Node, message: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        let lines = lines(node);
        if let Some(line) = lines.into_iter().find(|line| line["fields"]["message"] == message && holds(line)) {
            return line;
        }
        assert!(Instant::now() < give_up_at, "no line {message:?} that is wanted: {}", log(node));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last line of a call, if it was answered.
pub(crate) fn answered(node: &Node, method: &str, holds: impl Fn(&Value) -> bool) -> Value {
    line(node, "answered", |line| line["span"]["name"] == method && holds(line))
}
