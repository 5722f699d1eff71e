//! What a binding that consumes needs beside itself: its groups, which come into being and join its topics, and topics to
//! publish to.

use vouch_broker::record::{GroupPut, Join};
use vouch_broker::{GroupConfig, MessageKind, NotDone, Refusal, ResourceName, State};
use vouch_plugin::Binding;

use super::Components;
use super::document::{BindingDocument, BoundStart};
use crate::consumers::{ConsumerStanding, lag, subscriptions};

/// Refuses a binding whose component does not have what it is bound for.
pub(super) fn check_exports(binding: &Binding, document: &BindingDocument) -> Result<(), NotDone> {
    let lacks = |what: &str, names: &str, world: &str| {
        Err(NotDone::Refused(Refusal::Invalid(format!(
            "the binding names {names}, and its component {what}; name a component of the world {world}, or leave them out"
        ))))
    };
    if !document.topics.is_empty() && !binding.answers_checks() {
        return lacks("answers no checks", "topics", "checkback-plugin");
    }
    if !document.groups.is_empty() && !binding.consumes() {
        return lacks("consumes nothing", "groups", "consumer-plugin");
    }
    Ok(())
}

impl Components {
    /// Refuses subscriptions to topics that do not exist: a misspelt one would wait for ever.
    pub(super) async fn check_subscriptions(&self, document: &BindingDocument) -> Result<(), NotDone> {
        let topics: Vec<ResourceName> = document.subscribed()?.into_iter().map(|(topic, _)| topic).collect();
        let look = move |state: &State| topics.iter().try_for_each(|topic| state.topics().named(topic).map(drop));
        Ok(self.shard.read(look).await??)
    }

    /// What is to be warned of the topics that it may publish to: they may be made later.
    pub(super) async fn missing_targets(&self, document: &BindingDocument) -> Result<Vec<String>, NotDone> {
        let topics: Vec<ResourceName> = document.publishes().collect();
        let look = move |state: &State| {
            let warning = |topic: &ResourceName| match state.topics().named(topic) {
                Err(_) => Some(format!(
                    "the binding may publish to topic {topic}, which does not exist: until it does, that is refused to the component"
                )),
                Ok(found) if !found.config.topic_type.takes(MessageKind::Normal) => Some(format!(
                    "the binding may publish to topic {topic}, which has type {} and takes no such messages",
                    found.config.topic_type.as_str()
                )),
                Ok(_) => None,
            };
            topics.iter().filter_map(warning).collect()
        };
        self.shard.read(look).await
    }

    /// Its groups are there, and have joined its topics, before the binding stands: what is sent from then on is theirs.
    pub(super) async fn join_groups(&self, name: &str, document: &BindingDocument) -> Result<(), NotDone> {
        if document.groups.is_empty() {
            return Ok(());
        }
        self.check_groups_are_free(name, document).await?;
        let topics = document.subscribed()?;
        for group in document.groups.iter().map(|group| ResourceName::parse(group)) {
            let made = GroupPut { name: group.clone(), config: GroupConfig::default(), expected_revision: Some(0) };
            match self.shard.propose_one(|out| made.encode(out)).await {
                // It is there already, with settings of its own.
                Ok(_) | Err(NotDone::Refused(Refusal::PreconditionFailed(_))) => {}
                Err(refusal) => return Err(refusal),
            }
            for (topic, _) in &topics {
                let (of, on) = (group.clone(), topic.clone());
                let look = move |state: &State| {
                    let (group, topic) = (state.groups().named(&of)?, state.topics().named(&on)?.id);
                    Ok::<_, Refusal>(group.progress(topic).is_none().then_some((group.id, topic)))
                };
                if let Some((group, topic)) = self.shard.read(look).await?? {
                    let join = Join { group, topic, at_end: document.start == BoundStart::End };
                    self.shard.propose_one(|out| join.encode(out)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether no other binding has one of these groups: that is decided where the binding is recorded, but a group should not
    /// join topics for a binding that is refused.
    async fn check_groups_are_free(&self, name: &str, document: &BindingDocument) -> Result<(), NotDone> {
        let (name, groups) = (name.to_owned(), document.groups.clone());
        let look = move |state: &State| {
            groups.iter().try_for_each(|group| {
                match state.plugins().binding_of_group(group).filter(|(other, _)| *other != name) {
                    Some((other, _)) => Err(Refusal::Conflict(format!(
                        "group {group} is already served by binding {other}; delete that one, or take the group out of it"
                    ))),
                    None => Ok(()),
                }
            })
        };
        Ok(self.shard.read(look).await??)
    }

    /// The binding that consumes for a group, if one does.
    pub async fn binding_of_group(&self, group: &ResourceName) -> Result<Option<String>, NotDone> {
        let group = group.to_string();
        self.shard.read(move |state| state.plugins().binding_of_group(&group).map(|(name, _)| name.to_owned())).await
    }

    /// How bindings fare that consume, by name, where this node leads.
    pub fn consumer_standings(&self) -> Vec<(String, ConsumerStanding)> {
        self.consumers.list()
    }

    /// How many messages wait for the groups of a binding; `None` if it is gone.
    pub async fn waiting(&self, name: &str) -> Result<Option<u64>, NotDone> {
        let Some(entry) = self.binding(name).await? else { return Ok(None) };
        let all = subscriptions(&entry)?;
        self.shard.read(move |state| Some(lag(state, &all))).await
    }
}
