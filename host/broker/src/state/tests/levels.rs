//! The feature level of a log, and what is written at each.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use vouch_cluster::{ClusterIncarnation, NodeId};

use super::snapshots::{section, with_section};
use crate::record::codec::{Reader, Writer};
use crate::record::tests::says_levels;
use crate::record::{ClusterBegunAnew, FEATURE_LEVEL, LevelRaised, NodeInvited, NodeReplaced, Record, written_from};
use crate::state::seal::sections;
use crate::state::snapshot::{
    self, Readable, SectionSource, Snapshot, SnapshotParts, Unreadable, check_level, layouts,
};
use crate::state::{Effect, RecordAt, SnapshotError};
use crate::testing::{RecordLog, read_snapshot};
use crate::{RecordPosition, Refusal, State};

/// What belongs to a level that was released: it is written wherever the log has that level, and read by every version that
/// knows it.
struct Released {
    level: u32,
    /// Kinds of records in the first version of their layouts.
    kinds: &'static [RangeInclusive<u16>],
    /// Later versions of their layouts: kind, and the newest one.
    versions: &'static [(u16, u8)],
    /// Sections of snapshots, and the version in which each was written.
    sections: &'static [(u16, u8)],
}

/// Never changed. Whoever releases a version with a new level adds what that adds; what is behind the last of these is under way.
const RELEASED: [Released; 1] = [Released {
    level: 1,
    kinds: &[1..=23, 25..=25, 32..=36, 39..=39, 48..=57, 64..=71],
    versions: &[(7, 2), (68, 3)],
    sections: &[(1, 1), (2, 3), (3, 3), (4, 4), (5, 2), (6, 3), (7, 2), (8, 2), (9, 2), (10, 2), (11, 2)],
}];

fn raised(level: u32) -> Record {
    Record::LevelRaised(LevelRaised { level, by: "ann".to_owned(), written_by: "0.9.0".to_owned() })
}

fn begun_anew(incarnation: u32, node: u64) -> Record {
    Record::ClusterBegunAnew(ClusterBegunAnew {
        incarnation: ClusterIncarnation(incarnation),
        node: NodeId(node),
        since: RecordPosition(0),
        handle_key: [1; 32],
        written_by: "0.2.0".to_owned(),
    })
}

#[test]
fn the_level_of_a_log_is_that_of_who_made_it_and_only_goes_up() {
    let at = RecordAt { position: RecordPosition(1), time: crate::Millis(1) };
    let nobodys = State::default().apply(at, &raised(2), &mut Vec::new());
    assert!(matches!(nobodys, Err(Refusal::Conflict(_))), "{nobodys:?}");
    let mut log = RecordLog::at_level(1);
    assert_eq!(log.state.cluster().level(), Some(1));
    log.apply(raised(7)).unwrap();
    assert_eq!(log.effects, [Effect::Nodes]);
    assert_eq!((log.state.cluster().level(), log.state.cluster().last_version.as_str()), (Some(7), "0.9.0"));
    for level in [0, 6, 7] {
        assert!(matches!(log.apply(raised(level)), Err(Refusal::Conflict(why)) if why.contains("level 7 already")));
    }
    assert_eq!(log.state.cluster().level(), Some(7));
}

#[test]
fn who_begins_anew_is_alone_and_raises_the_level_to_what_that_needs() {
    let mut log = RecordLog::at_level(1);
    log.apply(begun_anew(3, 2)).unwrap();
    assert_eq!(log.state.cluster().level(), Some(2));
    log.apply(raised(9)).unwrap();
    log.apply(begun_anew(4, 3)).unwrap();
    assert_eq!(log.state.cluster().level(), Some(9), "it does not go down");
}

