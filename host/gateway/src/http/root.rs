//! What a visitor sees first, and the description of the API.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

/// The committed description; a test holds it against the table of routes.
pub(crate) const OPENAPI: &str = include_str!("../../openapi.json");

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// `GET /`.
pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("root.html"))
}
