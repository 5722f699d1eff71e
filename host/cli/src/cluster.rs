//! `vouch cluster`: how the nodes of a cluster are, who comes and who goes, who leads, and by what they know each other.
//!
//! Whoever comes is named by the cluster: it gives an id and a token, and the new node joins with these. Nobody chooses an id,
//! and none is used twice.

mod add;
mod certificates;
mod recover;
mod status;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::http::{HttpArgs, query};
use crate::resource;
use certificates::CertificatesArgs;
use recover::RecoverArgs;

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the nodes: what each is, how far its log is, and whether it answers.
    #[command(after_help = "\
Examples:
  vouch cluster status
  vouch cluster status --http 10.0.0.2:8080 --json

Only the node that leads knows how far the others are. Any other one tells what it knows, and who leads.")]
    Status(HttpArgs),
    /// Give an id and a token to a node that is to come, and say how to start it.
    #[command(after_help = "\
Examples:
  vouch cluster add --token-file node.token
  vouch cluster add --token-file node.token --two-voters

The file is readable by its owner alone. Whoever has it may come in the node's place: it is good once, and for a day.

A second node gets the log and does not vote until a third one is there: of two voters neither may be lost. With \
--two-voters it votes as soon as it has the log.")]
    Add {
        /// Where the token goes; a file that is not there yet.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// Let the node vote as soon as it has the log, also where that makes the voters an even number.
        #[arg(long)]
        two_voters: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Remove a node for good; refused where those who are left could decide nothing.
    #[command(after_help = "\
Examples:
  vouch cluster remove 3 --reason 'its disk is gone'
  vouch cluster remove 3 --force

The node need not be there. If it leads, another one leads first. Its id is never used again: a machine comes back as \
a new node, with an empty folder and a token.")]
    Remove {
        /// Id of the node.
        #[arg(value_name = "NODE")]
        node: u64,
        /// Who does it; the login name if absent.
        #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
        by: String,
        /// Why; kept in the log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Also where those who are left could decide nothing until more of them are there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let a new node take the place of another one, in one step: give it an id and a token, and say how to start it.
    #[command(after_help = "\
Examples:
  vouch cluster replace 2 --token-file node.token
  vouch cluster replace 2 --token-file node.token --reason 'its disk is gone'

The old node may run, or be gone for good: it belongs to the cluster until the new one has the log, and leaves in the \
change in which that one comes. There is nothing to wait for and nothing to remove. If it leads, another one leads first. \
Take it back with: vouch cluster remove, of the new node.")]
    Replace {
        /// Id of the node that is to go.
        #[arg(value_name = "NODE")]
        node: u64,
        /// Where the token for the new node goes; a file that is not there yet.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// Who does it; the login name if absent.
        #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
        by: String,
        /// Why; kept in the log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let another node lead, for example before this one is stopped.
    #[command(after_help = "\
Examples:
  vouch cluster transfer-leader
  vouch cluster transfer-leader --to 2

Ends when that node leads. Without --to it is the one that has most of the log.")]
    TransferLeader {
        /// Id of the node that is to lead.
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let the cluster use what its new version brings, when all nodes run it and none is to go back.
    #[command(after_help = "\
Examples:
  vouch cluster finish-upgrade

Until then every node may go back to the version before. Refused where a node is not there, or runs a version that could \
not read the log any more.")]
    FinishUpgrade {
        /// Who does it; the login name if absent.
        #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
        by: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Make the certificate by which the other nodes know a node, and the authority if there is none yet.
    // With [OPTIONS] it would be longer than a narrow screen is wide.
    #[command(override_usage = "vouch cluster certificates --ca-dir <DIR> --node <N> --address <HOSTS>")]
    #[command(after_help = "\
Examples:
  vouch cluster certificates --ca-dir ca --node 1 --address b1.example,10.0.0.1
  vouch cluster certificates --ca-dir ca --node 2 --address 10.0.0.2 \\
      --cluster 00112233445566778899aabbccddeeff

The authority's key stays in its folder, and no node needs it: whoever has it can be any node. Every file is readable \
by its owner alone. Without --cluster a running node is asked which cluster it is.")]
    Certificates(CertificatesArgs),
    /// Let what is left of a cluster go on as one node, when a majority of it is lost for good.
    #[command(after_help = "\
Examples:
  vouch cluster recover --data-dir /var/lib/vouch
  vouch cluster recover --data-dir /var/lib/vouch --yes

Works on the folder of a node that does not run, says what may be missing, and asks. Everything that its log holds is \
kept. The other nodes can never belong to it again: others join it with tokens and empty folders. Where a majority is \
only down, start it instead: nothing is lost then.")]
    Recover(RecoverArgs),
}

impl ClusterCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Status(http)
            | Self::Add { http, .. }
            | Self::Remove { http, .. }
            | Self::Replace { http, .. }
            | Self::FinishUpgrade { http, .. }
            | Self::TransferLeader { http, .. } => http.json,
            Self::Certificates(args) => args.json(),
            Self::Recover(args) => args.json,
        }
    }
}

/// Runs `vouch cluster`.
pub(crate) fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Status(http) => status::show(&http),
        ClusterCommand::Add { token_file, two_voters, http } => {
            add::add(&token_file, &json!({"two_voters": two_voters}), &http)
        }
        ClusterCommand::Replace { node, token_file, by, reason, http } => {
            add::add(&token_file, &json!({"replaces": node, "by": by, "reason": reason}), &http)
        }
        ClusterCommand::Remove { node, by, reason, force, http } => {
            let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
            let suffix = query(&[("force", force.then_some("true")), ("by", Some(&by)), ("reason", reason)]);
            let answer = http.client()?.delete(&format!("/v1/cluster/nodes/{node}{suffix}"))?;
            let left = majority(&answer.body);
            resource::report(&http, &answer.body, format!("node {node} leaves the cluster; {left} without it"))
        }
        ClusterCommand::TransferLeader { to, http } => {
            let body = to.map_or_else(|| json!({}), |node| json!({"node": node}));
            let answer = http.client()?.post("/v1/cluster/leader", &body)?;
            let leads = format!("node {} leads", answer.body["leader"]);
            resource::report(&http, &answer.body, leads)
        }
        ClusterCommand::FinishUpgrade { by, http } => {
            let answer = http.client()?.post("/v1/cluster/finish-upgrade", &json!({"by": by}))?;
            let (to, from) = (&answer.body["feature_level"], &answer.body["was"]);
            let raised = format!("the cluster is at feature level {to}, and was at {from}");
            resource::report(&http, &answer.body, raised)
        }
        ClusterCommand::Certificates(args) => certificates::make(&args),
        ClusterCommand::Recover(args) => recover::recover(&args),
    }
}

