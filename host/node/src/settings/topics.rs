//! Topics: made, changed, deleted, listed.

use vouch_broker::record::{TopicDelete, TopicForced};
use vouch_broker::{NotDone, Refusal, ResourceName, State, TopicConfig};

use super::Settings;
use crate::names::topic_named;
use crate::written::put_topic;
use crate::{Expect, PAGE_MAX, TopicInfo, Written};

impl Settings {
    /// A topic.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`].
    pub async fn topic(&self, name: &ResourceName) -> Result<TopicInfo, NotDone> {
        self.routes.route(name).await.map(|route| route.info.clone())
    }

    /// A topic for a route: made on the spot where the node makes topics by itself, and durable then.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`], or a refusal of the name.
    pub async fn topic_for_route(&self, name: &ResourceName) -> Result<TopicInfo, NotDone> {
        self.routes.route_for_send(name).await.map(|route| route.info.clone())
    }

    /// Creates a topic or replaces its settings. Names of topics and groups are read by [`ResourceName::parse`] here
    /// and below. A topic of dead letters is made by the broker; of one that is there retention can be set.
    ///
    /// # Errors
    /// A refusal of the name or the settings; [`Refusal::PreconditionFailed`] where something else is there than
    /// expected.
    pub async fn put_topic(&self, name: &str, config: TopicConfig, expect: Expect) -> Result<Written, NotDone> {
        self.writable.check()?;
        let name = ResourceName::parse(name);
        let expect = match name.is_dead_letter_topic() {
            true => self.may_keep_dead_letters(&name, &config, expect).await?,
            false => {
                name.check_new_topic()?;
                expect
            }
        };
        put_topic(&self.shard, name, config, expect).await
    }

    /// Whether these settings of a topic of dead letters differ from what it has in its retention alone; what to expect of
    /// it, so that it is changed and never made.
    async fn may_keep_dead_letters(
        &self,
        name: &ResourceName,
        config: &TopicConfig,
        expect: Expect,
    ) -> Result<Expect, NotDone> {
        name.check_topic()?;
        let now = self.topic(name).await?;
        let TopicConfig { retention, retention_size, unconsumed, .. } = *config;
        if *config != (TopicConfig { retention, retention_size, unconsumed, ..now.config }) {
            return Err(NotDone::Refused(Refusal::Invalid(format!(
                "{name} is a topic of dead letters: retention, retention_size and unconsumed can be set, everything else \
                 stays as it is; change it with: vouch topic update {name} --retention TIME"
            ))));
        }
        Ok(if matches!(expect, Expect::Anything) { Expect::Revision(now.revision) } else { expect })
    }

    /// Deletes a topic; `force`: even with open transactions, unconsumed messages, or a binding that settles there.
    /// Where a person forces it, call [`Settings::delete_topic_by_force`]. Resolves when that is durable.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`]; [`Refusal::Conflict`] where it is in use and `force` is not set.
    pub async fn delete_topic(&self, name: &str, force: bool) -> Result<(), NotDone> {
        self.writable.check()?;
        let name = topic_named(name)?;
        // Asked here and not where the record is applied: logs of earlier versions have topics deleted under their bindings.
        if !force && let Some(binding) = self.binding_on_topic(&name, true).await? {
            return Err(NotDone::Refused(Refusal::Conflict(format!(
                "topic {name} is used by binding {binding}, which settles its transactions; delete the binding first (vouch \
                 binding delete {binding}), or delete with force=true and leave the binding without its topic"
            ))));
        }
        let record = TopicDelete { name, force };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Deletes a topic with everything in it (CT-2: a recorded door). Who did it and why is kept in the log, durable
    /// when it resolves. Returns what was left behind, in a sentence for each.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`].
    pub async fn delete_topic_by_force(&self, name: &str, by: String, reason: String) -> Result<Vec<String>, NotDone> {
        self.writable.check()?;
        let record = TopicForced { name: topic_named(name)?, by, reason };
        self.shard.propose_one(|out| record.encode(out)).await?;
        // The topic is gone, whatever becomes of this.
        let left = self.binding_on_topic(&record.name, false).await.unwrap_or(None);
        let warning = |binding| {
            let name = &record.name;
            format!(
                "binding {binding} names topic {name}, which is gone: it settles nothing there, until there is a topic of this \
                 name again; set it without the topic, or delete it: vouch binding delete {binding}"
            )
        };
        Ok(left.map(warning).into_iter().collect())
    }

    /// The binding that names a topic which is there, or is not.
    async fn binding_on_topic(&self, name: &ResourceName, exists: bool) -> Result<Option<String>, NotDone> {
        let name = name.clone();
        let find = move |state: &State| {
            let is_there = state.topics().named(&name).is_ok();
            let binding = state.plugins().binding_of_topic(&name);
            binding.filter(|_| is_there == exists).map(|(binding, _)| binding.to_owned())
        };
        self.shard.read(find).await
    }

    /// Topics in the order of their names, after a name, each with how many messages it has; at most `limit`, and at
    /// most [`PAGE_MAX`].
    pub async fn topics(&self, after: Option<ResourceName>, limit: usize) -> Result<Vec<(TopicInfo, u64)>, NotDone> {
        let list = move |state: &State| {
            let topics = state.topics().iter();
            let topics = topics.filter(|topic| after.as_ref().is_none_or(|after| topic.name > *after));
            topics
                .take(limit.min(PAGE_MAX))
                .map(|topic| {
                    let info = TopicInfo {
                        id: topic.id,
                        name: topic.name.clone(),
                        config: topic.config.clone(),
                        revision: topic.revision,
                    };
                    (info, topic.messages())
                })
                .collect()
        };
        self.shard.read(list).await
    }
}
