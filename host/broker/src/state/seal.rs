//! Writing the state and reading it back: a snapshot of what changes, parts of what only grows.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::dedup::Dedup;
use super::fault::{Gaps, PartError, QueueGap, SnapshotError};
use super::incarnations::Incarnations;
use super::index_entry::INDEX_ENTRY_LEN;
use super::kept::Namespaces;
use super::leaps::Leaps;
use super::members::ClusterMembers;
use super::pages::PartsHealth;
use super::part::{Copies, MARK_LEN, Of, Part, PartWriter, RECENT_ENTRY_LEN};
use super::secrets::SealedSecrets;
use super::snapshot::{self, Named, Readable, SnapshotParts};
use super::transactions::TransactionTables;
use super::{Cluster, Groups, Plugins, State, Topics};
use crate::RecordPosition;
use crate::record::SealedAt;

/// The first fixture that is written today as it was then. Raised whenever anything that could be said before is written in other
/// bytes: replicas that write otherwise, of one version of Vouch or not, are not held against each other.
pub const SNAPSHOT_BYTES_SINCE: u32 = 6;

/// The sections of a snapshot behind that of parts, in their order.
const SECTIONS: [Readable; 6] = [
    Readable::of::<Cluster>(),
    Readable::of::<Topics>(),
    Readable::of::<Groups>(),
    Readable::of::<TransactionTables>(),
    Readable::of::<Dedup>(),
    Readable::of::<Plugins>(),
];

/// Those behind them, which are left out where they would say what every log begins with.
const LAST_SECTIONS: [Readable; 5] = [
    Readable::of::<Leaps>(),
    Readable::of::<ClusterMembers>(),
    Readable::of::<SealedSecrets>(),
    Readable::of::<Namespaces>(),
    Readable::of::<Incarnations>(),
];

/// All sections, in their order.
pub(super) fn sections() -> impl Iterator<Item = Readable> + Clone {
    std::iter::once(Readable::of::<Named>()).chain(SECTIONS).chain(LAST_SECTIONS)
}

impl State {
    /// Moves everything that only grows and is in no part yet into a new part, and returns its bytes: the caller stores
    /// them under `part` before it stores a snapshot that names them. `None` if there is nothing new.
    ///
    /// `part` is the log position that the state covers. Queues read from the returned bytes from now on.
    ///
    /// # Panics
    ///
    /// If `part` is not above the ids of the parts before: entries are read back in the order of their parts.
    pub fn seal(&mut self, part: u64) -> Option<Bytes> {
        let mut part = self.unsealed(part)?;
        part.health = self.health.of(part.id);
        self.take_over(&part);
        Some(part.bytes())
    }

    /// The bytes of the part that [`State::seal`] would make, for a caller that stores them first and then lets the state
    /// [`State::adopt`] what it reads back.
    ///
    /// # Panics
    ///
    /// As [`State::seal`].
    pub fn next_part(&self, part: u64) -> Option<Bytes> {
        self.unsealed(part).map(|part| part.bytes())
    }

    fn unsealed(&self, part: u64) -> Option<Part> {
        let (sent, outcomes) = (self.dedup.sent().unsealed(), self.transactions.outcomes.table().unsealed());
        let mut rows = usize::from(sent > 0) + usize::from(outcomes > 0);
        let mut entries_len = (sent + outcomes) * RECENT_ENTRY_LEN;
        for count in self.topics.unsealed() {
            rows += 1;
            entries_len += count * INDEX_ENTRY_LEN;
        }
        let marks = self.topics.unsealed_topics().count();
        rows += marks;
        entries_len += marks * MARK_LEN;
        if rows == 0 {
            return None;
        }
        assert!(self.is_next(part), "part {part} is not above the parts before it");
        let mut out = PartWriter::new(part, rows, entries_len);
        self.topics.write_rows(&mut out);
        self.dedup.sent().write_row(&mut out);
        self.transactions.outcomes.table().write_row(&mut out);
        self.topics.write_marks(self.cluster.clock, &mut out);
        Some(out.finish())
    }

