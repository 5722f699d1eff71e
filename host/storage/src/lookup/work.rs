//! What is to be done about the files, in which order.

use std::collections::BTreeMap;

/// How it stands about the file of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileStanding {
    /// Nobody looked yet.
    Unknown,
    /// There is none that can be used.
    Missing,
    /// It is used.
    Ready,
    /// It could not be made; it is tried again later.
    Failed,
    /// The log has released all that the part covers: nobody looks for what is there.
    Released,
}

/// What is known of the file of one part.
#[derive(Clone, Copy, Debug)]
pub(super) struct WantedFile {
    pub(super) standing: FileStanding,
    /// The part's checksum, where it is known.
    pub(super) checksum: Option<u32>,
    /// It was sealed, or its file found damaged, while the node ran.
    fresh: bool,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Remove files of parts that are not there any more.
    Tidy,
    /// See whether this part's file can be used.
    Open(u64),
    /// Make this part's file.
    Build(u64),
}

/// The parts, by their ids.
#[derive(Debug, Default)]
pub(super) struct LookupWork {
    parts: BTreeMap<u64, WantedFile>,
    untidy: bool,
}

impl LookupWork {
    /// The work of a start, with the checksums of the parts.
    pub(super) fn new(parts: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let unknown = |checksum| WantedFile { standing: FileStanding::Unknown, checksum: Some(checksum), fresh: false };
        Self { parts: parts.into_iter().map(|(part, checksum)| (part, unknown(checksum))).collect(), untidy: true }
    }

    /// From now on there are these parts.
    pub(super) fn sealed(&mut self, parts: &[u64]) {
        self.parts.retain(|part, _| parts.contains(part));
        for part in parts {
            let unknown = WantedFile { standing: FileStanding::Unknown, checksum: None, fresh: true };
            self.parts.entry(*part).or_insert(unknown);
        }
        self.untidy = true;
        self.retry();
    }

    /// What failed is tried again.
    pub(super) fn retry(&mut self) {
        let failed = self.parts.values_mut().filter(|part| part.standing == FileStanding::Failed);
        failed.for_each(|part| part.standing = FileStanding::Unknown);
    }

    /// What to do next: what costs little first, then what was sealed last, which is searched most, then the oldest.
    pub(super) fn next(&mut self) -> Option<Task> {
        if std::mem::take(&mut self.untidy) {
            return Some(Task::Tidy);
        }
        let newest = |wanted: &dyn Fn(&WantedFile) -> bool| self.parts.iter().rfind(|(_, part)| wanted(part));
        let missing = |part: &WantedFile| part.standing == FileStanding::Missing;
        if let Some((part, _)) = newest(&|part| part.standing == FileStanding::Unknown) {
            return Some(Task::Open(*part));
        }
        let fresh = newest(&|part| missing(part) && part.fresh);
        let next = fresh.or_else(|| self.parts.iter().find(|(_, part)| missing(part)));
        next.map(|(part, _)| Task::Build(*part))
    }

    /// Whether something waits for another try.
    pub(super) fn has_failed(&self) -> bool {
        self.parts.values().any(|part| part.standing == FileStanding::Failed)
    }

    pub(super) fn get(&self, part: u64) -> Option<WantedFile> {
        self.parts.get(&part).copied()
    }

    /// Notes how it stands about a part, if it is still there.
    pub(super) fn set(&mut self, part: u64, standing: FileStanding) -> bool {
        let found = self.parts.get_mut(&part);
        found.map(|part| part.standing = standing).is_some()
    }

    /// The file of a part is damaged.
    pub(super) fn damaged(&mut self, part: u64) {
        if let Some(part) = self.parts.get_mut(&part) {
            (part.standing, part.fresh) = (FileStanding::Missing, true);
        }
    }

    /// The last part before this one.
    pub(super) fn before(&self, part: u64) -> Option<u64> {
        self.parts.range(..part).next_back().map(|(part, _)| *part)
    }

    /// Files that there should be and are not.
    pub(super) fn missing(&self) -> u64 {
        let there = |part: &&WantedFile| !matches!(part.standing, FileStanding::Ready | FileStanding::Released);
        self.parts.values().filter(there).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_at_first_then_the_latest_part_is_built_then_the_oldest() {
        let mut work = LookupWork::new([(10, 1), (20, 2), (30, 3)]);
        assert_eq!(work.next(), Some(Task::Tidy));
        for part in [30, 20, 10] {
            assert_eq!(work.next(), Some(Task::Open(part)));
            work.set(part, FileStanding::Missing);
        }
        assert_eq!((work.next(), work.missing()), (Some(Task::Build(10)), 3));
        work.sealed(&[20, 30, 40]);
        assert_eq!(work.next(), Some(Task::Tidy));
        assert!(!work.set(10, FileStanding::Ready), "it went meanwhile");
        assert_eq!((work.next(), work.before(40)), (Some(Task::Open(40)), Some(30)));
        work.set(40, FileStanding::Missing);
        assert_eq!(work.next(), Some(Task::Build(40)));
        work.set(40, FileStanding::Ready);
        assert_eq!(work.next(), Some(Task::Build(20)));
        work.set(20, FileStanding::Failed);
        assert_eq!((work.next(), work.has_failed()), (Some(Task::Build(30)), true));
        work.set(30, FileStanding::Ready);
        work.damaged(40);
        assert_eq!(work.next(), Some(Task::Build(40)));
        work.set(40, FileStanding::Ready);
        assert_eq!((work.next(), work.missing()), (None, 1));
        work.retry();
        assert_eq!(work.next(), Some(Task::Open(20)));
        work.set(20, FileStanding::Released);
        assert_eq!((work.next(), work.missing(), work.has_failed()), (None, 0, false));
    }
}
