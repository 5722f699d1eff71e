//! Records about the filters of a group's members (ruling 12).

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use crate::{GroupId, TagFilter, TagHash, TopicId};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! filters_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A member of a group brought a filter.
            FilterNoted,
            /// No member has these filters any more.
            FiltersGone,
        }
    };
}
pub(crate) use filters_kinds;

pub(crate) fn write_filter(w: &mut Writer<'_>, filter: &TagFilter) {
    match filter {
        TagFilter::All => w.u8(0),
        TagFilter::Tags(tags) => {
            w.u8(1);
            w.varint(tags.len() as u64);
            tags.iter().for_each(|tag| w.u64(tag.0));
        }
    }
}

/// Tags ascend and none is 0, which stands for no tag: a filter has one encoding.
pub(crate) fn read_filter(r: &mut Reader<'_>) -> Result<TagFilter, DecodeError> {
    if !r.flag("filter")? {
        return Ok(TagFilter::All);
    }
    let mut last = 0;
    let tags = r.list("tags", |r| {
        let tag = r.u64("tag")?;
        if tag <= last {
            return Err(DecodeError::Value { field: "tag", value: tag });
        }
        last = tag;
        Ok(TagHash(tag))
    });
    tags.map(TagFilter::Tags)
}

/// A member of a group brought a filter: from here on nothing that it matches is skipped for the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterNoted {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// The filter.
    pub filter: TagFilter,
}

impl Fields for FilterNoted {
    const KIND: u16 = 53;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
        write_filter(w, &self.filter);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { group: GroupId(r.u32("group")?), topic: TopicId(r.u32("topic")?), filter: read_filter(r)? })
    }
}

/// No session had these filters for so long that the group goes on without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiltersGone {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// The filters, ascending: everything first, then by their tags.
    pub filters: Vec<TagFilter>,
}

impl Fields for FiltersGone {
    const KIND: u16 = 54;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
        write_filters(w, self.filters.iter());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { group: GroupId(r.u32("group")?), topic: TopicId(r.u32("topic")?), filters: read_filters(r)? })
    }
}

pub(crate) fn write_filters<'a>(w: &mut Writer<'_>, filters: impl ExactSizeIterator<Item = &'a TagFilter>) {
    w.varint(filters.len() as u64);
    filters.for_each(|filter| write_filter(w, filter));
}

pub(crate) fn read_filters(r: &mut Reader<'_>) -> Result<Vec<TagFilter>, DecodeError> {
    let filters = r.list("filters", read_filter)?;
    if filters.is_sorted_by(|a, b| a < b) {
        Ok(filters)
    } else {
        Err(DecodeError::Value { field: "the order of filters", value: filters.len() as u64 })
    }
}
