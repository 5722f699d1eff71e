//! Components: their pieces, names and tags.

use crate::record::{PluginChunk, PluginDelete, PluginPublish, Record, TagDelete};
use crate::state::{Applied, Effect, Outcome, TAG_HISTORY_MAX, UPLOADS_MAX};
use crate::testing::RecordLog;
use crate::{Millis, Refusal};

pub(super) fn chunk(digest: u8, offset: u64, total: u64, len: usize) -> Record {
    Record::PluginChunk(PluginChunk { digest: [digest; 32], offset, total, data: vec![7; len] })
}

fn publishing(name: &str, tag: &str, digest: [u8; 32], expected: Option<[u8; 32]>) -> Record {
    let (name, tag, verdict) = (name.to_owned(), tag.to_owned(), "{}".to_owned());
    Record::PluginPublish(PluginPublish { name, tag, digest, expected, verdict })
}

fn publish(name: &str, tag: &str, digest: u8, expected: Option<u8>) -> Record {
    publishing(name, tag, [digest; 32], expected.map(|byte| [byte; 32]))
}

/// Uploads a component of one piece and tags it, whatever the tag pointed at.
pub(in crate::state) fn push(log: &mut RecordLog, name: &str, tag: &str, digest: u8) -> Outcome {
    log.apply(chunk(digest, 0, 4, 4)).unwrap();
    let expected = log.state.plugins().tag(name, tag).map(|tag| tag.digest);
    log.apply(publishing(name, tag, [digest; 32], expected))
}

fn has(log: &RecordLog, digest: u8) -> bool {
    log.state.plugins().artifact(&[digest; 32]).is_some()
}

fn points_at(log: &RecordLog, name: &str, tag: &str) -> Option<u8> {
    log.state.plugins().tag(name, tag).map(|tag| tag.digest[0])
}

pub(super) fn delete_tag(name: &str, tag: &str) -> Record {
    Record::TagDelete(TagDelete { name: name.to_owned(), tag: tag.to_owned() })
}

pub(super) fn delete(name: &str) -> Record {
    Record::PluginDelete(PluginDelete { name: name.to_owned() })
}

#[test]
fn a_component_is_published_when_all_its_pieces_are_there() {
    let mut log = RecordLog::new();
    assert!(matches!(log.refused(publish("p", "1", 1, None)), Refusal::Conflict(_)));
    log.apply(chunk(1, 0, 10, 4)).unwrap();
    let first = log.last_position();
    assert!(matches!(log.refused(publish("p", "1", 1, None)), Refusal::Conflict(_)));
    log.apply(chunk(1, 4, 10, 6)).unwrap();
    assert_eq!(log.state.plugins().artifact(&[1; 32]).unwrap().chunks, [(first, 0), (log.last_position(), 4)]);
    let published = log.apply(publish("p", "1", 1, None)).unwrap();
    assert_eq!(published, Applied::Set { created: true, revision: log.last_position().0 });
    assert_eq!(log.effects, [Effect::Plugins]);
    assert_eq!(log.state.plugins().artifact(&[1; 32]).unwrap().verdict, "{}");
}

#[test]
fn an_upload_that_was_cut_off_is_completed_by_the_next() {
    let mut log = RecordLog::new();
    for (offset, len) in [(0, 4), (0, 4), (4, 4), (8, 2)] {
        log.apply(chunk(1, offset, 10, len)).unwrap();
    }
    let artifact = log.state.plugins().artifact(&[1; 32]).unwrap();
    assert!(artifact.is_complete());
    assert_eq!(artifact.chunks.iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [0, 4, 8]);
}

#[test]
fn an_upload_in_other_pieces_begins_anew_instead_of_never_ending() {
    let mut log = RecordLog::new();
    for (offset, len) in [(0, 4), (4, 4), (0, 5), (5, 5)] {
        log.apply(chunk(1, offset, 10, len)).unwrap();
    }
    let artifact = log.state.plugins().artifact(&[1; 32]).unwrap();
    assert!(artifact.is_complete());
    assert_eq!(artifact.chunks.iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [0, 5]);
}

