//! Topics, groups, components and bindings.

use super::{Applied, Effect, Outcome, RecordAt};
use crate::record::{GroupDelete, GroupMade, GroupPut, GroupsUnused, Record, TopicPut};
use crate::state::{Now, Progress, State, Topic};
use crate::{HalfPosition, Millis, Refusal, ResourceName, TopicId};

impl State {
    /// A repeat of the same record is one more revision, unless it says which one it expects. Queues are only ever
    /// added: an offset that was handed out keeps its meaning.
    pub(super) fn topic_put(&mut self, at: RecordAt, put: &TopicPut, effects: &mut Vec<Effect>) -> Outcome {
        let before = self.topics.named(&put.name).ok();
        check_revision("topic", &put.name, before.map_or(0, |topic| topic.revision), put.expected_revision)?;
        let checks = |max_checks| max_checks != 0;
        let checked = before.map(|topic| checks(topic.config.transaction.max_checks));
        let (id, created) = self.topics.put(&put.name, &put.config, at.position.0)?;
        if checked.is_some_and(|checked| checked != checks(put.config.transaction.max_checks)) {
            self.reschedule(at.time, id, effects);
        }
        effects.push(Effect::Directory);
        Ok(Applied::Set { created, revision: at.position.0 })
    }

    /// The checks of a topic were switched on or off: its open transactions follow, as later ones will.
    fn reschedule(&mut self, now: Millis, topic: TopicId, effects: &mut Vec<Effect>) {
        let Ok(policy) = self.topics.get_mut(topic).map(|topic| &topic.config.transaction) else { return };
        let open = &mut self.transactions.open;
        let asked: Vec<_> = open
            .iter(None)
            .filter(|(_, open)| open.topic == topic && open.parked.is_none())
            .map(|(transaction, open)| (transaction, open.clone()))
            .collect();
        for (transaction, mut changed) in asked {
            if changed.overrides.max_checks(policy) == 0 {
                changed.next_due = Millis::NEVER;
            } else if changed.next_due == Millis::NEVER {
                changed.next_due = changed.opened_at.plus_ms(changed.overrides.immunity_ms(policy)).max(now);
                effects.push(Effect::CheckDue(topic, changed.next_due));
            }
            open.put(transaction, changed);
        }
    }

    /// Makes a group, or changes its settings from now on: leases that live keep the deadline that they have.
    pub(super) fn group_put(&mut self, at: RecordAt, put: &GroupPut, effects: &mut Vec<Effect>) -> Outcome {
        let current = self.groups.named(&put.name).map_or(0, |group| group.revision);
        check_revision("group", &put.name, current, put.expected_revision)?;
        let created = self.groups.put(&put.name, &put.config, at.position.0, at.time)?;
        effects.push(Effect::Directory);
        effects.push(Effect::Joined);
        Ok(Applied::Set { created, revision: at.position.0 })
    }

    /// With the group goes what it received. A handle of it that comes later finds no group, and one of the same name
    /// that is made again has another id: it begins anew.
    pub(super) fn group_delete(&mut self, delete: &GroupDelete, effects: &mut Vec<Effect>) -> Outcome {
        let id = self.groups.named(&delete.name)?.id;
        self.groups.delete(id);
        effects.push(Effect::Directory);
        Ok(Applied::Done)
    }

    /// As a receive does that names a group which is not there. Two members may propose it at once: the second finds it
    /// made and is refused, and its receive goes on with the group that is there.
    pub(super) fn group_made(&mut self, at: RecordAt, made: &GroupMade, effects: &mut Vec<Effect>) -> Outcome {
        let current = self.groups.named(&made.name).map_or(0, |group| group.revision);
        check_revision("group", &made.name, current, Some(0))?;
        self.groups.make(&made.name, &made.config, at.position.0, at.time)?;
        effects.push(Effect::Directory);
        effects.push(Effect::Joined);
        Ok(Applied::Set { created: true, revision: at.position.0 })
    }

    /// A group that was used or seen since the record was proposed stays: nothing that anybody finished comes again.
    pub(super) fn groups_unused(&mut self, at: RecordAt, unused: &GroupsUnused, effects: &mut Vec<Effect>) -> Outcome {
        let (mut groups, now) = (0, Now::new(at.time, &self.leaps));
        for id in &unused.groups {
            if self.groups.get(*id).is_some_and(|group| group.is_forgotten(now)) {
                self.groups.delete(*id);
                groups += 1;
            }
        }
        effects.extend((groups > 0).then_some(Effect::Directory));
        Ok(Applied::Forgotten { groups })
    }

