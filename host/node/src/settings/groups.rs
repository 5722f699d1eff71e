//! Groups: made, changed, deleted, listed, and how far they are.

use vouch_broker::record::{GroupDelete, GroupPut};
use vouch_broker::state::Progress;
use vouch_broker::{GroupConfig, GroupId, NotDone, ResourceName, State};

use super::Settings;
use crate::names::{group_named, topic_text};
use crate::written::written;
use crate::{Expect, GapView, GroupInfo, PAGE_MAX, ProgressView, Written};

impl Settings {
    /// The number of a group; `None` if there is none of that name.
    pub async fn group_id(&self, name: &ResourceName) -> Result<Option<GroupId>, NotDone> {
        self.routes.group_id(name).await
    }

    /// A group; `None` if it does not exist yet.
    pub async fn group(&self, name: &ResourceName) -> Result<Option<GroupInfo>, NotDone> {
        self.routes.group(name).await
    }

    /// Creates a group or replaces its settings. A topic that it names for its dead letters must be there.
    ///
    /// # Errors
    /// A refusal of the name or the settings; [`TopicNotFound`](vouch_broker::Refusal::TopicNotFound) for the dead
    /// letters' topic; [`PreconditionFailed`](vouch_broker::Refusal::PreconditionFailed) where something else is there
    /// than expected.
    pub async fn put_group(&self, name: &str, config: GroupConfig, expect: Expect) -> Result<Written, NotDone> {
        self.writable.check()?;
        let name = group_named(name)?;
        if config.dead_letter_topic.is_some() {
            config.check()?;
            self.topic(&config.dead_letter_topic(&name)).await?;
        }
        config.check()?;
        let put = GroupPut { name, config, expected_revision: expect.revision() };
        written(&self.shard, |out| put.encode(out)).await
    }

    /// What a group missed lately, the latest first.
    ///
    /// # Errors
    /// A refusal where there is no such group, as of all below that name one.
    pub async fn gaps(&self, group: &str) -> Result<Vec<GapView>, NotDone> {
        let name = group_named(group)?;
        let look = move |state: &State| {
            let gaps = state.groups().named(&name)?.gaps().rev();
            Ok(gaps.map(|gap| GapView { topic: topic_text(state, gap.topic), gap: *gap }).collect())
        };
        self.shard.read(look).await?
    }

    /// Deletes a group and its progress. Resolves when that is durable.
    pub async fn delete_group(&self, name: &str) -> Result<(), NotDone> {
        self.writable.check()?;
        let record = GroupDelete { name: group_named(name)? };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Groups in the order of their names, after a name; at most `limit`, and at most [`PAGE_MAX`].
    pub async fn groups(&self, after: Option<ResourceName>, limit: usize) -> Result<Vec<GroupInfo>, NotDone> {
        let list = move |state: &State| {
            let groups = state.groups().iter();
            let groups = groups.filter(|group| after.as_ref().is_none_or(|after| group.name > *after));
            groups
                .take(limit.min(PAGE_MAX))
                .map(|group| GroupInfo {
                    id: group.id,
                    name: group.name.clone(),
                    config: group.config.clone(),
                    revision: group.revision,
                })
                .collect()
        };
        self.shard.read(list).await
    }

    /// Progress of a group on every topic that it received from, in messages.
    pub async fn progress(&self, group: &str) -> Result<Vec<ProgressView>, NotDone> {
        let (name, now) = (group_named(group)?, self.clock.now());
        let look = move |state: &State| {
            let group = state.groups().named(&name)?;
            let view = |(id, progress): (_, &Progress)| {
                let topic = state.topics().get(id)?;
                let unseen: u64 =
                    (0..topic.queue_count()).map(|queue| topic.end(queue).saturating_since(progress.next(queue))).sum();
                let in_flight = progress.in_flight(now);
                let lag = unseen + progress.unfinished();
                Some(ProgressView { topic: topic.name.to_string(), lag, in_flight, ready: lag - in_flight })
            };
            Ok(group.topics().filter_map(view).collect())
        };
        self.shard.read(look).await?
    }
}
