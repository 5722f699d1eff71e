//! What is answered before the node serves: that it lives, and how far it is.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use vouch_node::StartProgress;

use super::cluster;
use super::door::Doors;
use super::problem::Problem;

/// The API of a node that starts, and then that of one that serves.
#[derive(Clone)]
pub(crate) struct Api {
    starting: Router,
    serving: Arc<OnceLock<Router>>,
}

impl Api {
    /// For a node that starts.
    pub(crate) fn new(doors: Arc<Doors>, progress: Arc<StartProgress>) -> Self {
        let not_yet = move || std::future::ready(Problem::recovering(&progress.step()));
        let starting = Router::new()
            .route("/healthz", get(cluster::alive))
            .method_not_allowed_fallback(not_yet.clone())
            .fallback(not_yet)
            .layer(from_fn_with_state(doors, enter));
        Self { starting, serving: Arc::default() }
    }

    /// From now on requests go there.
    pub(crate) fn serve(&self, router: Router) {
        self.serving.get_or_init(|| router);
    }

    /// Where a request goes now.
    pub(super) fn now(&self) -> Router {
        self.serving.get().unwrap_or(&self.starting).clone()
    }
}

/// As on the way into the API of a node that serves.
async fn enter(State(doors): State<Arc<Doors>>, request: Request, next: Next) -> Response {
    match doors.now().check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
