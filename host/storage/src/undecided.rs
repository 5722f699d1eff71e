//! The end of a log of which nobody here knows whether it is committed.

use vouch_commitlog::{Entry, EntryKind};

/// Entries behind those that are known to be committed, as a start finds them.
///
/// One thing is certain of them. A leader writes a change of the members only when the one before is applied, so of the changes among
/// them all but the last are committed, whatever was noted. A start goes by that: one that counted on members of two changes ago
/// could find a majority that has nothing in common with that of its cluster, and decide beside it.
#[derive(Default)]
pub struct UndecidedTail {
    entries: Vec<Entry>,
    /// Where the last change of the members lies among them.
    change: Option<usize>,
}

impl UndecidedTail {
    /// Takes the next entry of the log. Gives those that are committed for certain now, in their order: they are to be applied.
    pub fn take(&mut self, entry: Entry) -> Vec<Entry> {
        let changes = entry.kind == EntryKind::Members;
        let committed = match self.change.filter(|_| changes) {
            Some(before) => self.entries.drain(..=before).collect(),
            None => Vec::new(),
        };
        if changes {
            self.change = Some(self.entries.len());
        }
        self.entries.push(entry);
        committed
    }

    /// What is left undecided.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vouch_commitlog::LogPosition;

    use super::*;

    fn entry(index: u64, kind: EntryKind) -> Entry {
        let at = LogPosition(index * 100);
        let end = LogPosition(index * 100 + 100);
        Entry {
            term: 1,
            index,
            leader_time_ms: 0,
            kind,
            position: at,
            payload_position: at,
            end,
            payload: Bytes::new(),
        }
    }

    #[test]
    fn of_several_changes_of_the_members_all_but_the_last_are_committed() {
        let (mut tail, mut committed) = (UndecidedTail::default(), Vec::new());
        let kinds = [EntryKind::Records, EntryKind::Members, EntryKind::Mark, EntryKind::Members, EntryKind::Members];
        for (kind, index) in kinds.into_iter().chain([EntryKind::Records]).zip(1..) {
            committed.extend(tail.take(entry(index, kind)).into_iter().map(|entry| entry.index));
        }
        assert_eq!(committed, [1, 2, 3, 4]);
        assert_eq!(tail.into_entries().iter().map(|entry| entry.index).collect::<Vec<_>>(), [5, 6]);
    }
}
