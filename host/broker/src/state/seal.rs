//! Writing the state and reading it back: a snapshot of what changes, parts of what only grows.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;

use super::leaps::Leaps;
use super::part::{INDEX_ENTRY_LEN, MARK_LEN, Of, Part, PartError, PartWriter, RECENT_ENTRY_LEN};
use super::snapshot::{self, Named};
use super::{SnapshotError, State};

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
        let part = self.unsealed(part)?;
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
    /// remembered for resends. What queues have in no part is left out, since it goes with the next part.
    pub fn tables_bytes(&self) -> u64 {
        const OPEN: usize = 200;
        const LATELY: usize = 64;
        let lately = self.dedup.sent().len() + self.transactions.outcomes.len();
        (self.transactions.open.len() * OPEN + lately * LATELY) as u64
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
    pub fn adopt(&mut self, part: u64, bytes: Bytes) -> Result<(), SnapshotError> {
        let opened = Part::open(part, bytes)?;
        self.fit(&opened).map_err(|why| why.of(part))?;
        self.take_over(&opened);
        Ok(())
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

    /// Writes the whole state; it covers the log up to `position`. What lies in parts is named, the rest is written out.
    pub fn snapshot(&self, position: u64) -> Vec<u8> {
        let mut bytes = snapshot::begin(position);
        snapshot::section(&mut bytes, &self.needed_parts());
        snapshot::section(&mut bytes, &self.cluster);
        snapshot::section(&mut bytes, &self.topics);
        snapshot::section(&mut bytes, &self.groups);
        snapshot::section(&mut bytes, &self.transactions);
        snapshot::section(&mut bytes, &self.dedup);
        snapshot::section(&mut bytes, &self.plugins);
        // Most logs have none, and what is written of them stays as it ever was.
        if self.leaps != Leaps::default() {
            snapshot::section(&mut bytes, &self.leaps);
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
    pub fn from_snapshot(
        bytes: &[u8],
        part: &mut dyn FnMut(u64) -> io::Result<Bytes>,
    ) -> Result<(u64, Self), SnapshotError> {
        let (position, mut r) = snapshot::open(bytes)?;
        let named = snapshot::named(&mut r)?;
        let parts = named.0.iter().map(|(id, named)| {
            let io = |error: io::Error| PartError::Io { kind: error.kind(), why: error.to_string() }.of(*id);
            let opened = Part::open(*id, part(*id).map_err(io)?)?;
            let (named, found) = (*named, opened.checksum);
            if found == named { Ok(opened) } else { Err(PartError::Other { named, found }.of(*id)) }
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let mut state = Self {
            cluster: snapshot::next(&mut r, &parts)?,
            topics: snapshot::next(&mut r, &parts)?,
            groups: snapshot::next(&mut r, &parts)?,
            transactions: snapshot::next(&mut r, &parts)?,
            dedup: snapshot::next(&mut r, &parts)?,
            plugins: snapshot::next(&mut r, &parts)?,
            leaps: if snapshot::is_next::<Leaps>(&r) { snapshot::next(&mut r, &parts)? } else { Leaps::default() },
            named,
        };
        r.end().map_err(SnapshotError::Trailing)?;
        // Snapshots of before retention do not say when a group was last seen: nothing of its is lost for that.
        state.groups.see_unknown(state.cluster.clock);
        Ok((position, state))
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