    /// About how many bytes of memory the tables take that grow with use: open transactions, outcomes, messages that are
    /// remembered for resends, what bindings keep. What queues have in no part is left out, since it goes with the next part.
    pub fn tables_bytes(&self) -> u64 {
        const OPEN: usize = 200;
        const LATELY: usize = 64;
        let lately = self.dedup.sent().len() + self.transactions.outcomes.len();
        (self.transactions.open.len() * OPEN + lately * LATELY) as u64 + self.kept.bytes()
    }

    /// Takes over a part that another state sealed: what it holds of the queues leaves memory and is read from `bytes`,
    /// and later snapshots name it. It must say what this state says, entry by entry: the first entries that are in no
    /// part, or entries that this state forgot meanwhile. Topics that were deleted are passed over.
    ///
    /// Costs a comparison of all entries of the part that are still there.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Part`] if the part is damaged or does not fit. Nothing is changed then; go on without it.
    pub fn adopt(&mut self, part: u64, copies: impl Into<Copies>) -> Result<(), SnapshotError> {
        let mut opened = Part::open(part, copies)?;
        self.fit(&opened).map_err(|why| why.of(part))?;
        opened.health = self.health.of(part);
        self.take_over(&opened);
        Ok(())
    }

    /// Reads from now on from these bytes of a part that it reads from already: copies that were made again. One that it
    /// does not need any more is none of its business.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Part`] if they are another part, or damaged in head or table. Nothing is changed then.
    pub fn read_from(&mut self, part: u64, copies: Copies) -> Result<(), SnapshotError> {
        let Some(named) = self.named.0.get(&part).copied() else { return Ok(()) };
        let opened = Part::open(part, copies)?;
        if opened.checksum != named {
            return Err(PartError::Other { named, found: opened.checksum }.of(part));
        }
        self.topics.read_from(&opened);
        self.health.mended(part);
        Ok(())
    }

    /// Messages that are read from a part, as far as they are still there.
    pub fn messages_of_part(&self, part: u64) -> Vec<QueueGap> {
        self.topics.stretches_of(part)
    }

    /// Parts of which one copy was found damaged when something was read from it, and the other one said what was there.
    /// Costs one look where there are none.
    pub fn damaged_parts(&self) -> Vec<u64> {
        self.health.damaged()
    }

    /// Parts of which something was asked that is in neither copy any more. What this state said since then, and did, may
    /// be wrong: it must not go on. Costs one look where there are none.
    pub fn lost_parts(&self) -> Vec<u64> {
        self.health.lost()
    }

    fn is_next(&self, part: u64) -> bool {
        self.named.0.last_key_value().is_none_or(|(last, _)| *last < part)
    }

    fn fit(&mut self, part: &Part) -> Result<(), PartError> {
        if !self.is_next(part.id) {
            return Err(PartError::Misfit("the state has this part already, or a later one"));
        }
        self.topics.fit(part)?;
        if let Some(row) = part.row(Of::Sent) {
            self.dedup.sent().fits(row, &part.entries(row))?;
        }
        if let Some(row) = part.row(Of::Outcomes) {
            self.transactions.outcomes.table().fits(row, &part.entries(row))?;
        }
        Ok(())
    }

    fn take_over(&mut self, part: &Part) {
        self.topics.seal(part);
        if let Some(row) = part.row(Of::Sent) {
            self.dedup.sent_mut().seal(part.id, row);
        }
        if let Some(row) = part.row(Of::Outcomes) {
            self.transactions.outcomes.table_mut().seal(part.id, row);
        }
        self.named = self.needed_parts();
        self.named.0.insert(part.id, part.checksum);
        self.health.retain(|part| self.named.0.contains_key(&part));
    }

    /// Parts that something refers to.
    fn needed_parts(&self) -> Named {
        let lately = self.dedup.sent().parts().chain(self.transactions.outcomes.table().parts());
        let needed: BTreeSet<u64> = self.topics.parts().chain(lately).collect();
        Named(self.named.0.iter().filter(|(part, _)| needed.contains(part)).map(|(part, sum)| (*part, *sum)).collect())
    }

    /// Ids of the parts that a snapshot of this state names, ascending. A part goes when every topic with entries in it
    /// was deleted and what it remembers was forgotten: no later snapshot of this log names it then.
    pub fn parts(&self) -> Vec<u64> {
        self.needed_parts().0.into_keys().collect()
    }

