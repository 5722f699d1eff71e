//! What of a sequence of events is on the disk when the power is cut.

use std::collections::BTreeMap;

use super::event::{DiskEvent, Image, PowerLoss};
use super::rng::Rng;

const SECTOR: usize = 512;

/// A rename that follows one which was lost finds nothing to rename.
pub(super) fn rename(names: &mut BTreeMap<String, usize>, from: &str, to: &str) {
    if let Some(inode) = names.remove(from) {
        names.insert(to.to_owned(), inode);
    }
}

#[derive(Default)]
struct Stored {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Pending when a write-back failed: may be on the disk, and no sync changes that.
    adrift: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Size(u64),
    Write(u64, Vec<u8>),
}

impl Change {
    /// The same, sector by sector.
    fn sectors(self) -> Vec<Self> {
        let Self::Write(offset, data) = self else { return vec![self] };
        let (mut at, mut rest, mut sectors) = (offset, data.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (sector, after) = rest.split_at(rest.len().min(SECTOR - at as usize % SECTOR));
            sectors.push(Self::Write(at, sector.to_vec()));
            (at, rest) = (at + sector.len() as u64, after);
        }
        sectors
    }

    /// Whether it reaches into the sector of another one: a page goes to the disk as it is then.
    fn covers(&self, sector: &Self) -> bool {
        match (self, sector) {
            (Self::Write(offset, data), Self::Write(at, _)) => {
                let (from, to) = (*offset as usize / SECTOR, (*offset as usize + data.len()).div_ceil(SECTOR));
                (from..to).contains(&(*at as usize / SECTOR))
            }
            _ => false,
        }
    }
}

/// The disk behind the page cache: what is durable, and what is on its way.
pub(super) struct Platter {
    files: Vec<Stored>,
    names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
}

enum NameChange {
    Set(String, usize),
    Remove(String),
    Rename(String, String),
}

impl Platter {
    pub(super) fn new(base: &Image, inodes: usize) -> Self {
        let mut files: Vec<Stored> =
            base.values().map(|data| Stored { durable: data.clone(), ..Stored::default() }).collect();
        files.resize_with(inodes, Stored::default);
        Self { files, names: base.keys().cloned().zip(0..).collect(), pending_names: Vec::new() }
    }

    pub(super) fn take(&mut self, event: &DiskEvent) {
        match event {
            DiskEvent::Create { name, inode } => self.pending_names.push(NameChange::Set(name.clone(), *inode)),
            DiskEvent::Remove { name } => self.pending_names.push(NameChange::Remove(name.clone())),
            DiskEvent::Rename { from, to } => self.pending_names.push(NameChange::Rename(from.clone(), to.clone())),
            DiskEvent::SyncDirectory => {
                for change in std::mem::take(&mut self.pending_names) {
                    self.change_name(change);
                }
            }
            DiskEvent::Size { inode, size } => self.files[*inode].pending.push(Change::Size(*size)),
            DiskEvent::Write { inode, offset, data } => {
                self.files[*inode].pending.push(Change::Write(*offset, data.clone()));
            }
            DiskEvent::Sync { inode } => {
                let file = &mut self.files[*inode];
                for change in std::mem::take(&mut file.pending) {
                    // What is written over what was lost lies on the disk in its place.
                    file.adrift.retain(|lost| !change.covers(lost));
                    apply(&mut file.durable, &change, |_| true);
                }
            }
            DiskEvent::WritebackFailed { inode } => {
                let file = &mut self.files[*inode];
                file.adrift.extend(std::mem::take(&mut file.pending).into_iter().flat_map(Change::sectors));
            }
            DiskEvent::BlocksLost { inode, from } => {
                let file = &mut self.files[*inode];
                for change in std::mem::take(&mut file.pending) {
                    apply(&mut file.durable, &change, |sector| ((sector * SECTOR) as u64) < *from);
                }
            }
            DiskEvent::Rotted { inode, offset, data, .. } => {
                let (from, to) = (*offset as usize, *offset as usize + data.len());
                self.files[*inode].durable[from..to].copy_from_slice(data);
            }
            DiskEvent::Reported { .. }
            | DiskEvent::Cut { .. }
            | DiskEvent::ReleaseAsked { .. }
            | DiskEvent::Released { .. } => {}
        }
    }

    /// Whether these bytes of a file are durable, and nothing is under way to their sectors.
    pub(super) fn rest(&self, inode: usize, offset: u64, bytes: &[u8]) -> bool {
        let Stored { durable, pending, adrift } = &self.files[inode];
        let range = Change::Write(offset, bytes.to_vec());
        let is_there = offset as usize + bytes.len() <= durable.len();
        is_there && !pending.iter().chain(adrift).any(|change| change.covers(&range) || range.covers(change))
    }

    fn change_name(&mut self, change: NameChange) {
        match change {
            NameChange::Set(name, inode) => drop(self.names.insert(name, inode)),
            NameChange::Remove(name) => drop(self.names.remove(&name)),
            NameChange::Rename(from, to) => rename(&mut self.names, &from, &to),
        }
    }

    pub(super) fn cut(mut self, loss: PowerLoss, rng: &mut Rng) -> Image {
        for (number, change) in std::mem::take(&mut self.pending_names).into_iter().enumerate() {
            let kept = match loss {
                PowerLoss::All => false,
                PowerLoss::Nothing => true,
                PowerLoss::OlderHalf => number % 2 == 1,
                PowerLoss::Sectors => rng.chance(2),
            };
            if kept {
                self.change_name(change);
            }
        }
        for file in &mut self.files {
            // What a failed write-back lost is worst when it is all gone.
            for change in std::mem::take(&mut file.adrift) {
                if !matches!(loss, PowerLoss::All) {
                    apply(&mut file.durable, &change, |_| rng.chance(2));
                }
            }
            let half = file.pending.len() / 2;
            for (number, change) in std::mem::take(&mut file.pending).into_iter().enumerate() {
                match loss {
                    PowerLoss::All => {}
                    PowerLoss::Nothing => apply(&mut file.durable, &change, |_| true),
                    PowerLoss::OlderHalf if number < half => {}
                    PowerLoss::OlderHalf => apply(&mut file.durable, &change, |_| true),
                    PowerLoss::Sectors => apply(&mut file.durable, &change, |_| rng.chance(2)),
                }
            }
        }
        self.names.into_iter().map(|(name, inode)| (name, std::mem::take(&mut self.files[inode].durable))).collect()
    }
}

/// Applies a change to the stored bytes, sector by sector. Bytes beyond the file's size do not exist.
fn apply(stored: &mut Vec<u8>, change: &Change, mut kept: impl FnMut(usize) -> bool) {
    match change {
        Change::Size(size) => {
            if kept(0) {
                stored.resize(*size as usize, 0);
            }
        }
        Change::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                let (from, to) = ((sector * SECTOR).max(start), ((sector + 1) * SECTOR).min(end).min(stored.len()));
                if kept(sector) && from < to {
                    stored[from..to].copy_from_slice(&data[from - start..to - start]);
                }
            }
        }
    }
}
