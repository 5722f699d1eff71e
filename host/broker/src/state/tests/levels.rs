//! The feature level of a log.

use vouch_cluster::{ClusterIncarnation, NodeId};

use crate::record::{ClusterBegunAnew, FEATURE_LEVEL, LevelRaised, Record, written_from};
use crate::state::{Effect, RecordAt};
use crate::testing::RecordLog;
use crate::{RecordPosition, Refusal, State};

fn raised(level: u32) -> Record {
    Record::LevelRaised(LevelRaised { level, by: "ann".to_owned(), written_by: "0.9.0".to_owned() })
}

#[test]
fn the_level_of_a_log_is_that_of_who_made_it_and_only_goes_up() {
    let at = RecordAt { position: RecordPosition(1), time: crate::Millis(1) };
    let nobodys = State::default().apply(at, &raised(2), &mut Vec::new());
    assert!(matches!(nobodys, Err(Refusal::Conflict(_))), "{nobodys:?}");
    let mut log = RecordLog::new();
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
    let begins = |log: &mut RecordLog, incarnation, node| {
        let anew = ClusterBegunAnew {
            incarnation: ClusterIncarnation(incarnation),
            node: NodeId(node),
            since: RecordPosition(0),
            handle_key: [1; 32],
            written_by: "0.2.0".to_owned(),
        };
        log.apply(Record::ClusterBegunAnew(anew)).unwrap();
    };
    let mut log = RecordLog::new();
    begins(&mut log, 3, 2);
    assert_eq!(log.state.cluster().level(), Some(2));
    log.apply(raised(9)).unwrap();
    begins(&mut log, 4, 3);
    assert_eq!(log.state.cluster().level(), Some(9), "it does not go down");
}

#[test]
fn no_kind_needs_more_than_this_version_knows() {
    let newest = Record::KINDS.iter().map(|kind| written_from(*kind)).max();
    assert_eq!(newest, Some(FEATURE_LEVEL));
}
