//! Proposals that hang on something: it is looked at when it is their turn, with all before them on its way.

use std::collections::BTreeSet;

use vouch_broker::record::{BindingDelete, BindingPut, End, EndedBy, PluginChunk, PluginPublish};
use vouch_broker::state::Applied;
use vouch_broker::{HalfPosition, NothingStored, State, TransactionOutcome};
use vouch_leader::Leader;

use super::bench::{Bench, Outcomes};
use super::runs::{half, topic_and_group};
use crate::core::{Claim, Request};

/// A core with an open transaction and a binding, as the record at this position set it.
fn bound() -> (Bench, HalfPosition, u64) {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let (digest, verdict) = ([1; 32], "{}".to_owned());
    let chunk = PluginChunk { digest, offset: 0, total: 4, data: vec![7; 4] };
    bench.happen(|out| _ = chunk.encode(out)).unwrap();
    let publish = PluginPublish { name: "p".to_owned(), tag: "1".to_owned(), digest, expected: None, verdict };
    bench.happen(|out| _ = publish.encode(out)).unwrap();
    let spec = r#"{"plugin":"p:1","topics":["t"]}"#.to_owned();
    let put = BindingPut {
        name: "b".to_owned(),
        digest,
        spec,
        expected_revision: None,
        secrets: BTreeSet::new(),
        keeps: None,
        names_life: false,
    };
    let Ok(Applied::Set { revision, .. }) = bench.happen(|out| _ = put.encode(out)) else { panic!("it is set") };
    let (send, mut outcomes) = Bench::send(topic, &half(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    bench.sync();
    match outcomes.try_recv().unwrap().unwrap().remove(0) {
        Ok(Applied::Prepared { transaction }) => (bench, transaction, revision),
        other => panic!("{other:?}"),
    }
}

/// An end by the binding, if it is the same then.
fn end(transaction: HalfPosition, revision: u64) -> (Request, Outcomes) {
    let by = EndedBy::Component { binding: "b".to_owned(), digest: "sha256:1".to_owned() };
    let outcome = TransactionOutcome::RolledBack;
    let end = End { transaction, outcome, queue: 0, by, reason: String::new() };
    let (request, outcomes) = Bench::propose(|out| _ = end.encode(out));
    let Request::Propose(proposal) = request else { panic!("a proposal") };
    let condition = move |state: &State, leader: &Leader| leader.is_bound(state, "b", revision);
    (Request::ProposeIf(Box::new(condition), proposal), outcomes)
}

fn delete() -> (Request, Outcomes) {
    Bench::propose(|out| _ = BindingDelete { name: "b".to_owned() }.encode(out))
}

fn is_open(bench: &Bench, transaction: HalfPosition) -> bool {
    bench.core.state().open_transactions().get(transaction).is_some()
}

#[test]
fn what_a_binding_decides_is_in_the_log_before_its_end_or_not_at_all() {
    // In one entry, in two of which neither is durable, and when the deletion was answered.
    for turns in 0..3 {
        let (mut bench, transaction, revision) = bound();
        let ((delete, mut deleted), (end, mut ended)) = (delete(), end(transaction, revision));
        match turns {
            0 => bench.turn(vec![delete, end]),
            turns => {
                bench.turn(vec![delete]);
                if turns == 2 {
                    bench.sync();
                }
                bench.turn(vec![end]);
            }
        }
        assert_eq!(ended.try_recv().unwrap(), Ok(Vec::new()), "nothing is proposed, which is told at once");
        bench.sync();
        assert!(deleted.try_recv().unwrap().unwrap()[0].is_ok() && is_open(&bench, transaction));
    }
    let (mut bench, transaction, revision) = bound();
    let ((delete, mut deleted), (end, mut ended)) = (delete(), end(transaction, revision));
    bench.turn(vec![end, delete]);
    bench.sync();
    assert!(ended.try_recv().unwrap().unwrap()[0].is_ok() && deleted.try_recv().unwrap().unwrap()[0].is_ok());
    assert!(!is_open(&bench, transaction), "it decided before it went");
}

#[test]
fn a_change_that_the_log_refuses_leaves_the_binding_as_it_was() {
    let (mut bench, transaction, revision) = bound();
    let ((delete, mut deleted), (end, mut ended)) = (delete(), end(transaction, revision));
    bench.fill(true);
    bench.turn(vec![delete]);
    assert!(deleted.try_recv().unwrap().is_err());
    bench.fill(false);
    bench.turn(vec![end]);
    bench.sync();
    assert!(ended.try_recv().unwrap().unwrap()[0].is_ok() && !is_open(&bench, transaction));
}

#[test]
fn a_shard_that_stops_asks_for_no_condition() {
    let (mut bench, transaction, revision) = bound();
    bench.hear(vec![Request::Stop]);
    let (end, mut ended) = end(transaction, revision);
    bench.hear(vec![end]);
    assert_eq!(ended.try_recv().unwrap(), Err(NothingStored::Stopping.into()));
}
