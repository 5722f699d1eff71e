//! Topics and groups by their names: what a route, a send or an acknowledgement needs of them. What is known is cached
//! ([`crate::directory`]), once for everybody.

use std::sync::Arc;

use vouch_broker::{GroupId, NotDone, Refusal, ResourceName, State, TopicConfig, TopicId};

use crate::directory::Route;
use crate::node::{Inner, Settings};
use crate::{Expect, GroupInfo, TopicInfo};

impl Settings {
    /// A topic.
    pub async fn topic(&self, name: &ResourceName) -> Result<TopicInfo, NotDone> {
        self.0.route(name).await.map(|route| route.info.clone())
    }

    /// A topic for a route: made on the spot where the node makes topics by itself.
    pub async fn topic_for_route(&self, name: &ResourceName) -> Result<TopicInfo, NotDone> {
        self.0.route_for_send(name).await.map(|route| route.info.clone())
    }

    /// The number of a group; `None` if there is none of that name.
    pub async fn group_id(&self, name: &ResourceName) -> Result<Option<GroupId>, NotDone> {
        let directory = &self.0.shared.directory;
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
    pub async fn group(&self, name: &ResourceName) -> Result<Option<GroupInfo>, NotDone> {
        let name = name.clone();
        let find = move |state: &State| {
            state.groups().named(&name).ok().map(|group| GroupInfo {
                id: group.id,
                name: group.name.clone(),
                config: group.config.clone(),
                revision: group.revision,
            })
        };
        self.0.shard.read(find).await
    }
}

impl Inner {
    pub(crate) async fn route(&self, name: &ResourceName) -> Result<Arc<Route>, NotDone> {
        if let Some(route) = self.shared.directory.route(name) {
            return Ok(route);
        }
        let generation = self.shared.directory.generation();
        let wanted = name.clone();
        let find = move |state: &State| {
            state.topics().named(&wanted).map(|topic| TopicInfo {
                id: topic.id,
                name: topic.name.clone(),
                config: topic.config.clone(),
                revision: topic.revision,
            })
        };
        let info = self.shard.read(find).await?.map_err(|refusal| self.if_all_is_served(refusal.into()))?;
        Ok(self.shared.directory.put(info, generation))
    }

    pub(crate) async fn route_for_send(&self, name: &ResourceName) -> Result<Arc<Route>, NotDone> {
        match self.route(name).await {
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) if self.config.auto_create_topics => {
                name.check_new_topic()?;
                let made = self.put_topic(name.clone(), TopicConfig::default(), Expect::Absent).await;
                match made {
                    // Another send may have made it first.
                    Ok(_) | Err(NotDone::Refused(Refusal::PreconditionFailed(_))) => self.route(name).await,
                    Err(refusal) => Err(refusal),
                }
            }
            found => found,
        }
    }

    /// A queue of a topic, in turn.
    pub(crate) async fn queue_for(&self, topic: &ResourceName) -> Result<u32, NotDone> {
        self.route(topic).await.map(|route| route.next_queue())
    }

    pub(crate) async fn topic_name(&self, id: TopicId) -> Result<ResourceName, NotDone> {
        let find = move |state: &State| state.topics().name_of(id).cloned();
        let name = self.shard.read(find).await?;
        name.ok_or_else(|| NotDone::internal(format!("topic number {} was never given out", id.0)))
    }
}
