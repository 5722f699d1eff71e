//! What `vouch log verify` found damaged, as people and programs read it.
//!
//! Three fates are told apart: what another copy or the log itself still says is *repairable*, and a start repairs it;
//! what nothing else says is *lost*; what was never acknowledged is no damage at all, but a torn tail.

use std::ops::Range;

use serde_json::{Value, json};
use vouch_commitlog::{LogPosition, Verification};
use vouch_storage::{CopyFate, DamagedCopy, SnapshotBound, StoredCopies};

use crate::failure::ProblemAnswer;
use crate::log_pieces::{describe, file_name, hex, range_json, segment_json};

/// What a look at the log and at the snapshots of a folder found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The log.
    pub(crate) verification: Verification,
    /// The snapshots.
    pub(crate) copies: StoredCopies,
    /// What the newest snapshot needs of the log, if one can be read: a start goes on from there.
    pub(crate) newest: Option<SnapshotBound>,
}

impl Looked {
    /// Whether a start would serve all that there ever was and is not past its retention.
    pub(crate) fn is_sound(&self) -> bool {
        self.verification.is_sound() && self.copies.damage.is_empty() && self.missing().is_none()
    }

    /// What lay before the log's first file, and is needed.
    fn missing(&self) -> Option<Range<LogPosition>> {
        self.newest?.missing_before(self.verification.start)
    }

    /// The failure that says it.
    ///
    /// A problem document with everything that [`Self::json`] has, so that `--json` tells a script more than the sentence.
    pub(crate) fn failure(&self) -> anyhow::Error {
        let missing = self.missing().map(|missing| {
            let Range { start, end } = missing;
            format!("  the log's first segments are gone: positions {start} to {end}, with what the newest snapshot refers to")
        });
        let ranges = self.verification.damage.iter().map(|range| format!("  {}", describe(range)));
        let files = self.copies.damage.iter().map(|copy| format!("  {}", paragraph(copy)));
        let places: Vec<String> = missing.into_iter().chain(ranges).chain(files).collect();
        let (title, next) = (self.title(), self.advice());
        let mut document = self.json();
        if let Value::Object(members) = &mut document {
            members.insert("type".to_owned(), json!("urn:vouch:cli:damaged"));
            members.insert("title".to_owned(), json!(title));
            members.insert("detail".to_owned(), json!(format!("{next}\n{}", places.join("\n"))));
        }
        ProblemAnswer::from_document(document).map_or_else(|| anyhow::anyhow!("the log is damaged"), Into::into)
    }

    /// How many places of the log, and how many files of snapshots, are damaged.
    fn title(&self) -> String {
        let places = self.verification.damage.len() + usize::from(self.missing().is_some());
        match (places, self.copies.damage.len()) {
            (_, 0) => format!("the log is damaged in {places} places"),
            (0, files) => format!("the log is sound, and {files} files of its snapshots are damaged"),
            (_, files) => format!("the log is damaged in {places} places, and {files} files of its snapshots are"),
        }
    }

