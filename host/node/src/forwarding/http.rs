//! A request to the HTTP API that another node does, and its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vouch_broker::NotDone;
use vouch_commitlog::LogPosition;

/// A request that was let in by the node to which it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCall {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, without those of the connection.
    pub headers: Vec<(String, Bytes)>,
    /// All of its body.
    pub body: Bytes,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCallAnswer {
    /// The status.
    pub status: u16,
    /// Headers, without those of the connection.
    pub headers: Vec<(String, Bytes)>,
    /// All of the body.
    pub body: Bytes,
    /// What was asked for is done in the log before this position.
    pub applied: u64,
}

impl HttpCall {
    /// Whether it changes nothing.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

impl HttpCallAnswer {
    /// What was asked for is done in the log before this position.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        LogPosition(self.applied)
    }
}

/// An answer on its way.
pub type HttpAnswering = Pin<Box<dyn Future<Output = Result<HttpCallAnswer, NotDone>> + Send>>;

/// Answers requests that came to other nodes, and were let in there.
pub trait ServeHttp: Send + Sync + 'static {
    /// Answers one here, and asks no other node.
    ///
    /// # Errors
    /// This node does not lead, or cannot answer.
    fn answer(&self, call: HttpCall) -> HttpAnswering;
}

/// What answers requests over HTTP, from when the API is served until the node stops.
#[derive(Default)]
pub(crate) struct HttpApi(RwLock<Option<Arc<dyn ServeHttp>>>);

impl HttpApi {
    pub(crate) fn begin(&self, serves: Arc<dyn ServeHttp>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(serves);
    }

    pub(crate) fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn get(&self) -> Option<Arc<dyn ServeHttp>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