    /// The last part that it reads from; 0 if there is none.
    pub fn last_part(&self) -> u64 {
        self.named.0.last_key_value().map_or(0, |(part, _)| *part)
    }

    /// What this state has at a position at which it was just sealed, everything before which it covers. `since`: what
    /// [`State::last_part`] was before.
    ///
    /// Costs as much as a snapshot.
    pub fn sealed_at(&self, position: RecordPosition, since: u64) -> SealedAt {
        // Which parts there are is left out: a replica that had to make room in between has others, and says the same. Nobody reads
        // these bytes back, so they may say what belongs to a later level.
        let bytes = self.write_snapshot(position, &Named::default());
        SealedAt { position, since, part: self.named.0.get(&position.0).copied(), state: xxh3_64(&bytes) }
    }

    /// Writes the whole state; it covers the log up to `position`. What lies in parts is named, the rest is written out.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Level`] if a record changed the state that belongs to a later feature level than the log has: an older version, to
    /// which this node may go back, could not read the snapshot. Without a new one the log stays.
    pub fn try_snapshot(&self, position: RecordPosition) -> Result<Vec<u8>, SnapshotError> {
        let bytes = self.write_snapshot(position, &self.needed_parts());
        self.check_level(&bytes)?;
        Ok(bytes)
    }

    /// The same of a state that holds nothing above the level of its log: for whoever made it himself.
    ///
    /// # Panics
    ///
    /// Where [`State::try_snapshot`] refuses.
    pub fn snapshot(&self, position: RecordPosition) -> Vec<u8> {
        self.try_snapshot(position).unwrap_or_else(|above| panic!("{above}"))
    }

    fn write_snapshot(&self, position: RecordPosition, parts: &Named) -> Vec<u8> {
        let Self {
            cluster,
            incarnations,
            members,
            leaps,
            topics,
            groups,
            transactions,
            dedup,
            plugins,
            secrets,
            kept,
            named,
            health,
            last_applied,
        } = self;
        // What is known of parts is not of the state, nor how far this one is.
        let _ = (named, health, last_applied);
        let mut bytes = snapshot::begin(position);
        snapshot::section(&mut bytes, parts);
        snapshot::section(&mut bytes, cluster);
        snapshot::section(&mut bytes, topics);
        snapshot::section(&mut bytes, groups);
        snapshot::section(&mut bytes, transactions);
        snapshot::section(&mut bytes, dedup);
        snapshot::section(&mut bytes, plugins);
        // Most logs have none, and what is written of them stays as it ever was.
        if *leaps != Leaps::default() {
            snapshot::section(&mut bytes, leaps);
        }
        if *members != ClusterMembers::default() {
            snapshot::section(&mut bytes, members);
        }
        if *secrets != SealedSecrets::default() {
            snapshot::section(&mut bytes, secrets);
        }
        if *kept != Namespaces::default() {
            snapshot::section(&mut bytes, kept);
        }
        if *incarnations != Incarnations::default() {
            snapshot::section(&mut bytes, incarnations);
        }
        bytes
    }

    /// Reads a state back: the log position that it covers, and the state. `part` gives the bytes of a part that the
    /// snapshot names; queues keep reading from them.
    ///
    /// # Errors
    ///
    /// The snapshot or a part is damaged, of another version, or missing. Never a state that differs from the one that
    /// was written: take an older snapshot, or the log.
    pub fn from_snapshot<C: Into<Copies>>(
        bytes: &[u8],
        part: &mut dyn FnMut(u64) -> io::Result<C>,
    ) -> Result<(RecordPosition, Self), SnapshotError> {
        Self::read_snapshot(bytes, true, &mut |id| part(id).map(Into::into))
    }

    /// The same where parts are lost: whatever of them is damaged or missing in the bytes that `part` gives is left out. A
    /// state to be read and never to be changed; [`State::gaps`] says what is missing in it.
    ///
    /// # Errors
    ///
    /// The snapshot itself is damaged or of another version.
    pub fn from_snapshot_with_gaps<C: Into<Copies>>(
        bytes: &[u8],
        part: &mut dyn FnMut(u64) -> io::Result<C>,
    ) -> Result<(RecordPosition, Self), SnapshotError> {
        Self::read_snapshot(bytes, false, &mut |id| part(id).map(Into::into))
    }

