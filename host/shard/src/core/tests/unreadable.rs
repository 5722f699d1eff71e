//! A leader that cannot read what another member lacks.

use vouch_commitlog::LogPosition;
use vouch_consensus::{EntryId, Said};

use super::bench::Bench;
use super::members::{has_all, of_three, with_learners};

/// Whom it asks to lead, since this was last asked.
fn asked_to_lead(bench: &mut Bench) -> Vec<u64> {
    let asks = bench.take_sent().into_iter().filter(|message| message.body == Said::TakeOver);
    asks.map(|message| message.to.0).collect()
}

fn leads(bench: &Bench) -> bool {
    bench.core.leads_in().is_some() && bench.closed.is_none()
}

#[test]
fn another_one_that_has_all_is_asked_to_lead_and_again_after_twice_as_long_while_nobody_does() {
    let mut bench = of_three();
    for node in [2, 3] {
        has_all(&mut bench, node);
    }
    asked_to_lead(&mut bench);
    let mut asked = |after| {
        passes(&mut bench, after);
        asked_to_lead(&mut bench);
        bench.cannot_send(2, LogPosition(0));
        assert!(leads(&bench), "until the other one does");
        asked_to_lead(&mut bench)
    };
    assert_eq!(asked(0), [3]);
    assert!(asked(0).is_empty(), "it takes a moment");
    // What was said was lost, so nobody led since.
    assert_eq!(asked(11), [3]);
    assert!(asked(11).is_empty(), "nothing is written meanwhile, so it is not asked all the time");
    assert_eq!(asked(11), [3]);
}

#[test]
fn whoever_led_and_gave_leadership_back_cannot_read_it_either_and_is_not_asked_before_it_may_have_mended_its_log() {
    let mut bench = of_three();
    for node in [2, 3] {
        has_all(&mut bench, node);
    }
    asked_to_lead(&mut bench);
    bench.cannot_send(2, LogPosition(0));
    assert_eq!(asked_to_lead(&mut bench), [3]);
    leads_and_gives_it_back(&mut bench, 3);
    bench.cannot_send(2, LogPosition(0));
    assert!(asked_to_lead(&mut bench).is_empty(), "it would give it back again");
    passes(&mut bench, 20);
    asked_to_lead(&mut bench);
    bench.cannot_send(2, LogPosition(0));
    assert!(
        asked_to_lead(&mut bench).is_empty() && leads(&bench),
        "it leads on, so that one of them is let go and mends its log"
    );
    passes(&mut bench, 120);
    asked_to_lead(&mut bench);
    bench.cannot_send(2, LogPosition(0));
    assert_eq!(asked_to_lead(&mut bench), [3], "it may have by now");
}

/// This one leads for a moment, and says that node 1 is to lead again.
fn leads_and_gives_it_back(bench: &mut Bench, node: u64) {
    let term = bench.core.leads_in().unwrap() + 1;
    let commit = bench.core.group_standing().unwrap().last;
    bench.say(node, term, Said::Heartbeat { commit }, Vec::new());
    assert_eq!(bench.core.leads_in(), None);
    bench.say(node, term, Said::TakeOver, Vec::new());
    bench.sync();
    bench.say(2, term + 1, Said::Vote { pre: false, granted: true, commit: EntryId::default() }, Vec::new());
    bench.sync();
    for node in [2, 3, 2, 3] {
        has_all(bench, node);
    }
    assert_eq!(bench.core.leads_in(), Some(term + 1));
    asked_to_lead(bench);
}

/// So many seconds pass, in which all others have all.
fn passes(bench: &mut Bench, seconds: u32) {
    for _ in 0..2 * seconds {
        bench.pass(500);
        for node in [2, 3] {
            has_all(bench, node);
        }
    }
}

#[test]
fn where_nobody_else_has_all_it_leads_on_and_all_others_are_served() {
    // Node 3 gets the log, and does not vote.
    let mut bench = with_learners();
    bench.cannot_send(3, LogPosition(0));
    assert_eq!((asked_to_lead(&mut bench), leads(&bench)), (vec![], true));
    let before = bench.entries().len();
    bench.happen(|out| _ = vouch_broker::testing::cluster_init().encode(out)).unwrap_err();
    assert!(bench.entries().len() > before, "what is proposed is written");
}

#[test]
fn what_is_not_committed_yet_nobody_else_may_have_so_it_takes_part_in_nothing_any_more() {
    let mut bench = of_three();
    let end = bench.core.group_standing().unwrap().committed_to.unwrap();
    bench.cannot_send(2, LogPosition(end.0 + 8));
    assert!(leads(&bench), "one that has just begun to lead hears in a moment what is committed");
    passes(&mut bench, 3);
    bench.cannot_send(2, LogPosition(end.0 + 8));
    assert!(!leads(&bench));
    assert!(bench.trace.iter().any(|line| line == "closed by damage []"), "so the others are asked for it");
    assert!(bench.closed.as_ref().is_some_and(|why| why.to_string().contains("no sound entry")), "{:?}", bench.closed);
}
