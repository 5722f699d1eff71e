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

#[cfg(test)]
pub(crate) mod tests {
    use vouch_commitlog::LogPosition;

    use super::*;

    /// A stretch of a segment, with the numbers of the entries around it if they are known.
    pub(crate) fn range(index_before: Option<u64>) -> DamagedRange {
        DamagedRange {
            file: "/d/log/00000000000000000000.log".into(),
            offset: 4096,
            length: 512,
            from: LogPosition(4096),
            to: LogPosition(4608),
            reason: "a checksum does not match".to_owned(),
            headers: 1,
            index_before,
            index_after: Some(12),
        }
    }

    #[test]
    fn how_many_entries_are_lost_is_told_where_it_is_known() {
        assert!(describe(&range(Some(9))).ends_with("; 2 entries lost"), "{}", describe(&range(Some(9))));
        assert_eq!(describe(&range(None)), range(None).to_string());
        assert_eq!(
            (&range_json(&range(Some(9)))["entries_lost"], &range_json(&range(None))["entries_lost"]),
            (&json!(2), &Value::Null)
        );
        assert_eq!(range_json(&range(None))["file"], "00000000000000000000.log");
    }

    #[test]
    fn files_and_ids_are_written_short() {
        assert_eq!((file_name(Path::new("/a/b.log")).as_str(), file_name(Path::new("/")).as_str()), ("b.log", ""));
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }
}
