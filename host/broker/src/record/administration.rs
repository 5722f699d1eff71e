//! Records about the cluster, topics and groups.

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use super::retention::ascending;
use crate::{GroupConfig, GroupId, Millis, QUEUES_MAX, ResourceName, TopicConfig, TopicId};

/// The first record of every log (ruling 20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInit {
    /// Made once, at random.
    pub cluster_id: [u8; 16],
    /// Bytes in a segment of the log.
    pub segment_size: u64,
    /// Key of the check value in receipt handles.
    pub handle_key: [u8; 32],
    /// Meanings that every node of the cluster understands.
    pub feature_level: u32,
    /// Version of Vouch that made the log.
    pub written_by: String,
}

impl Fields for ClusterInit {
    const KIND: u16 = 1;

    fn write(&self, w: &mut Writer<'_>) {
        w.0.extend_from_slice(&self.cluster_id);
        w.u64(self.segment_size);
        w.0.extend_from_slice(&self.handle_key);
        w.u32(self.feature_level);
        w.text(&self.written_by);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster_id: r.take(16, "cluster id")?.try_into().expect("sixteen bytes were taken"),
            segment_size: r.u64("segment size")?,
            handle_key: r.take(32, "handle key")?.try_into().expect("thirty-two bytes were taken"),
            feature_level: r.u32("feature level")?,
            written_by: r.string("written by")?,
        })
    }
}

/// A node opened the log for writing: tells which version wrote what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStarted {
    /// Version of Vouch.
    pub version: String,
}

impl Fields for NodeStarted {
    const KIND: u16 = 2;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.version);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { version: r.string("version")? })
    }
}

/// The log's time went ahead to that of this entry, and nobody lived through what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leapt {
    /// Until then time went by the boot-time clock. Where the wall clock was followed: until it was first seen ahead.
    pub from: Millis,
    /// A node started, and only the wall clock says that so much time passed: it makes nothing older until
    /// [`LeapsBelieved`]. Otherwise the wall clock was ahead for long enough, and what was stored meanwhile counts as
    /// stored now.
    pub doubted: bool,
}

impl Fields for Leapt {
    const KIND: u16 = 13;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.from.0);
        w.u8(self.doubted.into());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { from: Millis(r.u64("leapt from")?), doubted: r.flag("doubted")? })
    }
}

/// The wall clock agreed with the log's time for long enough: the time that was in doubt did pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeapsBelieved {
    /// Leaps that ended by then.
    pub to: Millis,
}

impl Fields for LeapsBelieved {
    const KIND: u16 = 14;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.to.0);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { to: Millis(r.u64("leaps to")?) })
    }
}

impl Writer<'_> {
    pub(crate) fn name(&mut self, name: &ResourceName) {
        self.text(&name.namespace);
        self.text(&name.name);
    }

    pub(crate) fn json<T: serde::Serialize>(&mut self, value: &T) {
        self.bytes(&serde_json::to_vec(value).expect("settings have string keys and finite numbers only"));
    }
}

impl Reader<'_> {
    /// Settings of a topic. The number of queues is bounded here too: it decides how much memory the topic takes, and
    /// none would leave a message without a place.
    pub(crate) fn topic_config(&mut self) -> Result<TopicConfig, DecodeError> {
        let config: TopicConfig = self.json("topic settings")?;
        if !(1..=QUEUES_MAX).contains(&config.queues) {
            return Err(DecodeError::Value { field: "the number of queues", value: config.queues.into() });
        }
        Ok(config)
    }

    pub(crate) fn name(&mut self, field: &'static str) -> Result<ResourceName, DecodeError> {
        Ok(ResourceName { namespace: self.string(field)?, name: self.string(field)? })
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        serde_json::from_slice(self.bytes(field)?).map_err(|error| DecodeError::Json { field, why: error.to_string() })
    }
}

/// Creates a topic, or replaces its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPut {
    /// The topic.
    pub name: ResourceName,
    /// All its settings.
    pub config: TopicConfig,
    /// Only if the topic still has this revision (`If-Match`); 0: only if it does not exist.
    pub expected_revision: Option<u64>,
}

