//! Topics and groups, as they are set and shown.

use serde::{Deserialize, Serialize};
use vouch_broker::state::Gap;
use vouch_broker::{GroupConfig, GroupId, ResourceName, TopicConfig, TopicId};

/// What a route needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Its life.
    pub id: TopicId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: TopicConfig,
    /// The resource's tag over HTTP.
    pub revision: u64,
}

/// What the settings of a consumer need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its life.
    pub id: GroupId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: GroupConfig,
    /// The resource's tag over HTTP.
    pub revision: u64,
}

/// An administrator's write: how to treat what is there (`If-Match`, `If-None-Match`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    #[default]
    Anything,
    /// Only if nothing is there.
    Absent,
    /// Only if it has this revision.
    Revision(u64),
}

impl Expect {
    /// The revision that a record demands; 0 for nothing.
    pub(crate) fn revision(self) -> Option<u64> {
        match self {
            Self::Anything => None,
            Self::Absent => Some(0),
            Self::Revision(revision) => Some(revision),
        }
    }
}

/// The result of an administrator's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// It did not exist before.
    pub created: bool,
    /// Its revision now.
    pub revision: u64,
}

/// Progress of a group on one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgressView {
    /// The topic.
    pub topic: String,
    /// Not done: ready and in flight.
    pub lag: u64,
    /// Handed out, not done.
    pub in_flight: u64,
    /// Visible.
    pub ready: u64,
}

/// Messages that a group missed: they were past their retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapView {
    /// The topic; empty if it was deleted so long ago that its name is forgotten.
    pub topic: String,
    /// What is missed there, and when that was recorded.
    pub gap: Gap,
}