    /// What to do next: by what a start makes of it.
    fn advice(&self) -> &'static str {
        let is_lost = self.copies.damage.iter().any(|copy| copy.fate == CopyFate::Lost);
        if is_lost || !self.starts() {
            "a node starts on it only to read what is whole (vouch serve --on-damage read-only); restore the folder from a \
             backup, and keep this one"
        } else if !self.verification.damage.is_empty() || self.missing().is_some() {
            "a node starts on it and writes, since a snapshot covers what is damaged, but what lay there cannot be delivered; put \
             these segments back from a backup, or restore the folder from one, before the messages are needed"
        } else {
            "a node starts on it, and makes the damaged files again; a running node does so with the next round of its scrubber; \
             look after the disk"
        }
    }

    /// Whether a start that serves nothing damaged goes on from the newest snapshot all the same.
    fn starts(&self) -> bool {
        let Self { verification, newest, .. } = self;
        match newest {
            None => verification.damage.is_empty(),
            Some(newest) => {
                let is_behind = |range| newest.is_behind(range, verification);
                newest.last_entry >= verification.start && verification.damage.iter().all(is_behind)
            }
        }
    }

    /// All of it, for programs.
    /// Positions and lengths are bytes. `sound` is whether nothing is damaged, neither in the log nor in snapshots, and nothing
    /// `missing` before the log's first segment.
    pub(crate) fn json(&self) -> Value {
        let Self { verification, copies, .. } = self;
        let Verification { identity, start, end, durable, entries, damage, tail, segments } = verification;
        json!({
            "sound": self.is_sound(),
            "cluster_id": hex(&identity.cluster_id),
            "shard": identity.shard,
            "segment_size": identity.segment_size,
            "start": start.0,
            "end": end.0,
            "durable": durable.0,
            "entries": entries,
            "missing": self.missing().map(|missing| json!({"from": missing.start.0, "to": missing.end.0})),
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
    use vouch_commitlog::{LogIdentity, SegmentInfo};

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

    fn looked(damaged: bool, fates: &[CopyFate]) -> Looked {
        Looked { verification: verification(damaged), copies: copies(fates), newest: None }
    }

    fn bound(last_entry: u64, refers_to: u64) -> SnapshotBound {
        let [covers, last_entry, refers_to] = [last_entry + 64, last_entry, refers_to].map(LogPosition);
        SnapshotBound { covers, last_entry, last_index: 9, refers_to }
    }

    #[test]
    fn what_can_be_made_again_is_told_from_what_is_lost() {
        let told = |damaged, fates: &[CopyFate]| looked(damaged, fates).failure().to_string();
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
        let document = failure::document(&looked(true, &[CopyFate::Lost]).failure());
        assert_eq!((&document["type"], &document["sound"]), (&json!("urn:vouch:cli:damaged"), &json!(false)));
        assert_eq!(document["damage"][0]["entries_lost"], 2);
        assert_eq!(
            document["snapshots"]["damage"][0],
            json!({"file": "a.snapshot", "reason": "torn", "state": "lost"})
        );
        let whole = looked(false, &[]).json();
        assert_eq!(whole["missing"], Value::Null);
        assert_eq!((&whole["sound"], &whole["tail"], &whole["end"]), (&json!(true), &Value::Null, &json!(8192)));
    }

    #[test]
    fn segments_that_are_gone_are_damage_if_something_in_them_is_needed() {
        let mut found = looked(false, &[]);
        found.verification.start = LogPosition(4096);
        found.newest = Some(bound(5000, 4096));
        assert!(found.is_sound(), "what was released is not needed");
        found.newest = Some(bound(5000, 100));
        let (told, document) = (found.failure().to_string(), found.json());
        assert!(told.starts_with("the log is damaged in 1 places") && told.contains("positions 100 to 4096"), "{told}");
        assert!(told.contains("starts on it and writes") && told.contains("put these segments back"), "{told}");
        assert_eq!((&document["sound"], &document["missing"]), (&json!(false), &json!({"from": 100, "to": 4096})));
        // Without the snapshot's last entry no start goes on from it.
        found.newest = Some(bound(4000, 100));
        assert!(found.failure().to_string().contains("only to read"));
    }

    #[test]
    fn a_start_goes_on_behind_damage_that_a_snapshot_covers() {
        let mut found = looked(true, &[]);
        let told = |found: &Looked| found.failure().to_string();
        assert!(told(&found).contains("only to read"));
        let (file, start, size) = ("0.log".into(), LogPosition(0), 4 << 20);
        found.verification.segments = vec![SegmentInfo {
            file,
            start,
            size,
            header_sound: true,
            entries: 3,
            first_index: Some(1),
            last_index: Some(12),
            used_bytes: 8192,
            prepared_bytes: 0,
            durable_mark: LogPosition(8192),
        }];
        for (last_entry, said) in [(4608, "starts on it and writes"), (4607, "only to read")] {
            found.newest = Some(bound(last_entry, 0));
            assert!(told(&found).contains(said), "{last_entry}: {}", told(&found));
        }
        // What is lost with a snapshot is so whatever the log says.
        found.newest = Some(bound(4608, 0));
        found.copies = copies(&[CopyFate::Lost]);
        assert!(told(&found).contains("only to read"));
    }
}
