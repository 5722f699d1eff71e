//! What groups have and topics have not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};
use vouch_broker::{NotDone, ResourceName};
use vouch_node::{GapView, Node};

use super::App;
use super::answer;
use super::problem::Problem;
use super::request::PathNames;
use vouch_broker::QueueOffset;

/// `DELETE /v1/groups/{group}`: the group and its progress are gone.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<StatusCode, Problem> {
    app.node.settings.delete_group(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is told of a group beside its settings: the binding whose component consumes for it, if one does.
pub(super) async fn told(node: &Node, name: &ResourceName) -> Result<Map<String, Value>, NotDone> {
    let binding = node.components.binding_of_group(name).await?;
    Ok(binding.into_iter().map(|binding| ("binding".to_owned(), binding.into())).collect())
}

/// `GET /v1/groups/{group}/progress`: lag, in flight and ready, of each topic that the group received from.
pub(crate) async fn progress(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<Json<Map<String, Value>>, Problem> {
    let topics = app.node.settings.progress(&name).await?;
    let mut document = told(&app.node, &ResourceName::parse(&name)).await?;
    document.insert("items".to_owned(), json!(topics));
    Ok(Json(document))
}

/// A gap as the API shows it.
#[derive(Serialize)]
struct GapDocument {
    /// Where it missed something.
    topic: String,
    queue: u32,
    /// The first offset that is gone.
    from: QueueOffset,
    to: QueueOffset,
    messages: u64,
    /// When they were gone, by the log's time.
    at: String,
}

impl From<GapView> for GapDocument {
    fn from(GapView { topic, gap }: GapView) -> Self {
        let at = answer::time(gap.at.0);
        Self { topic, queue: gap.queue, from: gap.from, to: gap.to, messages: gap.messages, at }
    }
}

/// `GET /v1/groups/{group}/gaps`: messages that the group had not finished when their retention was over, the latest 100.
pub(crate) async fn gaps(State(app): State<Arc<App>>, PathNames(name): PathNames<String>) -> Result<Response, Problem> {
    let gaps: Vec<GapDocument> = app.node.settings.gaps(&name).await?.into_iter().map(GapDocument::from).collect();
    Ok(answer::list(gaps, None))
}
