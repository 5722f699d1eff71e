//! The span of a request to the HTTP API: what the log's lines within it say of it.

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use percent_encoding::percent_decode_str;
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

use super::problem::Why;

/// Most characters of a field. A path may have 64 KiB, of anything.
const FIELD_MAX_CHARS: usize = 256;

/// Opens the span of a request. Which route it takes, and what that names, is filled in where it is known ([`record_route`]).
pub(super) fn of(request: &Request) -> Span {
    let header = |name| header_of(request.headers(), name);
    info_span!(
        parent: None,
        "http",
        method = %request.method(),
        route = Empty,
        request_id = header("x-request-id"),
        traceparent = header("traceparent"),
        topic = Empty,
        group = Empty,
        message_id = Empty,
        transaction = Empty,
        binding = Empty,
        key = Empty,
        plugin = Empty,
        secret = Empty,
        tag = Empty,
        digest = Empty,
    )
}

/// A header by which whoever calls follows the request, if it is one.
pub(super) fn header_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|value| value.len() <= FIELD_MAX_CHARS)
}

/// Fills in the route and the names in the path, decoded. They are not checked yet: a name may be anything that a stranger
/// can write, of which so much is shown.
pub(super) fn record_route(route: &'static str, path: &str) {
    let span = Span::current();
    span.record("route", route);
    for (place, name) in route.split('/').zip(path.split('/')) {
        if let Some(field) = field(route, place) {
            span.record(field, display(shown(name)));
        }
    }
}

/// The field for a place in a route, if it is one for a name.
fn field(route: &str, place: &str) -> Option<&'static str> {
    Some(match place {
        "{topic}" => "topic",
        "{group}" => "group",
        "{tag}" => "tag",
        "{digest}" => "digest",
        "{key}" => "key",
        "{id}" if route.starts_with("/v1/transactions/") => "transaction",
        "{id}" => "message_id",
        "{name}" if route.starts_with("/v1/bindings/") => "binding",
        "{name}" if route.starts_with("/v1/secrets/") => "secret",
        "{name}" => "plugin",
        _ => return None,
    })
}

/// A name out of a path, at most [`FIELD_MAX_CHARS`] of it.
fn shown(name: &str) -> String {
    let name: Cow<'_, str> = percent_decode_str(name).decode_utf8_lossy();
    name.chars().take(FIELD_MAX_CHARS).collect()
}

/// The last line of a request, where lines about single requests are written.
fn tell(response: &Response) {
    let why = response.extensions().get::<Why>().map(|why| why.0.as_str());
    tracing::debug!(status = response.status().as_u16(), why, "answered");
}

/// A request under way. Dropped before it was answered, its caller went away.
pub(super) struct Unheard(bool);

impl Unheard {
    /// From here on its caller may go away.
    pub(super) fn begin() -> Self {
        Self(true)
    }

    /// It is answered.
    pub(super) fn tell(mut self, response: &Response) {
        self.0 = false;
        tell(response);
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if self.0 {
            tracing::debug!("the caller went away before the answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::ROUTES;

    #[test]
    fn every_name_in_a_path_has_a_field_of_the_span() {
        let names = ROUTES.iter().flat_map(|route| route.path.split('/').map(|place| (route.path, place)));
        for (route, place) in names.filter(|(_, place)| place.starts_with('{')) {
            let fields = of(&Request::default());
            let field = field(route, place);
            assert!(field.is_some(), "{place} in {route}");
            // Without a log the span has no fields to ask for.
            assert!(fields.is_disabled() || field.is_some_and(|field| fields.has_field(field)), "{place} in {route}");
        }
    }

    #[test]
    fn so_much_of_a_name_is_shown_and_it_is_decoded() {
        assert_eq!(shown("a%2Fb%0a%C3%A9"), "a/b\né");
        assert_eq!(shown(&"é".repeat(FIELD_MAX_CHARS)), "é".repeat(FIELD_MAX_CHARS));
        assert_eq!(shown(&"é".repeat(FIELD_MAX_CHARS + 1)), "é".repeat(FIELD_MAX_CHARS));
        assert_eq!(shown("%FF"), "\u{fffd}");
    }
}
