//! Bindings: one answer for a topic or group, fixed when it was set (ruling 7).

use std::collections::BTreeSet;

use super::plugins::{delete, delete_tag, push};
use crate::record::{BindingDelete, BindingPut, Record};
use crate::state::{Applied, Effect};
use crate::testing::RecordLog;
use crate::{Refusal, ResourceName};

pub(super) fn put(name: &str, digest: u8, spec: &str, expected_revision: Option<u64>) -> Record {
    let (name, spec) = (name.to_owned(), spec.to_owned());
    let secrets = BTreeSet::new();
    Record::BindingPut(BindingPut {
        name,
        digest: [digest; 32],
        spec,
        expected_revision,
        secrets,
        keeps: None,
        names_life: false,
    })
}

fn to_topics(topics: &str) -> String {
    format!(r#"{{"plugin":"p:1","topics":[{topics}],"grants":{{}},"config":{{"k":"v"}}}}"#)
}

fn unbind(name: &str) -> Record {
    Record::BindingDelete(BindingDelete { name: name.to_owned() })
}

fn with_plugin() -> RecordLog {
    let mut log = RecordLog::new();
    push(&mut log, "p", "1", 1).unwrap();
    log
}

#[test]
fn a_binding_answers_for_the_topics_that_it_names() {
    let mut log = with_plugin();
    let spec = to_topics(r#""orders","bills""#);
    let set = log.apply(put("b", 1, &spec, None)).unwrap();
    assert_eq!(set, Applied::Set { created: true, revision: log.last_position().0 });
    assert_eq!(log.effects, [Effect::Plugins]);
    let (name, binding) = log.state.plugins().binding_of_topic(&ResourceName::plain("bills")).unwrap();
    assert_eq!((name, binding.digest, binding.plugin.as_str()), ("b", [1; 32], "p"));
    assert_eq!((&binding.spec, binding.revision), (&spec, log.last_position().0));
    assert!(log.state.plugins().binding_of_topic(&ResourceName::plain("others")).is_none());
}

#[test]
fn a_binding_answers_for_topics_of_the_namespace_that_it_names() {
    let mut log = with_plugin();
    log.apply(put("of-default", 1, &to_topics(r#""orders""#), None)).unwrap();
    log.apply(put("of-tenant", 1, &to_topics(r#""tenant/orders""#), None)).unwrap();
    for (topic, binding) in [("orders", Some("of-default")), ("tenant/orders", Some("of-tenant")), ("t2/orders", None)]
    {
        let found = log.state.plugins().binding_of_topic(&ResourceName::parse(topic));
        assert_eq!(found.map(|(name, _)| name), binding, "{topic}");
    }
}

#[test]
fn a_second_binding_of_a_topic_or_group_is_a_conflict_that_names_the_first() {
    let mut log = with_plugin();
    let spec = r#"{"plugin":"p:1","topics":["orders"],"groups":["workers"]}"#;
    log.apply(put("first", 1, spec, None)).unwrap();
    for taken in [to_topics(r#""new","orders""#), r#"{"plugin":"p:1","groups":["workers"]}"#.to_owned()] {
        let refusal = log.refused(put("second", 1, &taken, None));
        assert!(matches!(&refusal, Refusal::Conflict(text) if text.contains("first")), "{refusal}");
    }
    log.apply(put("first", 1, &to_topics(r#""other""#), None)).unwrap();
    assert_eq!(log.state.plugins().binding_of_group("workers"), None);
    log.apply(put("second", 1, spec, None)).unwrap();
    assert_eq!(log.state.plugins().binding_of_group("workers").unwrap().0, "second");
}

#[test]
fn a_binding_is_changed_by_its_revision() {
    let mut log = with_plugin();
    let spec = to_topics(r#""orders""#);
    log.apply(put("b", 1, &spec, Some(0))).unwrap();
    let revision = log.last_position().0;
    assert!(matches!(log.refused(put("b", 1, &spec, Some(0))), Refusal::PreconditionFailed(_)));
    assert!(matches!(log.refused(put("c", 1, &spec, Some(revision))), Refusal::PreconditionFailed(_)));
    let changed = log.apply(put("b", 1, &spec, Some(revision))).unwrap();
    assert!(matches!(changed, Applied::Set { created: false, .. }));
}

#[test]
fn a_moved_tag_changes_nothing_until_the_binding_is_set_again() {
    let mut log = with_plugin();
    log.apply(put("b", 1, &to_topics(r#""orders""#), None)).unwrap();
    push(&mut log, "p", "1", 2).unwrap();
    assert_eq!(log.state.plugins().binding("b").unwrap().digest, [1; 32]);
    log.apply(put("b", 2, &to_topics(r#""orders""#), None)).unwrap();
    assert_eq!(log.state.plugins().binding("b").unwrap().digest, [2; 32]);
}

#[test]
fn a_plugin_that_is_bound_is_not_deleted_not_even_by_its_last_tag() {
    let mut log = with_plugin();
    log.apply(put("b", 1, &to_topics(r#""orders""#), None)).unwrap();
    push(&mut log, "p", "1", 2).unwrap();
    for deletion in [delete("p"), delete_tag("p", "1")] {
        let refusal = log.refused(deletion);
        assert!(matches!(&refusal, Refusal::Conflict(text) if text.contains("binding b")), "{refusal}");
    }
    log.apply(unbind("b")).unwrap();
    log.apply(delete("p")).unwrap();
    assert_eq!(log.state.plugins().artifacts().count(), 0);
}

#[test]
fn a_plugin_with_the_same_component_as_a_bound_one_may_go() {
    let mut log = with_plugin();
    push(&mut log, "q", "1", 1).unwrap();
    let by_digest = r#"{"plugin":"p@sha256:01","topics":["orders"]}"#;
    log.apply(put("b", 1, by_digest, None)).unwrap();
    log.apply(delete("q")).unwrap();
    assert!(matches!(log.refused(delete("p")), Refusal::Conflict(_)));
}

#[test]
fn a_bound_component_stays_when_its_tag_goes() {
    let mut log = with_plugin();
    push(&mut log, "p", "2", 2).unwrap();
    log.apply(put("b", 1, &to_topics(r#""orders""#), None)).unwrap();
    log.apply(delete_tag("p", "1")).unwrap();
    assert!(log.state.plugins().artifact(&[1; 32]).is_some());
    log.apply(unbind("b")).unwrap();
    assert!(log.state.plugins().artifact(&[1; 32]).is_none());
    assert!(matches!(log.refused(unbind("b")), Refusal::NotFound(_)));
}

#[test]
fn a_binding_of_nothing_published_or_of_broken_json_is_refused() {
    let mut log = with_plugin();
    log.apply(super::plugins::chunk(3, 0, 4, 4)).unwrap();
    for digest in [3, 9] {
        assert!(matches!(log.refused(put("b", digest, &to_topics(""), None)), Refusal::NotFound(_)));
    }
    assert!(matches!(log.refused(put("b", 1, "{", None)), Refusal::Invalid(_)));
}
