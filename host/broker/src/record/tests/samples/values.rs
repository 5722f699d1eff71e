//! What fields of many kinds hold, and any of it.

use std::time::Duration;

use proptest::prelude::*;

use crate::{Generation, GroupId, Millis, QueueOffset, ResourceName, TopicId};

/// A name in a namespace, for samples.
pub(super) fn named(text: &str) -> ResourceName {
    ResourceName { namespace: "n".to_owned(), name: text.to_owned() }
}

pub(in crate::record::tests) fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

pub(super) fn offset() -> impl Strategy<Value = QueueOffset> {
    any::<u64>().prop_map(QueueOffset)
}

pub(super) fn generation() -> impl Strategy<Value = Generation> {
    any::<u64>().prop_map(Generation)
}

pub(in crate::record::tests) fn millis() -> impl Strategy<Value = Millis> {
    any::<u64>().prop_map(Millis)
}

pub(super) fn lives() -> impl Strategy<Value = (GroupId, TopicId)> {
    any::<(u32, u32)>().prop_map(|(group, topic)| (GroupId(group), TopicId(topic)))
}

pub(super) fn name() -> impl Strategy<Value = ResourceName> {
    (text(), text()).prop_map(|(namespace, name)| ResourceName { namespace, name })
}

pub(super) fn duration() -> impl Strategy<Value = Duration> {
    (0u64..10_000_000).prop_map(Duration::from_millis)
}
