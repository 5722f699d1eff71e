//! Feature levels: what a version that is not everywhere yet may write, and what a version does that does not know what comes.

use vouch_broker::record::{
    ClusterBegunAnew, ClusterInit, FEATURE_LEVEL, Frame, LevelRaised, NodeInvited, NodeReplaced, written_from,
};
use vouch_broker::testing::cluster_init;
use vouch_broker::{Millis, NotDone, NothingStored, RecordPosition, Refusal};
use vouch_cluster::{ClusterIncarnation, NodeId};
use vouch_consensus::Said;

use super::bench::Bench;
use super::following::{append, entries, records};
use crate::core::Claim;

/// What belongs to the level behind the first.
fn begun_anew() -> ClusterBegunAnew {
    ClusterBegunAnew {
        incarnation: ClusterIncarnation(7),
        node: NodeId(9),
        since: RecordPosition(0),
        handle_key: [1; 32],
        written_by: "0.2.0".to_owned(),
    }
}

fn raised(level: u32) -> LevelRaised {
    LevelRaised { level, by: "ann".to_owned(), written_by: "9.9.9".to_owned() }
}

/// The level that a record needs.
fn needs(encode: impl FnOnce(&mut Vec<u8>)) -> u32 {
    let record = records(encode);
    let (frame, _) = Frame::split(&record).unwrap();
    written_from(frame.kind(), frame.version())
}

/// A leader of this version, on a log that one of level 1 made.
fn on_an_older_log() -> Bench {
    let mut bench = Bench::before_a_start();
    bench.may_lead_knowing(1);
    assert_eq!(bench.core.state().cluster().level(), Some(1));
    bench
}

#[test]
fn what_belongs_to_a_later_level_is_not_written_before_the_log_has_it() {
    let mut bench = on_an_older_log();
    let written = bench.entries().len();
    // Behind something that may be written, too.
    let both = |out: &mut Vec<u8>| {
        raised(0).encode(out);
        begun_anew().encode(out);
    };
    for encode in
        [Box::new(|out: &mut Vec<u8>| _ = begun_anew().encode(out)) as Box<dyn FnOnce(&mut Vec<u8>)>, Box::new(both)]
    {
        let refused = bench.happen(encode);
        let Err(NotDone::Refused(Refusal::Conflict(why))) = refused else { panic!("{refused:?}") };
        let needs = format!("needs feature level {}", needs(|out| _ = begun_anew().encode(out)));
        assert!(why.contains(&needs) && why.contains("vouch cluster finish-upgrade"), "{why}");
    }
    assert_eq!(bench.entries().len(), written, "nothing was written");
    bench.happen(|out| _ = raised(FEATURE_LEVEL).encode(out)).unwrap();
    let (lower, has) =
        (bench.happen(|out| _ = raised(1).encode(out)), format!("at feature level {FEATURE_LEVEL} already"));
    assert!(matches!(&lower, Err(NotDone::Refused(Refusal::Conflict(why))) if why.contains(&has)), "{lower:?}");
    let (request, mut answer) = Bench::propose(|out| _ = begun_anew().encode(out));
    bench.turn(vec![request]);
    let told = answer.try_recv();
    assert!(!format!("{told:?}").contains("feature level"), "{told:?}");
}

#[test]
fn a_node_is_added_at_any_level_and_replaces_another_from_the_second_on() {
    let mut bench = on_an_older_log();
    let replaced = NodeReplaced { node: NodeId(1), by: "ann".to_owned(), reason: String::new() };
    let invited = |replaces| NodeInvited { token: [7; 32], until: Millis(u64::MAX), votes_at_once: false, replaces };
    bench.happen(|out| _ = invited(None).encode(out)).unwrap();
    let refused = bench.happen(|out| _ = invited(Some(replaced.clone())).encode(out));
    let Err(NotDone::Refused(Refusal::Conflict(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("needs feature level 2") && why.contains("vouch cluster finish-upgrade"), "{why}");
    bench.happen(|out| _ = raised(FEATURE_LEVEL).encode(out)).unwrap();
    bench.happen(|out| _ = invited(Some(replaced)).encode(out)).unwrap();
}

#[test]
fn a_replica_that_does_not_know_the_level_of_its_log_goes_on_no_more_and_says_what_to_start() {
    let mut bench = Bench::member();
    let init: ClusterInit = cluster_init();
    let payloads =
        [Vec::new(), records(|out| _ = init.encode(out)), records(|out| _ = raised(FEATURE_LEVEL + 1).encode(out))];
    let entries = entries(1, &payloads);
    bench.say(2, 1, append(1, 2, &entries), entries);
    bench.sync();
    assert_eq!(bench.core.state().cluster().level(), Some(init.feature_level), "that is not committed yet");
    bench.say(2, 1, Said::Heartbeat { commit: 3 }, Vec::new());
    bench.sync();
    let (request, mut answer) = Bench::send(vouch_broker::TopicId(1), &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![request]);
    let told = answer.try_recv();
    let Ok(Err(NotDone::NothingStored(NothingStored::Poisoned(why)))) = told else { panic!("{told:?}") };
    let needs = format!("needs feature level {} (Vouch 9.9.9)", FEATURE_LEVEL + 1);
    assert!(why.contains(&needs) && why.contains("start a newer version"), "{why}");
}