#[test]
fn pieces_that_do_not_fit_are_ignored() {
    let mut log = RecordLog::new();
    log.apply(chunk(1, 0, 10, 4)).unwrap();
    for (offset, total, len) in [(5, 10, 5), (4, 10, 7), (4, 11, 7), (u64::MAX, 10, 1), (4, 10, 0)] {
        log.apply(chunk(1, offset, total, len)).unwrap();
        assert_eq!(log.state.plugins().artifact(&[1; 32]).unwrap().received, 4, "{offset} {total} {len}");
    }
    log.apply(chunk(1, 4, 10, 6)).unwrap();
    log.apply(chunk(1, 0, 10, 3)).unwrap();
    assert!(log.state.plugins().artifact(&[1; 32]).unwrap().is_complete(), "what is complete stays");
}

#[test]
fn a_tag_moves_only_from_where_the_caller_saw_it() {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    log.apply(chunk(2, 0, 4, 4)).unwrap();
    for wrong in [None, Some(3)] {
        assert!(matches!(log.refused(publish("p", "1", 2, wrong)), Refusal::PreconditionFailed(_)));
    }
    assert!(matches!(log.refused(publish("p", "new", 2, Some(1))), Refusal::PreconditionFailed(_)));
    let moved = log.apply(publish("p", "1", 2, Some(1))).unwrap();
    assert!(matches!(moved, Applied::Set { created: false, .. }));
    assert_eq!(points_at(&log, "p", "1"), Some(2));
}

#[test]
fn publishing_the_same_component_again_is_fine_and_makes_no_history() {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    let again = log.apply(publish("p", "1", 1, None)).unwrap();
    assert!(matches!(again, Applied::Set { created: false, .. }));
    assert_eq!(log.state.plugins().plugin("p").unwrap().tags["1"].len(), 1);
}

#[test]
fn a_tag_keeps_its_history_and_the_components_in_it() {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    log.pass_ms(5);
    push(&mut log, "p", "1", 2).unwrap();
    let history = &log.state.plugins().plugin("p").unwrap().tags["1"];
    let since = Millis(log.now.0 - 5);
    assert_eq!(history.iter().map(|t| (t.digest[0], t.since)).collect::<Vec<_>>(), [(1, since), (2, log.now)]);
    assert!(has(&log, 1) && has(&log, 2));
    push(&mut log, "p", "1", 1).unwrap();
    assert_eq!(points_at(&log, "p", "1"), Some(1), "rolled back");
}

#[test]
fn the_history_of_a_tag_is_bounded() {
    let mut log = RecordLog::new();
    for n in 0..=TAG_HISTORY_MAX {
        push(&mut log, "p", "1", (n % 2) as u8 + 2).unwrap();
        if n == 0 {
            push(&mut log, "p", "1", 1).unwrap();
        }
    }
    assert_eq!(log.state.plugins().plugin("p").unwrap().tags["1"].len(), TAG_HISTORY_MAX);
    assert!(!has(&log, 1) && has(&log, 2) && has(&log, 3));
}

#[test]
fn unfinished_uploads_are_bounded_and_the_oldest_goes() {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    let digest = |n: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(n as u64 + 1000).to_be_bytes());
        digest
    };
    for n in 0..=UPLOADS_MAX {
        log.apply(Record::PluginChunk(PluginChunk { digest: digest(n), offset: 0, total: 9, data: vec![1] })).unwrap();
    }
    let plugins = log.state.plugins();
    assert_eq!(plugins.artifacts().count(), UPLOADS_MAX + 1);
    assert!(plugins.artifact(&digest(0)).is_none() && plugins.artifact(&digest(1)).is_some() && has(&log, 1));
}

#[test]
fn a_deleted_plugin_takes_its_components_along_unless_another_has_them() {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    push(&mut log, "p", "2", 2).unwrap();
    push(&mut log, "q", "1", 2).unwrap();
    log.apply(chunk(3, 0, 4, 2)).unwrap();
    log.apply(delete("p")).unwrap();
    assert!(!has(&log, 1) && has(&log, 2));
    assert!(has(&log, 3), "an upload that is going on stays");
    assert!(matches!(log.refused(delete("p")), Refusal::NotFound(_)));
}

#[test]
fn the_last_tag_takes_the_plugin_along() {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    push(&mut log, "p", "2", 2).unwrap();
    assert!(matches!(log.refused(delete_tag("p", "3")), Refusal::NotFound(_)));
    log.apply(delete_tag("p", "1")).unwrap();
    assert!(!has(&log, 1) && points_at(&log, "p", "2") == Some(2));
    log.apply(delete_tag("p", "2")).unwrap();
    assert!(!has(&log, 2) && log.state.plugins().plugin("p").is_none());
    assert!(matches!(log.refused(delete_tag("p", "2")), Refusal::NotFound(_)));
}
