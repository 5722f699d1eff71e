//! Errors as `application/problem+json` (RFC 9457): a stable URN for scripts, a sentence for the person.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_node::{StartStep, UploadError};

/// When to ask a node again that recovers.
const RECOVERING_RETRY_MS: u64 = 1000;

/// What is wrong with a request, in the answer that says so: the last line of the request repeats it.
#[derive(Clone, Debug)]
pub(super) struct Why(pub(super) String);

/// Nothing was done, since this node does not lead; which one does, if that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeadsElsewhere(pub(super) Option<u64>);

/// A request that is refused. What the broker refuses has its status, URN and title from the one table of
/// `vouch-protocol`; the rest are errors that only HTTP has.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    urn: &'static str,
    title: &'static str,
    /// What is wrong with this request, and what to do next.
    detail: String,
    /// Further members of the document.
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Nothing failed: it is no line in the log.
    expected: bool,
    /// Another node leads, or nobody: certainly nothing was done.
    leads_elsewhere: Option<Box<LeadsElsewhere>>,
}

impl Problem {
    fn new(status: StatusCode, urn: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let (detail, members, headers) = (detail.into(), Map::new(), Vec::new());
        Self { status, urn, title, detail, members, headers, expected: false, leads_elsewhere: None }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer.
    fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// Path, header or body cannot be read at all: correct its form.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:vouch:error:malformed", "The request cannot be read", detail)
    }

    /// A query parameter is unknown, repeated, or has a value it cannot have.
    pub(crate) fn parameter(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:vouch:error:bad-parameter", "Bad query parameter", detail)
    }

    /// The token is missing or wrong.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "urn:vouch:error:unauthorized", "A token is needed", detail)
            .header(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// `Host` names another server than this one (ruling 25).
    pub(crate) fn foreign_host(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:vouch:error:foreign-host", "Foreign Host", detail)
    }

    /// The request comes from a web page of another origin (ruling 25).
    pub(crate) fn foreign_origin(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:vouch:error:foreign-origin", "Foreign Origin", detail)
    }

    /// Nothing has this path.
    pub(crate) fn no_such_path(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:vouch:error:no-such-path", "No such path", detail)
    }

    /// The path does not take this method; `allowed` are those that it takes.
    pub(crate) fn method_not_allowed(method: &str, path: &str, allowed: &str) -> Self {
        let detail = format!("{path} takes {allowed}, not {method}");
        let (urn, title) = ("urn:vouch:error:method-not-allowed", "Method not allowed");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, urn, title, detail).header(header::ALLOW, allowed)
    }

    /// The body has not the media type that the path takes.
    pub(crate) fn media_type(wanted: &str, found: Option<&str>) -> Self {
        let found = found.map_or_else(|| "no content-type".to_owned(), |found| format!("content-type {found}"));
        let detail = format!("the request has {found}; send it with content-type: {wanted}");
        let (urn, title) = ("urn:vouch:error:unsupported-media-type", "Unsupported media type");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, urn, title, detail).with("expected", wanted)
    }

    /// The body is larger than the path takes.
    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes, the most that this path takes");
        let (urn, title) = ("urn:vouch:error:too-large", "Body too large");
        // The rest of the body is not read: the connection cannot be used again.
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, urn, title, detail)
            .with("limit", limit)
            .header(header::CONNECTION, "close")
    }

    /// The body did not come in time.
    pub(crate) fn slow_body(within: std::time::Duration) -> Self {
        let detail = format!("the body was not complete after {} s; send it again", within.as_secs());
        let (urn, title) = ("urn:vouch:error:slow-body", "The body came too slowly");
        Self::new(StatusCode::REQUEST_TIMEOUT, urn, title, detail).header(header::CONNECTION, "close")
    }

    /// Moving a tag needs to say from where.
    pub(crate) fn precondition_required(detail: impl Into<String>) -> Self {
        let (urn, title) = ("urn:vouch:error:precondition-required", "Precondition required");
        Self::new(StatusCode::PRECONDITION_REQUIRED, urn, title, detail)
    }

    /// The node does not serve; `urn` and `title` say why.
    pub(crate) fn not_ready(urn: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, urn, title, detail)
    }

    /// The same for what the node's log tells elsewhere: who asks again and again does not fill it.
    pub(crate) fn expected(urn: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { expected: true, ..Self::not_ready(urn, title, detail) }
    }

    /// The node serves as soon as its log is recovered.
    pub(crate) fn recovering(step: &StartStep) -> Self {
        let (urn, title) = ("urn:vouch:error:recovering", "The node is recovering");
        let then = match step {
            StartStep::Asking { .. } => {
                "it asks on; see that the other nodes run, and cluster.md, *A node that lacks something*"
            }
            _ => "try again in a moment",
        };
        let problem = Self::expected(urn, title, format!("recovering: {step}; {then}"))
            .with("retry_after_ms", RECOVERING_RETRY_MS)
            .header(header::RETRY_AFTER, &RECOVERING_RETRY_MS.div_ceil(1000).to_string());
        match step {
            StartStep::Replaying { replayed_bytes, total_bytes } => {
                problem.with("replayed_bytes", *replayed_bytes).with("total_bytes", *total_bytes)
            }
            _ => problem,
        }
    }

    /// HTTP status of the answer.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        NotDone::from(refusal).into()
    }
}

