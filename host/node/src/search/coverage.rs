//! What a search of a topic goes through: stretches that the lookup index covers, and others that are read message by
//! message, in steps.

use std::ops::Range;
use std::sync::Arc;

use vouch_broker::{NotDone, NothingStored, QueueOffset, TopicId};

use vouch_storage::{LookupFault, LookupFile, QueueStretch};

/// Most messages that one search reads one by one. More wait for the index only after a start from a log without one.
const WALK_MAX: u64 = 8_000_000;

/// Why an attempt at a search ends.
pub(super) enum SearchTrouble {
    /// The caller is told.
    NotDone(NotDone),
    /// This file cannot be used: it is given up, and the search begins again without it.
    Unusable(Arc<LookupFile>, LookupFault),
}

impl From<NotDone> for SearchTrouble {
    fn from(not_done: NotDone) -> Self {
        Self::NotDone(not_done)
    }
}

/// A topic as it is when a search begins: what comes later is not looked for.
#[derive(Clone, Debug)]
pub(super) struct TopicExtent {
    pub(super) topic: TopicId,
    /// Of each queue the offsets that are there.
    pub(super) queues: Vec<Range<QueueOffset>>,
}

/// Offsets of a queue, and the row of a file that covers them.
pub(super) struct Stretch {
    pub(super) queue: u32,
    pub(super) offsets: Range<QueueOffset>,
    pub(super) covered: Option<(Arc<LookupFile>, QueueStretch)>,
}

/// All of a topic in stretches, ascending by queue and offset. A file counts only for what it says that it covers.
pub(super) fn stretches(files: &[Arc<LookupFile>], extent: &TopicExtent) -> Result<Vec<Stretch>, SearchTrouble> {
    let mut rows: Vec<Vec<(Arc<LookupFile>, QueueStretch)>> = extent.queues.iter().map(|_| Vec::new()).collect();
    for file in files {
        let found = file.rows_of(extent.topic).map_err(|fault| SearchTrouble::Unusable(file.clone(), fault))?;
        for row in found {
            if let Some(rows) = rows.get_mut(row.queue as usize) {
                rows.push((file.clone(), row));
            }
        }
    }
    let mut stretches = Vec::new();
    for ((queue, offsets), rows) in (0..).zip(&extent.queues).zip(rows) {
        let mut at = offsets.start;
        let mut push = |offsets: Range<QueueOffset>, covered| {
            if !offsets.is_empty() {
                stretches.push(Stretch { queue, offsets, covered });
            }
        };
        for (file, row) in rows {
            let (first, end) = (row.first.clamp(at, offsets.end), row.end().clamp(at, offsets.end));
            push(at..first, None);
            push(first..end, Some((file, row)));
            at = end;
        }
        push(at..offsets.end, None);
    }
    Ok(stretches)
}

/// How much a search may still read message by message.
pub(super) struct WalkBudget(u64);

impl WalkBudget {
    /// Nothing was read yet.
    pub(super) fn new() -> Self {
        Self(0)
    }

    /// Counts messages that are about to be read.
    pub(super) fn count(&mut self, messages: u64) -> Result<(), NotDone> {
        self.0 += messages;
        if self.0 <= WALK_MAX {
            return Ok(());
        }
        Err(NotDone::NothingStored(NothingStored::TooMany(format!(
            "more than {WALK_MAX} messages of the topic are not in the lookup index yet; try again when it is made (the metric \
             vouch_lookup_missing says how many of its files are to come; a damaged log that is only read gets none)"
        ))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_storage::testing::covering;

    #[test]
    fn every_offset_is_in_one_stretch_whichever_files_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = [
            covering(folder.path(), 1000, &[(1, 0, 0, 50), (2, 0, 0, 9), (2, 1, 0, 5)]),
            covering(folder.path(), 2000, &[(2, 0, 9, 11), (3, 0, 0, 1)]),
            covering(folder.path(), 3000, &[(2, 0, 20, 10), (2, 1, 5, 5), (2, 7, 0, 5)]),
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let queues = [3..35, 0..8, 0..0, 4..6].map(|queue| QueueOffset(queue.start)..QueueOffset(queue.end));
        let extent = TopicExtent { topic: TopicId(2), queues: queues.into() };
        let told = |files: &[&Arc<LookupFile>]| {
            let files: Vec<_> = files.iter().map(|file| (*file).clone()).collect();
            let found = stretches(&files, &extent).unwrap_or_else(|_| panic!("the files are whole"));
            let told = found.into_iter().map(|stretch| {
                let file = stretch.covered.map_or(0, |(file, _)| file.part());
                (stretch.queue, stretch.offsets.start.0, stretch.offsets.end.0, file)
            });
            told.collect::<Vec<_>>()
        };
        let [first, second, third] = &files[..] else { panic!("three files") };
        let all =
            [(0, 3, 9, 1000), (0, 9, 20, 2000), (0, 20, 30, 3000), (0, 30, 35, 0), (1, 0, 5, 1000), (1, 5, 8, 3000)];
        assert_eq!(told(&[first, second, third]), [&all[..], &[(3, 4, 6, 0)]].concat());
        let behind = [(0, 3, 20, 0), (0, 20, 30, 3000), (0, 30, 35, 0), (1, 0, 5, 0), (1, 5, 8, 3000), (3, 4, 6, 0)];
        assert_eq!(told(&[third]), behind);
        assert_eq!(told(&[second]), [(0, 3, 9, 0), (0, 9, 20, 2000), (0, 20, 35, 0), (1, 0, 8, 0), (3, 4, 6, 0)]);
        assert_eq!(told(&[]), [(0, 3, 35, 0), (1, 0, 8, 0), (3, 4, 6, 0)]);
    }
}
