//! Bytes of mapped files that were handed out without a copy, as long as somebody holds them: a real disk would change them
//! under whoever reads.

use std::sync::{Arc, Weak};

/// So many are looked through for ones that nobody holds any more.
const MANY: usize = 64;

struct Range {
    inode: usize,
    offset: u64,
    bytes: Weak<Vec<u8>>,
}

/// All that somebody holds.
#[derive(Default)]
pub(super) struct HandedOut {
    ranges: Vec<Range>,
    /// What was changed first, if anything was.
    pub(super) changed: Option<String>,
}

impl HandedOut {
    pub(super) fn add(&mut self, inode: usize, offset: u64, bytes: &Arc<Vec<u8>>) {
        if self.ranges.len() >= MANY {
            self.ranges.retain(|range| range.bytes.strong_count() > 0);
        }
        self.ranges.push(Range { inode, offset, bytes: Arc::downgrade(bytes) });
    }

    /// This is written to a file.
    pub(super) fn written(&mut self, inode: usize, offset: u64, data: &[u8]) {
        for range in self.ranges.iter().filter(|range| range.inode == inode) {
            let Some(held) = range.bytes.upgrade() else { continue };
            let (from, to) =
                (offset.max(range.offset), (offset + data.len() as u64).min(range.offset + held.len() as u64));
            let part = |bytes: &'_ [u8], begins: u64| bytes[(from - begins) as usize..(to - begins) as usize].to_vec();
            if from < to && part(data, offset) != part(&held, range.offset) {
                self.changed.get_or_insert(format!("{from}..{to} of file {inode}"));
            }
        }
    }
}