impl From<NothingStored> for Problem {
    fn from(why: NothingStored) -> Self {
        NotDone::from(why).into()
    }
}

impl From<NotDone> for Problem {
    fn from(not_done: NotDone) -> Self {
        let shown = vouch_protocol::code::outcome(&not_done);
        let status = StatusCode::from_u16(shown.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem = Self::new(status, shown.urn, shown.title, not_done.to_string());
        if let NotDone::Refused(Refusal::OutcomeConflict { recorded, .. }) = &not_done {
            problem = problem.with("outcome", json!(recorded));
        }
        if let NotDone::NothingStored(NothingStored::NotLeading { leader }) = &not_done {
            problem.leads_elsewhere = Some(Box::new(LeadsElsewhere(*leader)));
            problem.expected = true;
        }
        match shown.retry_after_ms {
            // The header counts whole seconds; the member is exact.
            Some(ms) => {
                problem.with("retry_after_ms", ms).header(header::RETRY_AFTER, &ms.div_ceil(1000).max(1).to_string())
            }
            None => problem,
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::NotDone(not_done) => not_done.into(),
            UploadError::Refused(refused) => {
                let (urn, title) = ("urn:vouch:error:component-refused", "The component is refused");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, urn, title, refused.to_string())
                    .with("kind", refused.kind())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED && !self.expected {
            tracing::error!(status = self.status.as_u16(), urn = self.urn, detail = self.detail, "a request failed");
        }
        let why = Why(self.detail.clone());
        let mut document = self.members;
        document.insert("type".to_owned(), self.urn.into());
        document.insert("title".to_owned(), self.title.into());
        document.insert("detail".to_owned(), self.detail.into());
        document.insert("status".to_owned(), self.status.as_u16().into());
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.headers);
        response.extensions_mut().insert(why);
        if let Some(elsewhere) = self.leads_elsewhere {
            response.extensions_mut().insert(*elsewhere);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_replays_its_log_says_how_far_it_is() {
        let step = StartStep::Replaying { replayed_bytes: 7, total_bytes: 9 };
        let problem = Problem::recovering(&step);
        assert_eq!(problem.detail, "recovering: 7 of at most 9 bytes of the log are replayed; try again in a moment");
        assert_eq!((&problem.members["replayed_bytes"], &problem.members["total_bytes"]), (&json!(7), &json!(9)));
        let other = Problem::recovering(&StartStep::Opening);
        assert!(!other.members.contains_key("replayed_bytes") && other.status() == StatusCode::SERVICE_UNAVAILABLE);
        assert!(problem.into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
