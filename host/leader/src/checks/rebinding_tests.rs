//! Asks when bindings and topics change under them.

use std::collections::BTreeSet;
use std::sync::Arc;

use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{
    BindingDelete, BindingPut, Frame, MessagePlace, PluginChunk, PluginPublish, Record, TopicForced, TopicPut,
    encode_message,
};
use vouch_broker::state::Outcome;
use vouch_broker::testing::message;
use vouch_broker::{
    MessageKind, Millis, NewMessage, NotDone, NothingStored, ResourceName, State, TopicConfig, TopicId, TopicType,
};

use crate::Leader;
use crate::checks::{Checker, Due};
use crate::testing::next_at;

/// When all checks of this suite are due.
const LATER: Millis = Millis(10_000_000);

struct Bench {
    state: State,
    leader: Leader,
}

fn put_expecting(spec: String, expected_revision: Option<u64>) -> BindingPut {
    BindingPut {
        name: "b".to_owned(),
        digest: [1; 32],
        spec,
        expected_revision,
        secrets: BTreeSet::new(),
        keeps: None,
        names_life: false,
    }
}

fn put(topics: &str) -> Vec<u8> {
    let spec = format!(r#"{{"plugin":"p:1","topics":{topics}}}"#);
    let mut records = Vec::new();
    put_expecting(spec, None).encode(&mut records);
    records
}

fn delete() -> Vec<u8> {
    let mut records = Vec::new();
    BindingDelete { name: "b".to_owned() }.encode(&mut records);
    records
}

impl Bench {
    /// Two topics, each with a half, and a component; nothing is bound.
    fn new() -> Self {
        let state = State::default();
        let mut bench = Self { leader: Leader::of(&state), state };
        let (digest, verdict) = ([1; 32], "{}".to_owned());
        let mut records = Vec::new();
        PluginChunk { digest, offset: 0, total: 4, data: vec![7; 4] }.encode(&mut records);
        PluginPublish { name: "p".to_owned(), tag: "1".to_owned(), digest, expected: None, verdict }
            .encode(&mut records);
        for topic in ["t", "u"] {
            let config = TopicConfig { topic_type: TopicType::Transaction, ..TopicConfig::default() };
            TopicPut { name: ResourceName::plain(topic), config, expected_revision: None }.encode(&mut records);
        }
        for topic in [1, 2] {
            let half = NewMessage { kind: MessageKind::Transaction, ..message(&format!("m{topic}")) };
            let place = MessagePlace { topic: TopicId(topic), queue: 0, stored_at: Millis(1) };
            encode_message(&mut records, place, "producer", &half, CheckOverrides::default());
        }
        bench.happen(&records).unwrap();
        bench
    }

    /// These records are proposed and applied. What came of the last one.
    fn happen(&mut self, records: &[u8]) -> Outcome {
        self.leader.proposed(records);
        self.apply(records)
    }

    fn apply(&mut self, mut records: &[u8]) -> Outcome {
        let mut outcome = None;
        while !records.is_empty() {
            let (frame, rest) = Frame::split(records).unwrap();
            let record = Record::decode(&frame).unwrap();
            let mut effects = Vec::new();
            outcome = Some(self.state.apply(next_at(&self.state), &record, &mut effects));
            self.leader.applied(&self.state, &record, !effects.is_empty());
            self.leader.take_effects(&self.state, effects);
            records = rest;
        }
        outcome.expect("one record at least")
    }

    fn revision(&self) -> u64 {
        self.state.plugins().binding("b").unwrap().revision
    }

    /// What is due, of whoever is bound, or else of a producer.
    fn take(&mut self) -> Vec<Due> {
        let state = &self.state;
        let checker = |topic: &ResourceName| match state.plugins().binding_of_topic(topic) {
            Some((name, entry)) => {
                Some(Checker::Component { binding: name.to_owned(), entry: Arc::new(entry.clone()) })
            }
            None => Some(Checker::Producer),
        };
        self.leader.schedule.take(state, LATER, checker).0
    }
}

#[test]
fn asks_of_a_binding_that_is_another_one_now_are_over_and_their_transactions_due() {
    for change in [delete(), put(r#"["t"]"#), put("[]")] {
        let mut bench = Bench::new();
        bench.happen(&put(r#"["t"]"#)).unwrap();
        let (of_binding, of_producer): (Vec<Due>, Vec<Due>) =
            bench.take().into_iter().partition(|due| matches!(due.checker, Checker::Component { .. }));
        let ([old], [other]) = (of_binding.as_slice(), of_producer.as_slice()) else { panic!("one of each") };
        bench.happen(&change).unwrap();
        assert!(old.ask.is_over() && !bench.leader.schedule.is_under_way(old));
        assert!(bench.leader.schedule.is_under_way(other), "nobody changed who answers for that one");
        let again = bench.take();
        assert_eq!(again.iter().map(|due| due.transaction).collect::<Vec<_>>(), [old.transaction]);
        assert_eq!(again[0].number, 1, "nothing was counted");
    }
}

#[test]
fn a_change_that_was_refused_ends_no_ask() {
    let mut bench = Bench::new();
    bench.happen(&put(r#"["t"]"#)).unwrap();
    let asks = bench.take();
    let mut refused = Vec::new();
    let spec = r#"{"plugin":"p:1","topics":["t"]}"#.to_owned();
    put_expecting(spec, Some(0)).encode(&mut refused);
    assert!(bench.happen(&refused).is_err());
    assert!(asks.iter().all(|due| bench.leader.schedule.is_under_way(due)));
    let revision = bench.revision();
    assert!(bench.leader.is_bound(&bench.state, "b", revision));
}

#[test]
fn asks_about_transactions_that_went_with_their_topic_are_over() {
    let mut bench = Bench::new();
    let asks = bench.take();
    let mut records = Vec::new();
    TopicForced { name: ResourceName::plain("t"), by: "ada".to_owned(), reason: String::new() }.encode(&mut records);
    bench.happen(&records).unwrap();
    assert_eq!(asks.iter().filter(|due| due.ask.is_over()).count(), 1);
    assert_eq!((bench.leader.schedule.asking(), bench.take().len()), (1, 0));
}

#[test]
fn a_binding_decides_nothing_from_when_its_change_is_on_its_way() {
    let mut bench = Bench::new();
    bench.happen(&put(r#"["t"]"#)).unwrap();
    let revision = bench.revision();
    for change in [put(r#"["t"]"#), delete()] {
        assert!(bench.leader.is_bound(&bench.state, "b", revision));
        bench.leader.proposed(&change);
        bench.leader.proposed(&change);
        assert!(!bench.leader.is_bound(&bench.state, "b", revision));
        let full = NotDone::NothingStored(NothingStored::StorageFull("no".to_owned()));
        bench.leader.unproposed(&change, &full);
        assert!(!bench.leader.is_bound(&bench.state, "b", revision), "the other one is still on its way");
        bench.leader.unproposed(&change, &full);
    }
    assert!(bench.leader.is_bound(&bench.state, "b", revision), "none of them got into the log");
    bench.happen(&delete()).unwrap();
    bench.happen(&put(r#"["t"]"#)).unwrap();
    assert!(!bench.leader.is_bound(&bench.state, "b", revision), "one that was made anew is another one");
    assert!(bench.leader.is_bound(&bench.state, "b", bench.revision()));
}
