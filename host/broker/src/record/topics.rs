//! Records about topics.

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use crate::{ResourceName, TopicConfig};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! topics_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A topic was created or changed.
            TopicPut,
            /// A topic was deleted.
            TopicDelete,
            /// A topic was deleted by force, and who did that.
            TopicForced,
        }
    };
}
pub(crate) use topics_kinds;

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
    const ONE_ENCODING: bool = false;

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
