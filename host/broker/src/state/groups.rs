//! Consumer groups with their progress.

use std::collections::BTreeMap;

use super::progress::Progress;
use super::snapshot::{Snapshot, Source, Unreadable};
use crate::record::codec::{Reader, Writer};
use crate::{GroupConfig, GroupId, Refusal, ResourceName, TopicId};

/// Most groups in a cluster.
pub const GROUPS_MAX: usize = 100_000;

/// One consumer group.
#[derive(Debug)]
pub struct Group {
    /// Its life.
    pub id: GroupId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: GroupConfig,
    /// Log position of the record that last changed the settings.
    pub revision: u64,
    progress: BTreeMap<TopicId, Progress>,
}

impl Group {
    /// Progress on a topic; `None` if the group never received from it.
    pub fn progress(&self, topic: TopicId) -> Option<&Progress> {
        self.progress.get(&topic)
    }

    /// Progress on every topic that the group received from.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &Progress)> {
        self.progress.iter().map(|(topic, progress)| (*topic, progress))
    }
}

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    by_id: BTreeMap<GroupId, Group>,
    by_name: BTreeMap<ResourceName, GroupId>,
    last_id: u32,
}

impl Groups {
    /// The group with this name.
    pub fn named(&self, name: &ResourceName) -> Result<&Group, Refusal> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id)).ok_or_else(|| Refusal::GroupNotFound(name.clone()))
    }

    /// The group with this number; `None` once it is deleted.
    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.by_id.get(&id)
    }

    /// All groups in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.by_name.values().filter_map(|id| self.by_id.get(id))
    }

    pub(super) fn put(
        &mut self,
        name: &ResourceName,
        config: &GroupConfig,
        revision: u64,
    ) -> Result<(GroupId, bool), Refusal> {
        if let Some(group) = self.by_name.get(name).and_then(|id| self.by_id.get_mut(id)) {
            group.config = config.clone();
            group.revision = revision;
            return Ok((group.id, false));
        }
        if self.by_id.len() >= GROUPS_MAX {
            return Err(Refusal::TooMany(format!("there are {GROUPS_MAX} groups already; delete one first")));
        }
        self.last_id += 1;
        let id = GroupId(self.last_id);
        let (name, config) = (name.clone(), config.clone());
        self.by_name.insert(name.clone(), id);
        self.by_id.insert(id, Group { id, name, config, revision, progress: BTreeMap::new() });
        Ok((id, true))
    }

    pub(super) fn delete(&mut self, id: GroupId) {
        if let Some(group) = self.by_id.remove(&id) {
            self.by_name.remove(&group.name);
        }
    }

    /// Begins the group's progress on a topic; one that is there already stays.
    pub(super) fn join(
        &mut self,
        group: GroupId,
        topic: TopicId,
        make: impl FnOnce(&GroupConfig) -> Progress,
    ) -> Result<(), Refusal> {
        let Some(Group { progress, config, .. }) = self.by_id.get_mut(&group) else {
            return Err(Refusal::NotFound("the group was deleted; receive again to make it anew".to_owned()));
        };
        progress.entry(topic).or_insert_with(|| make(config));
        Ok(())
    }

    /// Progress that a handle or lease refers to.
    pub(super) fn progress_mut(&mut self, group: GroupId, topic: TopicId) -> Result<&mut Progress, Refusal> {
        self.by_id
            .get_mut(&group)
            .and_then(|group| group.progress.get_mut(&topic))
            .ok_or(Refusal::InvalidHandle("its group or topic was deleted"))
    }

    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        for group in self.by_id.values_mut() {
            group.progress.remove(&topic);
        }
    }
}

impl Snapshot for Groups {
    const SECTION: u16 = 3;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.last_id);
        w.varint(self.by_id.len() as u64);
        for group in self.by_id.values() {
            w.u32(group.id.0);
            w.name(&group.name);
            w.json(&group.config);
            w.u64(group.revision);
            w.varint(group.progress.len() as u64);
            for (topic, progress) in &group.progress {
                w.u32(topic.0);
                progress.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>, _: &Source<'_>) -> Result<Self, Unreadable> {
        let mut groups = Groups { last_id: r.u32("last group")?, ..Groups::default() };
        for _ in 0..r.count("groups")? {
            let group = Group {
                id: GroupId(r.u32("group")?),
                name: r.name("group name")?,
                config: r.json("group settings")?,
                revision: r.u64("revision")?,
                progress: r
                    .list("progress", |r| Ok((TopicId(r.u32("topic")?), Progress::read(r)?)))?
                    .into_iter()
                    .collect(),
            };
            groups.by_name.insert(group.name.clone(), group.id);
            groups.by_id.insert(group.id, group);
        }
        Ok(groups)
    }
}
