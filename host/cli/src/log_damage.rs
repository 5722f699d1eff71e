//! What `vouch log verify` found damaged, as people and programs read it.
//!
//! Three fates are told apart: what another copy or the log itself still says is *repairable*, and a start repairs it;
//! what nothing else says is *lost*; what was never acknowledged is no damage at all, but a torn tail.

use serde_json::{Value, json};
use vouch_commitlog::Verification;
use vouch_storage::{CopyFate, DamagedCopy, StoredCopies};

use crate::failure::ProblemAnswer;
use crate::log_pieces::{describe, file_name, hex, range_json, segment_json};

/// The failure that says it.
///
/// A problem document with everything that [`json()`] has, so that `--json` tells a script more than the sentence.
pub(crate) fn found(verification: &Verification, copies: &StoredCopies) -> anyhow::Error {
    let ranges = verification.damage.iter().map(|range| format!("  {}", describe(range)));
    let files = copies.damage.iter().map(|copy| format!("  {}", paragraph(copy)));
    let places: Vec<String> = ranges.chain(files).collect();
    let (title, next) = (title(verification, copies), advice(verification, copies));
    let mut document = json(verification, copies);
    if let Value::Object(members) = &mut document {
        members.insert("type".to_owned(), json!("urn:vouch:cli:damaged"));
        members.insert("title".to_owned(), json!(title));
        members.insert("detail".to_owned(), json!(format!("{next}\n{}", places.join("\n"))));
    }
    ProblemAnswer::from_document(document).map_or_else(|| anyhow::anyhow!("the log is damaged"), Into::into)
}

/// How many places of the log, and how many files of snapshots, are damaged.
fn title(verification: &Verification, copies: &StoredCopies) -> String {
    let (places, files) = (verification.damage.len(), copies.damage.len());
    match (places, files) {
        (_, 0) => format!("the log is damaged in {places} places"),
        (0, _) => format!("the log is sound, and {files} files of its snapshots are damaged"),
        _ => format!("the log is damaged in {places} places, and {files} files of its snapshots are"),
    }
}

/// What to do next. A node starts by itself only where everything can be made again.
fn advice(verification: &Verification, copies: &StoredCopies) -> &'static str {
    let is_lost = copies.damage.iter().any(|copy| copy.fate == CopyFate::Lost);
    if !verification.damage.is_empty() || is_lost {
        "a node starts on it only to read what is whole (vouch serve --on-damage read-only); restore the folder from a \
         backup, and keep this one"
    } else {
        "a node starts on it, and makes the damaged files again; a running node does so with the next round of its scrubber; \
         look after the disk"
    }
}

/// One damaged file, why it is, and whether what was in it is said elsewhere.
fn paragraph(copy: &DamagedCopy) -> String {
    let fate = match copy.fate {
        CopyFate::FromOtherCopy => "repairable, the other copy is whole",
        CopyFate::FromLog => "repairable, an older snapshot or the log says the same",
        CopyFate::Lost => "lost, nothing else says what was in it",
    };
    format!("{}: {}; {fate}", copy.file.display(), copy.reason)
}

/// All of it, for programs.
/// Positions and lengths are bytes. `sound` is whether nothing is damaged, neither in the log nor in snapshots.
pub(crate) fn json(verification: &Verification, copies: &StoredCopies) -> Value {
    let Verification { identity, start, end, durable, entries, damage, tail, segments } = verification;
    json!({
        "sound": damage.is_empty() && copies.damage.is_empty(),
        "cluster_id": hex(&identity.cluster_id),
        "shard": identity.shard,
        "segment_size": identity.segment_size,
        "start": start.0,
        "end": end.0,
        "durable": durable.0,
        "entries": entries,
        "damage": damage.iter().map(range_json).collect::<Vec<_>>(),
        "tail": tail.as_ref().map(|tail| json!({"at": tail.at.0, "bytes": tail.bytes, "reason": tail.reason})),
        "segments": segments.iter().map(segment_json).collect::<Vec<_>>(),
        "snapshots": {
            "files": copies.files,
            "damage": copies.damage.iter().map(copy_json).collect::<Vec<_>>(),
            "to_be_made": copies.to_be_made.iter().map(|file| file_name(file)).collect::<Vec<_>>(),
        },
    })
}

/// One damaged file for programs; `state` is `repairable` or `lost`.
fn copy_json(copy: &DamagedCopy) -> Value {
    let state = match copy.fate {
        CopyFate::FromOtherCopy | CopyFate::FromLog => "repairable",
        CopyFate::Lost => "lost",
    };
    json!({"file": file_name(&copy.file), "reason": copy.reason, "state": state})
}

#[cfg(test)]
mod tests {
    use vouch_commitlog::{LogIdentity, LogPosition};

    use super::*;
    use crate::failure;
    use crate::log_pieces::tests::range;

    fn verification(damaged: bool) -> Verification {
        Verification {
            identity: LogIdentity { cluster_id: [7; 16], shard: 0, segment_size: 4 << 20 },
            start: LogPosition(0),
            end: LogPosition(8192),
            durable: LogPosition(8192),
            entries: 3,
            damage: damaged.then(|| range(Some(9))).into_iter().collect(),
            tail: None,
            segments: Vec::new(),
        }
    }

    fn copies(fates: &[CopyFate]) -> StoredCopies {
        let copy =
            |fate: &CopyFate| DamagedCopy { file: "/d/a.snapshot".into(), reason: "torn".to_owned(), fate: *fate };
        StoredCopies { files: 4, damage: fates.iter().map(copy).collect(), to_be_made: Vec::new() }
    }

    #[test]
    fn what_can_be_made_again_is_told_from_what_is_lost() {
        let told = |damaged, fates: &[CopyFate]| found(&verification(damaged), &copies(fates)).to_string();
        let repairable = told(false, &[CopyFate::FromOtherCopy, CopyFate::FromLog]);
        assert!(repairable.starts_with("the log is sound, and 2 files of its snapshots are damaged"), "{repairable}");
        assert!(repairable.contains("makes the damaged files again") && repairable.contains("the other copy is whole"));
        let lost = told(false, &[CopyFate::Lost]);
        assert!(lost.contains("restore the folder from a backup") && lost.contains("nothing else says"), "{lost}");
        let both = told(true, &[CopyFate::FromLog]);
        assert!(both.starts_with("the log is damaged in 1 places, and 1 files of its snapshots are"), "{both}");
        assert!(told(true, &[]).starts_with("the log is damaged in 1 places\n"));
    }

    #[test]
    fn a_script_gets_everything_that_was_found_beside_the_sentence() {
        let document = failure::document(&found(&verification(true), &copies(&[CopyFate::Lost])));
        assert_eq!((&document["type"], &document["sound"]), (&json!("urn:vouch:cli:damaged"), &json!(false)));
        assert_eq!(document["damage"][0]["entries_lost"], 2);
        assert_eq!(
            document["snapshots"]["damage"][0],
            json!({"file": "a.snapshot", "reason": "torn", "state": "lost"})
        );
        let whole = json(&verification(false), &copies(&[]));
        assert_eq!((&whole["sound"], &whole["tail"], &whole["end"]), (&json!(true), &Value::Null, &json!(8192)));
    }
}
