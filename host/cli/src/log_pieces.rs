//! The pieces of a log as people and programs read them: segments, damaged stretches, files, ids.

use std::path::Path;

use serde_json::{Map, Value, json};
use vouch_commitlog::{DamagedRange, SegmentInfo};

/// A damaged stretch of the log, in one line.
///
/// How many entries are lost is known where the headers around the stretch tell their numbers.
pub(crate) fn describe(range: &DamagedRange) -> String {
    match range.entries_lost() {
        Some(lost) => format!("{range}; {lost} entries lost"),
        None => range.to_string(),
    }
}

/// A damaged stretch of the log.
///
/// `offset` and `length` are bytes of the file, `from` and `to` positions in the log; `entries_lost` is null where
/// nobody knows.
pub(crate) fn range_json(range: &DamagedRange) -> Value {
    json!({
        "file": file_name(&range.file),
        "offset": range.offset,
        "length": range.length,
        "from": range.from.0,
        "to": range.to.0,
        "reason": range.reason,
        "headers": range.headers,
        "entries_lost": range.entries_lost(),
    })
}

/// A segment.
///
/// `used_bytes` end with the last entry, `prepared_bytes` with what is filled with zeros ahead of it.
pub(crate) fn segment_json(segment: &SegmentInfo) -> Value {
    let mut members = Map::new();
    members.insert("file".to_owned(), json!(file_name(&segment.file)));
    members.insert("start".to_owned(), json!(segment.start.0));
    members.insert("size".to_owned(), json!(segment.size));
    members.insert("header_sound".to_owned(), json!(segment.header_sound));
    members.insert("entries".to_owned(), json!(segment.entries));
    members.insert("first_index".to_owned(), json!(segment.first_index));
    members.insert("last_index".to_owned(), json!(segment.last_index));
    members.insert("used_bytes".to_owned(), json!(segment.used_bytes));
    members.insert("prepared_bytes".to_owned(), json!(segment.prepared_bytes));
    members.insert("durable_mark".to_owned(), json!(segment.durable_mark.0));
    Value::Object(members)
}

/// The name of a file without its folder.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An id, as the log's tools write it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
