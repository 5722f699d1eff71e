//! What a node lacks, and who may have it.

use std::collections::{BTreeMap, BTreeSet};

use vouch_cluster::NodeId;
use vouch_commitlog::LogPosition;
use vouch_storage::{StartError, StartProgress, StorageConfig, unsound_segments};

use super::address_book::AddressBook;

/// Why a node takes from others' disks, and where these are. A node that is started with it takes what it lacks before a replica of it
/// runs, and asks one after the other until one has given all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// The other nodes of the cluster, as far as they are known, by their addresses for each other. Those that are gone are asked in
    /// vain, and do no harm.
    pub(crate) nodes: BTreeMap<NodeId, String>,
    /// Any node of the cluster, where the operator named one.
    pub(crate) any: Option<String>,
    /// Where segments of the log begin that cannot be read here. Nothing else is known to be wrong with what this node has: all other
    /// segments that were committed here as a whole are kept, and read like those that come.
    pub(crate) damaged: Vec<LogPosition>,
    /// Parts of the index of which no copy is whole here. They come with the others' snapshot, as all parts do.
    pub(crate) parts: BTreeSet<u64>,
    /// This node served with what it has, and goes on so where nobody gives it the rest for some time.
    pub(crate) can_do_without: bool,
}

impl Lacking {
    /// Whether it is damage for which a node stopped that could have served on.
    pub fn is_damage(&self) -> bool {
        !self.damaged.is_empty() || !self.parts.is_empty()
    }
}

/// What a member lacks whose log did not open, since it is damaged; `None` where nobody else has that log, since it was never one of
/// several or is alone by now, or where nobody is known who could be asked.
///
/// `any`: the address of a node of the cluster, where the operator named one.
///
/// # Errors
/// What the replica noted cannot be read: then nobody knows for whom it voted, and it must not come back under its name.
pub(crate) fn lacks_what_is_damaged(
    storage: &StorageConfig,
    any: Option<String>,
    progress: &StartProgress,
) -> Result<Option<Lacking>, StartError> {
    let Some(damaged) = unsound_segments(storage, progress)? else { return Ok(None) };
    let nodes = AddressBook::read(&storage.data_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "nodes.json cannot be read, which says where the other nodes are");
        BTreeMap::new()
    });
    let is_known = !nodes.is_empty() || any.is_some();
    Ok(is_known.then_some(Lacking { nodes, any, damaged, ..Lacking::default() }))
}