    fn read_snapshot(
        bytes: &[u8],
        whole: bool,
        part: &mut dyn FnMut(u64) -> io::Result<Copies>,
    ) -> Result<(RecordPosition, Self), SnapshotError> {
        let (position, mut r) = snapshot::open(bytes)?;
        let named = snapshot::named(&mut r)?;
        let mut health = PartsHealth::default();
        let mut parts = Vec::with_capacity(named.0.len());
        for (id, named) in &named.0 {
            match open_named(*id, *named, part) {
                Ok(mut opened) => {
                    opened.health = health.of(*id);
                    parts.push(opened);
                }
                Err(why) if whole => return Err(why),
                Err(_) => {}
            }
        }
        if !whole {
            parts.iter_mut().for_each(Part::leave_out_damaged_rows);
        }
        let from = SnapshotParts { parts: &parts, whole };
        let mut state = Self {
            cluster: snapshot::next(&mut r, from)?,
            topics: snapshot::next(&mut r, from)?,
            groups: snapshot::next(&mut r, from)?,
            transactions: snapshot::next(&mut r, from)?,
            dedup: snapshot::next(&mut r, from)?,
            plugins: snapshot::next(&mut r, from)?,
            leaps: snapshot::next_if_there(&mut r, from)?,
            members: snapshot::next_if_there(&mut r, from)?,
            secrets: snapshot::next_if_there(&mut r, from)?,
            kept: snapshot::next_if_there(&mut r, from)?,
            incarnations: snapshot::next_if_there(&mut r, from)?,
            named,
            health,
            last_applied: None,
        };
        r.end().map_err(SnapshotError::Trailing)?;
        state.check_level(bytes)?;
        // Snapshots of before retention do not say when a group was last seen: nothing of its is lost for that.
        state.groups.see_unknown(state.cluster.clock);
        Ok((position, state))
    }

    /// Whether all that a snapshot of this state says may be in a log of its feature level.
    fn check_level(&self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let level = self.cluster.level().unwrap_or(1).max(1);
        snapshot::check_level(bytes, level, sections())
    }

    /// What is missing in a state that was read without some of its parts.
    pub fn gaps(&self) -> Gaps {
        let (sent, outcomes) = (self.dedup.sent().lost(), self.transactions.outcomes.table().lost());
        Gaps { queues: self.topics.gaps(), sent, outcomes }
    }

    /// Whether a snapshot is as it was written, without the parts that it names.
    ///
    /// # Errors
    ///
    /// A checksum does not hold, or it ends early.
    pub fn check_snapshot(bytes: &[u8]) -> Result<(), SnapshotError> {
        snapshot::check(bytes, &SECTIONS, &LAST_SECTIONS)
    }

    /// Ids of the parts that a snapshot names, ascending, and the checksums by which it knows them.
    ///
    /// # Errors
    ///
    /// The snapshot is damaged there, or of another version.
    pub fn parts_of_snapshot(bytes: &[u8]) -> Result<Vec<(u64, u32)>, SnapshotError> {
        let (_, mut r) = snapshot::open(bytes)?;
        snapshot::named(&mut r).map(|named| named.0.into_iter().collect())
    }

    /// The same state without what snapshots of before retention do not say.
    #[cfg(test)]
    pub(crate) fn forget_retention(&mut self) {
        self.topics.forget_received();
        self.groups.see_all(self.cluster.clock);
    }

    /// The same state with everything in memory, as if it had never been sealed.
    #[cfg(test)]
    pub(crate) fn unseal(&mut self) {
        self.topics.unseal();
        self.dedup.sent_mut().unseal();
        self.transactions.outcomes.table_mut().unseal();
        self.named = Named::default();
    }
}

/// The part that a snapshot names by this checksum.
fn open_named(id: u64, named: u32, part: &mut dyn FnMut(u64) -> io::Result<Copies>) -> Result<Part, SnapshotError> {
    let io = |error: io::Error| PartError::io(&error).of(id);
    let opened = Part::open(id, part(id).map_err(io)?)?;
    let found = opened.checksum;
    if found == named { Ok(opened) } else { Err(PartError::Other { named, found }.of(id)) }
}
