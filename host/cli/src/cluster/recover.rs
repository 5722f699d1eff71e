//! `vouch cluster recover`: what is left of a cluster goes on as one node, when a majority of it is lost for good.
//!
//! It says first what may be missing, since nobody else knows: what the lost nodes acknowledged, and this one never got, is in no log
//! any more.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};
use vouch_storage::{ClusterRemains, HeldRemains};

use super::ids;
use crate::config::DATA_DIR;
use crate::failure::WrongUsage;
use crate::output;

/// Which folder goes on.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Data folder of a node that is left, and does not run.
    #[arg(long, env = "VOUCH_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs `vouch cluster recover`.
///
/// # Errors
/// A node runs on the folder, nothing of its cluster is missing, or its log is damaged: nothing is changed. [`WrongUsage`]: nobody can
/// be asked, and `--yes` is missing. Somebody was asked, and said no.
pub(crate) fn recover(args: &RecoverArgs) -> anyhow::Result<()> {
    let RecoverArgs { data_dir, yes, json } = args;
    let remains = HeldRemains::look(data_dir)?;
    for line in told(&remains.found) {
        output::note(line)?;
    }
    if !yes {
        confirm()?;
    }
    let done = remains.begin_anew()?;
    if *json {
        return Ok(output::json(&document(&done))?);
    }
    let (node, data_dir) = (done.new_node, data_dir.display());
    output::line(format_args!("this folder is that of node {node} now, with which the cluster begins anew"))?;
    output::line(format_args!("start it with: vouch serve --data-dir {data_dir}"))?;
    output::note(
        "others are added with: vouch cluster add; machines of former nodes come back with an empty folder and a token",
    )?;
    Ok(output::note(format_args!(
        "where nodes know each other by certificates it needs its own first: vouch cluster certificates --node {node} --cluster {}",
        done.cluster_id
    ))?)
}

/// Lets a person decide.
///
/// # Errors
/// There is nobody to ask, or the answer is no.
fn confirm() -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(WrongUsage::error("nobody can be asked here; say that this is meant with --yes"));
    }
    let mut said = std::io::stderr();
    write!(said, "Go on? The nodes that are left out can never belong to it again. Type yes: ")?;
    said.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { anyhow::bail!("nothing was changed") }
}

/// What is there, and what may be missing, in lines.
fn told(found: &ClusterRemains) -> Vec<String> {
    let ClusterRemains { cluster_id, node, others, term, committed_to, log_end, undecided, newest_record_ms, .. } =
        found;
    let others: Vec<u64> = others.iter().map(|other| other.0).collect();
    let newest = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(*newest_record_ms));
    let mut lines = vec![
        format!(
            "node {node} of cluster {cluster_id}, last in term {term}; its log ends at position {log_end}, the newest record is of {newest}"
        ),
        format!("left out: nodes {}. One of them that still runs goes on without this one: stop it", ids(&others)),
    ];
    lines.push(match undecided {
        0 => format!("all of its log was known to be committed, up to position {committed_to}, and is kept"),
        1 => format!("it was known to be committed up to position {committed_to}; 1 entry behind that may have been acknowledged, and is kept"),
        more => format!(
            "it was known to be committed up to position {committed_to}; {more} entries behind that may have been acknowledged, and are kept"
        ),
    });
    lines.push(
        "what the others acknowledged and this node did not have yet is lost, and nothing here tells how much that is: use the folder \
         whose log ends last"
            .to_owned(),
    );
    lines
}

/// The same for scripts. Positions are in bytes.
fn document(done: &ClusterRemains) -> Value {
    let others: Vec<u64> = done.others.iter().map(|other| other.0).collect();
    json!({
        "cluster_id": done.cluster_id,
        "former_node": done.node.0,
        "left_out": others,
        "term": done.term,
        "committed_to": done.committed_to.0,
        "log_end": done.log_end.0,
        "undecided_entries": done.undecided,
        "node": done.new_node.0,
        "incarnation": done.incarnation.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use vouch_commitlog::LogPosition;
    use vouch_storage::{ClusterIncarnation, NodeId};

    use super::*;

    #[test]
    fn what_may_be_missing_is_told_before_anything_is_changed() {
        let found = ClusterRemains {
            cluster_id: "00ff".to_owned(),
            node: NodeId(2),
            others: [1, 3].map(NodeId).to_vec(),
            term: 7,
            committed_to: LogPosition(4096),
            log_end: LogPosition(8192),
            undecided: 2,
            newest_record_ms: 1_700_000_000_007,
            new_node: NodeId(4),
            incarnation: ClusterIncarnation(0xab),
        };
        let lines = told(&found).join("\n");
        for part in [
            "node 2 of cluster 00ff, last in term 7",
            "position 8192",
            "nodes 1, 3",
            "position 4096; 2 entries",
            "is lost",
        ] {
            assert!(lines.contains(part), "{part}: {lines}");
        }
        let alone = ClusterRemains { undecided: 0, ..found.clone() };
        assert!(told(&alone)[2].contains("all of its log was known"));
        let document = document(&found);
        assert_eq!((&document["node"], &document["left_out"]), (&json!(4), &json!([1, 3])));
        assert_eq!(document["incarnation"], "000000AB");
    }
}