    /// Whether anything would be lost is decided here and not by who proposed it: a message may have come between. What
    /// goes with the topic goes in this order: transactions that could no longer end, what groups know of it, the topic
    /// itself; its name stays for dead letters that came from it.
    pub(super) fn topic_delete(&mut self, name: &ResourceName, force: bool, effects: &mut Vec<Effect>) -> Outcome {
        let topic = self.topics.named(name)?;
        let id = topic.id;
        if !force {
            let open = self.transactions.open.in_topic(id);
            if open > 0 {
                return Err(Refusal::Conflict(format!(
                    "topic {name} has {open} open transactions; end them first, or delete with force=true and lose them"
                )));
            }
            let unconsumed = self.unconsumed(topic);
            if unconsumed > 0 {
                return Err(Refusal::Conflict(format!(
                    "topic {name} has {unconsumed} messages that were not consumed; consume them first, or delete with \
                     force=true and lose them"
                )));
            }
        }
        if self.transactions.open.in_topic(id) > 0 {
            let all = self.transactions.open.iter(None);
            let lost: Vec<HalfPosition> =
                all.filter(|(_, open)| open.topic == id).map(|(transaction, _)| transaction).collect();
            for transaction in lost {
                self.transactions.remove(transaction);
            }
        }
        self.groups.forget_topic(id);
        self.topics.delete(id);
        effects.push(Effect::Directory);
        Ok(Applied::Done)
    }

    /// Messages of a topic that some group has not finished; all of them if no group ever joined it.
    fn unconsumed(&self, topic: &Topic) -> u64 {
        let left = |progress: &Progress| {
            let unseen: u64 = (0..topic.queue_count()).map(|q| topic.end(q).saturating_since(progress.next(q))).sum();
            unseen + progress.unfinished()
        };
        self.groups.iter().filter_map(|group| group.progress(topic.id)).map(left).max().unwrap_or(topic.messages_kept())
    }

    /// All that has to do with components. Pieces of one change nothing that anybody sees before the record that
    /// publishes them.
    pub(super) fn plugin_record(&mut self, at: RecordAt, record: &Record, effects: &mut Vec<Effect>) -> Outcome {
        let set = |created| Applied::Set { created, revision: at.position.0 };
        let applied = match record {
            Record::PluginChunk(chunk) => {
                self.plugins.chunk(at.position, chunk);
                return Ok(Applied::Done);
            }
            Record::PluginPublish(publish) => set(self.plugins.publish(publish, at.time)?),
            Record::TagDelete(delete) => self.plugins.delete_tag(&delete.name, &delete.tag).map(|()| Applied::Done)?,
            Record::PluginDelete(delete) => self.plugins.delete(&delete.name).map(|()| Applied::Done)?,
            Record::BindingPut(put) => {
                let current = self.plugins.binding(&put.name).map_or(0, |binding| binding.revision);
                check_revision("binding", &put.name, current, put.expected_revision)?;
                let mut topics = self.topics_of_binding(&put.name);
                let applied = set(self.plugins.bind(put, at.position.0)?);
                topics.extend(self.topics_of_binding(&put.name));
                self.resume_failed(at, &topics, effects);
                applied
            }
            Record::BindingDelete(delete) => {
                let topics = self.topics_of_binding(&delete.name);
                self.plugins.unbind(&delete.name)?;
                self.resume_failed(at, &topics, effects);
                Applied::Done
            }
            other => unreachable!("every other kind is applied by its own function: {other:?}"),
        };
        effects.push(Effect::Plugins);
        Ok(applied)
    }
}

impl State {
    /// Asked before and after a binding changes: transactions of both are asked about again.
    fn topics_of_binding(&self, name: &str) -> Vec<String> {
        self.plugins.binding(name).map_or_else(Vec::new, |binding| binding.topics.clone())
    }
}

/// Whether what is to be changed is still what the caller read; 0 is what does not exist. Decided when the record is
/// applied, so of two that read the same one the first in the log wins.
fn check_revision(
    what: &str,
    name: &dyn std::fmt::Display,
    current: u64,
    expected: Option<u64>,
) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != current => Err(Refusal::PreconditionFailed(format!(
            "{what} {name} was changed meanwhile; read it, then send its ETag in If-Match"
        ))),
        _ => Ok(()),
    }
}