/// Without this nobody would notice a kind, a layout or a section that forgets to say its level: it would be written at once, and read
/// by no version before.
#[test]
fn what_is_new_belongs_to_no_level_that_was_released() {
    for Released { level, kinds, versions, sections: released } in RELEASED {
        let of_level = |kind: u16, version: u8| written_from(kind, version) == level;
        let first: BTreeSet<u16> = Record::KINDS.iter().copied().filter(|kind| of_level(*kind, 1)).collect();
        assert_eq!(
            first,
            kinds.iter().cloned().flatten().collect(),
            "kinds with `LEVEL` {level}, which is released: a new one has a later level"
        );
        let later: BTreeSet<(u16, u8)> = Record::LAYOUTS
            .iter()
            .filter_map(|(kind, newest)| Some((*kind, (2..=*newest).rfind(|version| of_level(*kind, *version))?)))
            .collect();
        assert_eq!(
            later,
            versions.iter().copied().collect(),
            "layouts of kinds of level {level}: a new one has a later level in `VERSION_LEVELS`"
        );
        let written: BTreeSet<(u16, u8)> = sections()
            .filter_map(|section| {
                let version = (1..=section.newest).rfind(|version| section.written_from(*version) == level)?;
                Some((section.section, version))
            })
            .collect();
        assert_eq!(
            written,
            released.iter().copied().collect(),
            "sections of level {level}: a new one has a later `LEVEL`, a new layout has it in `VERSION_LEVELS`"
        );
    }
}

/// What was released is written down before anything belongs to the level behind the next one.
#[test]
fn one_level_at_most_is_under_way() {
    let released: Vec<u32> = RELEASED.iter().map(|released| released.level).collect();
    assert!(released.iter().copied().eq(1..=released.len() as u32), "{released:?}");
    assert!(FEATURE_LEVEL as usize <= released.len() + 1, "{FEATURE_LEVEL} is not the level behind {released:?}");
}

#[test]
fn no_section_needs_more_than_this_version_knows() {
    let newest = sections().map(|section| section.written_from(section.newest)).max();
    assert!(newest <= Some(FEATURE_LEVEL), "a record that it comes from has that level: {newest:?}");
}

#[test]
fn the_document_of_snapshots_has_the_newest_version_of_each_section_and_its_level() {
    let document = include_str!("../../../docs/snapshots.md");
    let (_, table) = document.split_once("| section | version | contents |\n|---|---|---|\n").unwrap();
    for (section, row) in sections().zip(table.lines()) {
        let mut columns = row.split('|').map(str::trim).skip(1);
        let number = columns.next().and_then(|name| name.split(' ').next()).unwrap();
        assert_eq!(
            (number, columns.next()),
            (&*section.section.to_string(), Some(&*section.newest.to_string())),
            "{row}"
        );
        says_levels(row, (1..=section.newest).map(|version| section.written_from(version)));
    }
}

#[test]
fn operators_read_what_each_level_adds() {
    let document = include_str!("../../../../docs/cluster.md");
    let (_, table) = document.split_once("| feature level | what it adds |\n|---|---|\n").unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix("| ")?.split(" |").next()?.parse::<u32>().ok());
    assert!(rows.eq(1..=FEATURE_LEVEL), "docs/cluster.md, *Upgrade*, has a row for each level up to {FEATURE_LEVEL}");
}

/// A section as the version before has it.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    count: u32,
}

impl Snapshot for Plain {
    const SECTION: u16 = 999;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        w.u32(self.count);
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        Ok(Self { count: r.u32("count")? })
    }
}

/// The same section with something new.
#[derive(Debug, PartialEq, Eq)]
struct WithNote {
    count: u32,
    note: String,
}

impl Snapshot for WithNote {
    const SECTION: u16 = Plain::SECTION;
    const VERSION: u8 = 2;
    const VERSION_LEVELS: &'static [(u8, u32)] = &[(2, 7)];

    fn version(&self) -> u8 {
        if self.note.is_empty() { 1 } else { 2 }
    }