impl Fields for TopicPut {
    const KIND: u16 = 3;

    fn write(&self, w: &mut Writer<'_>) {
        w.name(&self.name);
        w.json(&self.config);
        w.option(self.expected_revision, |w, revision| w.u64(revision));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.name("topic name")?,
            config: r.topic_config()?,
            expected_revision: r.option("expected revision", |r| r.u64("expected revision"))?,
        })
    }
}

/// Deletes a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDelete {
    /// The topic.
    pub name: ResourceName,
    /// Also if it holds open transactions or unconsumed messages: a recorded door (CT-2).
    pub force: bool,
}

impl Fields for TopicDelete {
    const KIND: u16 = 4;

    fn write(&self, w: &mut Writer<'_>) {
        w.name(&self.name);
        w.u8(u8::from(self.force));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.name("topic name")?, force: r.flag("force")? })
    }
}

/// Deletes a topic with everything in it, whatever that is: what [`TopicDelete`] does by force, with who did it and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicForced {
    /// The topic.
    pub name: ResourceName,
    /// Who, as the request said; empty where it did not.
    pub by: String,
    /// Why; empty where nobody said.
    pub reason: String,
}

impl Fields for TopicForced {
    const KIND: u16 = 39;

    fn write(&self, w: &mut Writer<'_>) {
        w.name(&self.name);
        w.text(&self.by);
        w.text(&self.reason);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.name("topic name")?, by: r.string("by")?, reason: r.string("reason")? })
    }
}

/// Creates a group, or replaces its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPut {
    /// The group.
    pub name: ResourceName,
    /// All its settings.
    pub config: GroupConfig,
    /// Only if the group still has this revision (`If-Match`); 0: only if it does not exist.
    pub expected_revision: Option<u64>,
}

impl Fields for GroupPut {
    const KIND: u16 = 5;

    fn write(&self, w: &mut Writer<'_>) {
        w.name(&self.name);
        w.json(&self.config);
        w.option(self.expected_revision, |w, revision| w.u64(revision));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.name("group name")?,
            config: r.json("group settings")?,
            expected_revision: r.option("expected revision", |r| r.u64("expected revision"))?,
        })
    }
}

/// Deletes a group and its progress on every topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDelete {
    /// The group.
    pub name: ResourceName,
}

impl Fields for GroupDelete {
    const KIND: u16 = 6;

    fn write(&self, w: &mut Writer<'_>) {
        w.name(&self.name);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.name("group name")? })
    }
}

/// A group receives from a topic for the first time: fixes where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
}

impl Fields for Join {
    const KIND: u16 = 7;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { group: GroupId(r.u32("group")?), topic: TopicId(r.u32("topic")?) })
    }
}

/// A receive named a group that did not exist: it comes into being with these settings, and goes again if nobody ever
/// uses it ([`GroupsUnused`]). Refused if it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMade {
    /// The group.
    pub name: ResourceName,
    /// All its settings.
    pub config: GroupConfig,
}

impl Fields for GroupMade {
    const KIND: u16 = 11;

    fn write(&self, w: &mut Writer<'_>) {
        w.name(&self.name);
        w.json(&self.config);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.name("group name")?, config: r.json("group settings")? })
    }
}

/// Groups that receives made, that never finished a message, and whose last session is long over. Where the record is
/// applied each is looked at again: one that was used meanwhile stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsUnused {
    /// Lives of the groups, ascending.
    pub groups: Vec<GroupId>,
}

impl Fields for GroupsUnused {
    const KIND: u16 = 12;

    fn write(&self, w: &mut Writer<'_>) {
        w.varint(self.groups.len() as u64);
        self.groups.iter().for_each(|group| w.u32(group.0));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let groups = r.list("groups", |r| Ok(GroupId(r.u32("group")?)))?;
        ascending("group", groups.iter().map(|group| group.0))?;
        Ok(Self { groups })
    }
}
