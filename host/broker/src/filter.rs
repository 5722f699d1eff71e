//! Tag filters (FI-1): which messages of a topic a consumer asks for.

use xxhash_rust::xxh3::xxh3_64;

/// A tag's 64-bit hash as the queue index keeps it; 0 stands for "no tag".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TagHash(pub u64);

impl TagHash {
    /// The hash of an optional tag.
    pub fn of(tag: Option<&str>) -> Self {
        TagHash(tag.map_or(0, |tag| xxh3_64(tag.as_bytes()).max(1)))
    }
}

/// What one consumer wants of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum TagFilter {
    /// Everything, untagged messages included.
    All,
    /// Messages whose tag is one of these (sorted).
    Tags(Vec<TagHash>),
}

impl TagFilter {
    /// Most tags in one expression.
    pub const TAGS_MAX: usize = 256;

    /// A filter for these tags.
    pub fn tags<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hashes: Vec<_> = tags.into_iter().map(|tag| TagHash::of(Some(tag))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self::Tags(hashes)
    }

    /// Whether a message with this tag is wanted.
    pub fn matches(&self, tag: TagHash) -> bool {
        match self {
            Self::All => true,
            Self::Tags(wanted) => tag.0 != 0 && wanted.binary_search(&tag).is_ok(),
        }
    }

    /// What it costs to remember it: itself and its tags.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::All => 1,
            Self::Tags(tags) => 1 + tags.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_its_tags_and_never_an_untagged_message() {
        let filter = TagFilter::tags(["b", "a", "a"]);
        assert!(filter.matches(TagHash::of(Some("a"))) && filter.matches(TagHash::of(Some("b"))));
        assert!(!filter.matches(TagHash::of(Some("A"))) && !filter.matches(TagHash::of(None)));
        assert!(TagFilter::All.matches(TagHash::of(None)));
        assert!(!TagFilter::tags([]).matches(TagHash::of(None)));
    }
}
