//! How answers look: documents with their entity tag, lists in pages, times.
//!
//! Lists have one form: `items`, and `next` where there are more.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// The last millisecond that RFC 3339 can write.
const LAST_MS: u64 = 253_402_300_799_999;

/// A time of the log, in milliseconds since 1970, as RFC 3339 in UTC.
pub(crate) fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))).to_string()
}

/// An entity tag as a header.
pub(crate) fn etag(tag: impl std::fmt::Display) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{tag}\""))]
}

/// 201 for what is new, 200 for what was replaced.
pub(crate) fn written(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

/// One page of a list. `next` is there when there is more: the mark for `after`.
pub(crate) fn list(items: impl Serialize, next: Option<String>) -> Response {
    let mut document = json!({ "items": items });
    if let (Some(next), Some(members)) = (next, document.as_object_mut()) {
        members.insert("next".to_owned(), Value::String(next));
    }
    Json(document).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_milliseconds_in_utc_and_never_fail() {
        assert_eq!(time(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
