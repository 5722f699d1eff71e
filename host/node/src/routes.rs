//! Topics and groups by their names: what a route, a send or an acknowledgement needs of them. What is known is cached
//! ([`crate::directory`]), once for everybody.

use std::borrow::Cow;
use std::sync::Arc;

use vouch_broker::{GroupId, NotDone, Refusal, ResourceName, State, TopicConfig, TopicId};

use crate::directory::{Directory, TopicRoute};
use crate::forwarding::{ForwardedAsk, Leaders, answer_of};
use crate::served::ServedLog;
use crate::written::put_topic;
use crate::{Expect, GroupInfo, TopicInfo};
use vouch_shard::Shard;

/// Finds topics and groups by their names.
pub(crate) struct Routes {
    pub(crate) shard: Arc<Shard>,
    /// Whom to ask for what this node does not know (ruling 32).
    pub(crate) leaders: Arc<Leaders>,
    /// What is known of topics and groups, emptied when they change.
    pub(crate) directory: Arc<Directory>,
    /// Says whether a topic may lie where a damaged log is not served.
    pub(crate) log: Arc<ServedLog>,
    /// A send to a topic that does not exist makes it.
    pub(crate) makes_topics: bool,
}

impl Routes {
    /// A topic with the turn of its queues.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`], unless it may lie where a damaged log is not served.
    pub(crate) async fn route(&self, name: &ResourceName) -> Result<Arc<TopicRoute>, NotDone> {
        match self.route_here(name).await {
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) if self.leaders.has_others() => {
                let generation = self.directory.generation();
                let ask = || ForwardedAsk::Topic { name: Cow::Borrowed(name), to_send: false };
                let take = |answer| answer_of!(answer, Topic).map(|info| self.directory.put(info, generation));
                self.leaders.done(|| self.route_by_leader(name), ask, take).await
            }
            found => found,
        }
    }

    /// A topic as the node that leads knows it, which this one must be: all that was answered before is in its state.
    pub(crate) async fn route_by_leader(&self, name: &ResourceName) -> Result<Arc<TopicRoute>, NotDone> {
        let generation = self.directory.generation();
        let wanted = name.clone();
        let info = self.shard.lead(move |state, _| topic_info(state, &wanted)).await??;
        Ok(self.directory.put(info, generation))
    }

    /// The same as this node alone knows it.
    pub(crate) async fn route_here(&self, name: &ResourceName) -> Result<Arc<TopicRoute>, NotDone> {
        if let Some(route) = self.directory.route(name) {
            return Ok(route);
        }
        let generation = self.directory.generation();
        let wanted = name.clone();
        let info = self.shard.read(move |state| topic_info(state, &wanted)).await?;
        let info = info.map_err(|refusal| self.log.if_all_is_served(refusal.into()))?;
        Ok(self.directory.put(info, generation))
    }

    /// The same for a send, or for who is about to send: made on the spot where the node makes topics by itself.
    pub(crate) async fn route_for_send(&self, name: &ResourceName) -> Result<Arc<TopicRoute>, NotDone> {
        match self.route_here(name).await {
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) => {}
            found => return found,
        }
        let generation = self.directory.generation();
        let here = || self.route_for_send_here(name);
        let ask = || ForwardedAsk::Topic { name: Cow::Borrowed(name), to_send: true };
        let take = |answer| answer_of!(answer, Topic).map(|info| self.directory.put(info, generation));
        self.leaders.done(here, ask, take).await
    }

    pub(crate) async fn route_for_send_here(&self, name: &ResourceName) -> Result<Arc<TopicRoute>, NotDone> {
        let found = match self.route_here(name).await {
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) if self.leaders.has_others() => {
                self.route_by_leader(name).await
            }
            found => found,
        };
        match found {
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) if self.makes_topics => {
                name.check_new_topic()?;
                let made = put_topic(&self.shard, name.clone(), TopicConfig::default(), Expect::Absent).await;
                match made {
                    // Another send may have made it first.
                    Ok(_) | Err(NotDone::Refused(Refusal::PreconditionFailed(_))) => self.route_here(name).await,
                    Err(refusal) => Err(refusal),
                }
            }
            found => found,
        }
    }

    /// A queue of a topic, in turn: for a message that comes into being here, such as a committed half.
    ///
    /// # Errors
    /// Those of [`Self::route`].
    pub(crate) async fn queue_for(&self, topic: &ResourceName) -> Result<u32, NotDone> {
        self.route(topic).await.map(|route| route.next_queue())
    }

    /// The name of a topic that is or was there.
    ///
    /// # Errors
    /// An internal error for a number that was never given out.
    pub(crate) async fn topic_name(&self, id: TopicId) -> Result<ResourceName, NotDone> {
        let find = move |state: &State| state.topics().name_of(id).cloned();
        let name = self.shard.read(find).await?;
        name.ok_or_else(|| NotDone::internal(format!("topic number {} was never given out", id.0)))
    }

    /// The number of a group; `None` if there is none of that name. Cached, so that an acknowledgement asks nobody.
    pub(crate) async fn group_id(&self, name: &ResourceName) -> Result<Option<GroupId>, NotDone> {
        let directory = &self.directory;
        if let Some(known) = directory.group(name) {
            return Ok(Some(known));
        }
        let generation = directory.generation();
        let found = self.group(name).await?.map(|group| group.id);
        if let Some(id) = found {
            directory.put_group(name.clone(), id, generation);
        }
        Ok(found)
    }

    /// A group; `None` if it does not exist yet.
    pub(crate) async fn group(&self, name: &ResourceName) -> Result<Option<GroupInfo>, NotDone> {
        let found = self.group_here(name).await?;
        if found.is_some() || !self.leaders.has_others() {
            return Ok(found);
        }
        let ask = || ForwardedAsk::Group(Cow::Borrowed(name));
        self.leaders.done(|| self.group_by_leader(name), ask, |answer| answer_of!(answer, Group)).await
    }

    /// A group as the node that leads knows it, which this one must be.
    pub(crate) async fn group_by_leader(&self, name: &ResourceName) -> Result<Option<GroupInfo>, NotDone> {
        let name = name.clone();
        self.shard.lead(move |state, _| group_info(state, &name)).await
    }

    /// The same as this node alone knows it.
    pub(crate) async fn group_here(&self, name: &ResourceName) -> Result<Option<GroupInfo>, NotDone> {
        let name = name.clone();
        self.shard.read(move |state| group_info(state, &name)).await
    }
}

/// A topic, as a route needs it.
fn topic_info(state: &State, name: &ResourceName) -> Result<TopicInfo, Refusal> {
    state.topics().named(name).map(|topic| TopicInfo {
        id: topic.id,
        name: topic.name.clone(),
        config: topic.config.clone(),
        revision: topic.revision,
    })
}

/// A group, as the settings of a consumer need it.
fn group_info(state: &State, name: &ResourceName) -> Option<GroupInfo> {
    state.groups().named(name).ok().map(|group| GroupInfo {
        id: group.id,
        name: group.name.clone(),
        config: group.config.clone(),
        revision: group.revision,
    })
}
