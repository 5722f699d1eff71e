//! Who comes to the cluster, who leaves it, and who leads.
//!
//! Each of these is done by the node that leads; any other one stores nothing and answers that it does not lead. What changes who
//! votes says who does when it is done: an operator who makes two of three sees that now nobody may be lost.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use vouch_broker::Refusal;
use vouch_node::{NodeId, majority_of};

use super::App;
use super::problem::Problem;
use super::request::{Params, PathNames, document, object};
use super::transactions::{BY_MAX_BYTES, REASON_MAX_BYTES};

/// How a node is to come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeToAdd {
    /// It votes as soon as it has the log, also where that makes the voters an even number.
    #[serde(default)]
    two_voters: bool,
    /// It takes the place of this node.
    #[serde(default)]
    replaces: Option<u64>,
    /// Who replaces it; kept in the log.
    #[serde(default)]
    by: Option<String>,
    /// Why; kept in the log.
    #[serde(default)]
    reason: Option<String>,
}

impl NodeToAdd {
    /// # Errors
    /// Something was given that would mean nothing, or is too long.
    fn check(&self) -> Result<(), Refusal> {
        let replaces = self.replaces.is_some();
        if self.two_voters && replaces {
            return Err(Refusal::Invalid(
                "a node that replaces another one votes if that one did; leave out \"two_voters\" or \"replaces\""
                    .to_owned(),
            ));
        }
        for (name, text, max) in [("by", &self.by, BY_MAX_BYTES), ("reason", &self.reason, REASON_MAX_BYTES)] {
            match text {
                Some(_) if !replaces => {
                    return Err(Refusal::Invalid(format!(
                        "\"{name}\" is kept where a node replaces another one; name that one as \"replaces\", or leave it out"
                    )));
                }
                Some(text) if text.len() > max => {
                    return Err(Refusal::Invalid(format!("\"{name}\" may have at most {max} bytes")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Who is to lead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeToLead {
    /// Absent: whoever has most of the log.
    #[serde(default)]
    node: Option<u64>,
}

/// Which majority there is when what was asked for is done: who votes then, and how many of those must be there.
///
/// That is a forecast: the node that leads takes one step after the other. Who adds a node hears of the cluster with all who are
/// invited; who removes one counts on nobody who has yet to come.
fn majority(app: &App, all_come: bool) -> (Vec<u64>, usize) {
    let voters: Vec<u64> = app.node.cluster.voters_then(all_come).into_iter().map(|node| node.0).collect();
    let majority = majority_of(voters.len());
    (voters, majority)
}

/// `POST /v1/cluster/nodes`: an id and a token for a node that is to come. The answer is the only place where the token's secret
/// stands: the log has its digest.
///
/// # Errors
/// This node has no address for others, or the cluster has too many; or the node that is to be replaced cannot be.
pub(crate) async fn add(State(app): State<Arc<App>>, body: Bytes) -> Result<(StatusCode, Json<Value>), Problem> {
    let to_add: NodeToAdd = document(object(&body)?)?;
    to_add.check()?;
    let NodeToAdd { two_voters, replaces, by, reason } = to_add;
    let token = match replaces {
        None => app.node.cluster.add(two_voters).await?,
        Some(old) => {
            let (by, reason) = (by.unwrap_or_default(), reason.unwrap_or_default());
            app.node.cluster.replace(NodeId(old), &by, &reason).await?
        }
    };
    let join = app.node.cluster.status().await?.mine.map(|mine| mine.peer);
    let (voters, majority) = majority(&app, true);
    let mut added = json!({
        "node": token.node().0,
        "token": token.document(),
        "join": join,
        "tls": app.node.cluster.is_secured().unwrap_or_default(),
        "voters": voters,
        "majority": majority,
    });
    if let Some(old) = replaces {
        added["replaces"] = old.into();
    }
    Ok((StatusCode::CREATED, Json(added)))
}

/// `DELETE /v1/cluster/nodes/{id}`: it belongs to the cluster no more. That is answered when it is decided; the node is gone from
/// `GET /v1/cluster` when nobody counts on it, which may take a hand-over and two changes of the members.
///
/// # Errors
/// There is no such node, it is the last that votes, or those who are left could decide nothing and nobody forces it.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathNames(id): PathNames<u64>,
    params: Params,
) -> Result<Json<Value>, Problem> {
    let on_record = |name, max| {
        let read = params.read(name, |text| match text {
            long if long.len() > max => Err(format!("it may have at most {max} bytes")),
            text => Ok(text.to_owned()),
        });
        read.map(Option::unwrap_or_default)
    };
    let (by, reason) = (on_record("by", BY_MAX_BYTES)?, on_record("reason", REASON_MAX_BYTES)?);
    match params.switch("force")? {
        true => app.node.cluster.remove_by_force(NodeId(id), &by, &reason).await?,
        false => app.node.cluster.remove(NodeId(id), &by, &reason).await?,
    }
    let (voters, majority) = majority(&app, false);
    Ok(Json(json!({"node": id, "voters": voters, "majority": majority})))
}

/// Who says that an upgrade is finished.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeToFinish {
    /// Kept in the log.
    #[serde(default)]
    by: String,
}

/// `POST /v1/cluster/finish-upgrade`: from now on the cluster uses all that its nodes know, and no node goes back to the version before.
///
/// # Errors
/// A node is not there or runs an earlier version, or there is nothing that all know and the cluster does not.
pub(crate) async fn finish_upgrade(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let UpgradeToFinish { by } = document(object(&body)?)?;
    if by.len() > BY_MAX_BYTES {
        return Err(Refusal::Invalid(format!("\"by\" may have at most {BY_MAX_BYTES} bytes")).into());
    }
    let finished = app.node.cluster.finish_upgrade(&by).await?;
    Ok(Json(json!({"feature_level": finished.to, "was": finished.from})))
}

/// `POST /v1/cluster/leader`: another node leads, when this is answered.
///
/// # Errors
/// It does not vote, is not there, or did not take over.
pub(crate) async fn lead(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let NodeToLead { node } = document(object(&body)?)?;
    let to = match node {
        Some(node) => NodeId(node),
        None => app.node.cluster.successor().await?,
    };
    app.node.cluster.transfer_leader(to).await?;
    Ok(Json(json!({"leader": to.0})))
}
