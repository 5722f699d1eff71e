//! What groups have and topics have not.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use super::answer;
use super::problem::Problem;
use super::request::Names;

/// `DELETE /v1/groups/{group}`: the group and its progress are gone.
pub(crate) async fn remove(State(app): State<Arc<App>>, Names(name): Names<String>) -> Result<StatusCode, Problem> {
    app.node.delete_group(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/groups/{group}/progress`: lag, in flight and ready, of each topic that the group received from.
pub(crate) async fn progress(State(app): State<Arc<App>>, Names(name): Names<String>) -> Result<Response, Problem> {
    Ok(answer::list(app.node.progress(&name).await?, None))
}