    fn write(&self, w: &mut Writer<'_>, version: u8) {
        let Self { count, note } = self;
        w.u32(*count);
        if version > 1 {
            w.text(note);
        }
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let count = r.u32("count")?;
        Ok(Self { count, note: if source.version > 1 { r.string("note")? } else { String::new() } })
    }
}

fn written<S: Snapshot>(state: &S) -> Vec<u8> {
    let mut bytes = snapshot::begin(RecordPosition(0));
    snapshot::section(&mut bytes, state);
    bytes
}

fn read<S: Snapshot>(bytes: &[u8]) -> Result<S, SnapshotError> {
    let (_, mut r) = snapshot::open(bytes)?;
    snapshot::next(&mut r, SnapshotParts { parts: &[], whole: true })
}

#[test]
fn a_section_that_says_nothing_new_is_written_as_the_version_before_reads_it() {
    let silent = WithNote { count: 5, note: String::new() };
    let bytes = written(&silent);
    assert!(bytes == written(&Plain { count: 5 }), "{:?}", layouts(&bytes).collect::<Vec<_>>());
    assert_eq!((read(&bytes), read(&bytes)), (Ok(Plain { count: 5 }), Ok(silent)));
    let noted = WithNote { count: 5, note: "n".to_owned() };
    let bytes = written(&noted);
    assert_eq!(read(&bytes), Ok(noted));
    assert_eq!(read::<Plain>(&bytes), Err(SnapshotError::Unexpected { found: 999, version: 2, expected: 999 }));
}

#[test]
fn a_section_is_in_no_snapshot_of_a_log_below_its_level() {
    let kinds = [Readable::of::<WithNote>()];
    let check = |note: &str, level| {
        check_level(&written(&WithNote { count: 5, note: note.to_owned() }), level, kinds.iter().copied())
    };
    assert_eq!((check("", 1), check("n", 7), check("n", 8)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(check("n", 6), Err(SnapshotError::Level { section: 999, version: 2, needs: 7, level: 6 }));
}

#[test]
fn a_snapshot_that_says_what_its_log_cannot_is_refused() {
    let mut log = RecordLog::at_level(1);
    log.apply(begun_anew(3, 2)).unwrap();
    let bytes = log.state.snapshot(RecordPosition(1));
    let (_, read) = read_snapshot(&bytes).unwrap();
    assert_eq!(read.cluster().level(), Some(2));
    // In front of the level: that there is one, id, segment size and key.
    let at = 1 + 16 + 8 + 32;
    let mut cluster = bytes[section(&bytes, 1)].to_vec();
    cluster[at..at + 4].copy_from_slice(&1_u32.to_le_bytes());
    let lower = read_snapshot(&with_section(&bytes, 1, &cluster)).map(drop);
    assert_eq!(lower, Err(SnapshotError::Level { section: 12, version: 2, needs: 2, level: 1 }));
}

#[test]
fn a_state_that_says_what_its_log_cannot_is_not_written_and_is_when_the_log_can() {
    let mut log = RecordLog::at_level(1);
    let replaces = Some(NodeReplaced { node: NodeId(1), by: "op".to_owned(), reason: String::new() });
    let until = log.now.plus_ms(60_000);
    log.apply(Record::NodeInvited(NodeInvited { token: [7; 32], until, votes_at_once: false, replaces })).unwrap();
    let refused = log.state.try_snapshot(RecordPosition(1));
    assert!(matches!(refused, Err(SnapshotError::Level { needs: 2, level: 1, .. })), "{refused:?}");
    // What is held against other replicas is written nowhere.
    let sealed = log.state.sealed_at(RecordPosition(1), 0);
    assert_eq!(sealed, log.replay().sealed_at(RecordPosition(1), 0));
    log.apply(raised(2)).unwrap();
    assert_eq!(log.state.try_snapshot(RecordPosition(1)), Ok(log.state.snapshot(RecordPosition(1))));
}
