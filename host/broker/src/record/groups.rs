//! Records about groups.

use super::Fields;
use super::codec::{DecodeError, Reader, Writer, ascending};
use crate::{GroupConfig, GroupId, ResourceName, TopicId};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! groups_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A group was created or changed.
            GroupPut,
            /// A group was deleted.
            GroupDelete,
            /// A receive made a group.
            GroupMade,
            /// Groups that nobody used are gone.
            GroupsUnused,
            /// A group receives from a topic for the first time.
            Join,
        }
    };
}
pub(crate) use groups_kinds;

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
    const ONE_ENCODING: bool = false;

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
    /// It begins at the topic's end, whatever the group's settings say.
    pub at_end: bool,
}

impl Fields for Join {
    const KIND: u16 = 7;
    const VERSION: u8 = 2;

    /// The first version begins where the group's settings say.
    fn version(&self) -> u8 {
        if self.at_end { 2 } else { 1 }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { group: GroupId(r.u32("group")?), topic: TopicId(r.u32("topic")?), at_end: false })
    }

    fn read_version(r: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        Self::read(r).map(|join| Self { at_end: version > 1, ..join })
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
    const ONE_ENCODING: bool = false;

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