/// Who decides, of an answer that says who votes and how many of them must be there.
fn majority(answer: &Value) -> String {
    let voters: Vec<u64> = answer["voters"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let needed = answer["majority"].as_u64().unwrap_or_default();
    decide(&voters, needed)
}

/// The same of these voters.
fn decide(voters: &[u64], needed: u64) -> String {
    match voters {
        [] => "nobody decides".to_owned(),
        [one] => format!("node {one} alone decides"),
        several => {
            format!("{needed} of the {} voters ({}) must be there to decide", several.len(), ids(several))
        }
    }
}

/// Ids as people read them.
fn ids(nodes: &[u64]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::FakeNode;

    #[test]
    fn what_decides_is_told_in_a_sentence() {
        let told = |voters: &[u64], needed: u64| majority(&json!({"voters": voters, "majority": needed}));
        assert_eq!(told(&[1], 1), "node 1 alone decides");
        assert_eq!(told(&[1, 2, 4], 2), "2 of the 3 voters (1, 2, 4) must be there to decide");
    }

    #[test]
    fn a_removal_a_transfer_and_the_end_of_an_upgrade_say_what_was_given() {
        let node = FakeNode::answering(&[
            ("200 OK", r#"{"node":3,"voters":[1,2],"majority":2}"#),
            ("200 OK", r#"{"leader":2}"#),
            ("200 OK", r#"{"leader":3}"#),
            ("200 OK", r#"{"feature_level":2,"was":1}"#),
        ]);
        let remove = ClusterCommand::Remove {
            node: 3,
            by: "ann".to_owned(),
            reason: "old disk".to_owned(),
            force: true,
            http: node.args(false),
        };
        run(remove).unwrap();
        run(ClusterCommand::TransferLeader { to: None, http: node.args(false) }).unwrap();
        run(ClusterCommand::TransferLeader { to: Some(3), http: node.args(true) }).unwrap();
        run(ClusterCommand::FinishUpgrade { by: "ann".to_owned(), http: node.args(false) }).unwrap();
        let asked = node.asked();
        assert_eq!(
            (asked[3].line.as_str(), asked[3].body.as_str()),
            ("POST /v1/cluster/finish-upgrade", r#"{"by":"ann"}"#)
        );
        assert_eq!(asked[0].line, "DELETE /v1/cluster/nodes/3?force=true&by=ann&reason=old%20disk");
        assert_eq!((asked[1].line.as_str(), asked[1].body.as_str()), ("POST /v1/cluster/leader", "{}"));
        assert_eq!(asked[2].body, r#"{"node":3}"#);
    }

    #[test]
    fn a_replacement_says_who_is_replaced_by_whom_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let token = json!({
            "version": 1, "cluster": "ab".repeat(16), "node": 4, "segment_size": 4_194_304, "secret": "07".repeat(32),
        });
        let added = json!({"node": 4, "replaces": 2, "token": token, "voters": [1, 3, 4], "majority": 2});
        let node = FakeNode::answering(&[("201 Created", &added.to_string())]);
        let token_file = folder.path().join("node4.token");
        let (by, reason) = ("ann".to_owned(), "old disk".to_owned());
        run(ClusterCommand::Replace { node: 2, token_file, by, reason, http: node.args(true) }).unwrap();
        let asked = node.asked();
        assert_eq!(asked[0].line, "POST /v1/cluster/nodes");
        let body: Value = serde_json::from_str(&asked[0].body).unwrap();
        assert_eq!(body, json!({"replaces": 2, "by": "ann", "reason": "old disk"}));
    }
}
