//! A disk in memory that records every write and sync, and can say what may be on it after a power cut.
//!
//! Rules: what was written before a `sync` that succeeded is durable; of all else each sector may be or not, and so may each
//! change of a name before a `sync_directory`. A failed write-back loses what was pending for good: a later sync succeeds
//! without it, as on Linux, and the failure is reported once to each open file description.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::event::{DiskEvent, Image, PowerLoss, SimFault};
use super::handed_out::HandedOut;
use super::platter::{Platter, rename};
use super::rng::Rng;
use crate::disk::{Disk, File, Mapping};
use crate::settled::Fixed;

#[derive(Default)]
pub(super) struct Inode {
    pub(super) data: Vec<u8>,
    /// Everything from here on was never written.
    high: u64,
    /// Blocks are there up to here, written or reserved.
    allocated: u64,
    /// Blocks are written ones up to here, durably.
    written: u64,
    failures: u64,
}

pub(super) struct State {
    pub(super) base: Image,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) inodes: Vec<Inode>,
    pub(super) events: Vec<DiskEvent>,
    faults: Vec<SimFault>,
    /// The journal was aborted.
    aborted: bool,
    bytes_read: u64,
    /// Ranges of files that the medium cannot read any more.
    unreadable: Vec<(usize, std::ops::Range<u64>)>,
    handed_out: HandedOut,
}

impl State {
    fn readable(&self, inode: usize, from: u64, len: u64) -> io::Result<()> {
        let bad = |(broken, range): &(usize, std::ops::Range<u64>)| {
            *broken == inode && range.start < from + len && range.end > from
        };
        if self.unreadable.iter().any(bad) { Err(io_error()) } else { Ok(()) }
    }
}

impl State {
    /// Whether anything can be changed for good.
    fn changes(&self) -> io::Result<()> {
        if self.aborted { Err(rustix::io::Errno::ROFS.into()) } else { Ok(()) }
    }

    /// Whether there is enough for what takes memory, and perhaps a descriptor.
    fn enough(&self, opens: bool) -> io::Result<()> {
        if self.faults.contains(&SimFault::Memory) {
            return Err(rustix::io::Errno::NOMEM.into());
        }
        if opens && self.faults.contains(&SimFault::Descriptors) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(())
    }

    fn replay(&mut self, event: &DiskEvent) {
        match event {
            DiskEvent::Create { name, inode } => {
                assert_eq!(*inode, self.inodes.len());
                self.inodes.push(Inode::default());
                self.names.insert(name.clone(), *inode);
            }
            DiskEvent::Remove { name } => drop(self.names.remove(name)),
            DiskEvent::Rename { from, to } => rename(&mut self.names, from, to),
            DiskEvent::Size { inode, size } => self.inodes[*inode].data.resize(*size as usize, 0),
            DiskEvent::Write { inode, offset, data } => {
                let inode = &mut self.inodes[*inode];
                let end = *offset + data.len() as u64;
                inode.data[*offset as usize..end as usize].copy_from_slice(data);
                inode.high = inode.high.max(end);
                inode.allocated = inode.allocated.max(end);
            }
            DiskEvent::Rotted { inode, offset, data, seen: true } => {
                self.inodes[*inode].data[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
            }
            _ => {}
        }
        self.events.push(event.clone());
    }
}

/// The disk. A clone is another handle to the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// A disk with these files, all of them durable.
    pub fn new(base: Image) -> Self {
        let names = base.keys().cloned().zip(0..).collect();
        let inode = |data: &Vec<u8>| {
            let len = data.len() as u64;
            Inode { data: data.clone(), high: len, allocated: len, written: len, failures: 0 }
        };
        let inodes = base.values().map(inode).collect();
        Self(Arc::new(Mutex::new(State {
            base,
            names,
            inodes,
            events: Vec::new(),
            faults: Vec::new(),
            aborted: false,
            bytes_read: 0,
            unreadable: Vec::new(),
            handed_out: HandedOut::default(),
        })))
    }

    /// The same disk after the first `events`, as the next process finds it when this one was killed: what was not
    /// synced can be read, and can still be lost. Where the journal was aborted nothing can be done before the file system
    /// is mounted again, and then what was lost cannot be read.
    pub fn fork(&self, events: usize) -> Self {
        let lost = |event: &DiskEvent| matches!(event, DiskEvent::BlocksLost { .. });
        if self.lock().events[..events].iter().any(lost) {
            return Self::new(self.after_power_cut(events, PowerLoss::Nothing, &mut Rng::new(0)));
        }
        let state = self.lock();
        let fork = Self::new(state.base.clone());
        for event in &state.events[..events] {
            fork.lock().replay(event);
        }
        fork
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Notes what happened above the disk, in its place among what happened on it.
    pub fn record(&self, event: DiskEvent) {
        self.lock().events.push(event);
    }

    /// Number of things that happened so far: a place to cut the power.
    pub fn events(&self) -> usize {
        self.lock().events.len()
    }

    /// Bytes of whole pages that went to the medium after the first `events`, but for those of the file `except`: a page
    /// that is written again before it is synced goes there once.
    pub fn bytes_of_pages(&self, events: usize, except: &str) -> u64 {
        let state = self.lock();
        let except = state.names.get(except);
        let (mut dirty, mut pages) = (BTreeMap::<usize, BTreeSet<u64>>::new(), 0);
        for event in &state.events[events..] {
            match event {
                DiskEvent::Write { inode, offset, data } if Some(inode) != except => {
                    let last = (offset + data.len().max(1) as u64 - 1) / 4096;
                    dirty.entry(*inode).or_default().extend(offset / 4096..=last);
                }
                DiskEvent::Sync { inode } => pages += dirty.remove(inode).map_or(0, |pages| pages.len()),
                _ => {}
            }
        }
        (pages + dirty.values().map(BTreeSet::len).sum::<usize>()) as u64 * 4096
    }

    /// Lets an operation fail.
    pub fn inject(&self, fault: SimFault) {
        self.lock().faults.push(fault);
    }

    /// Nothing fails any more that has not failed yet.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// The kernel writes a file's pages back by itself, and fails.
    pub fn fail_writeback(&self, name: &str) {
        let mut state = self.lock();
        let inode = state.names[name];
        state.inodes[inode].failures += 1;
        state.events.push(DiskEvent::WritebackFailed { inode });
    }

    /// The medium cannot read a range of a file any more.
    pub fn break_sectors(&self, name: &str, range: std::ops::Range<u64>) {
        let mut state = self.lock();
        let inode = state.names[name];
        state.unreadable.push((inode, range));
    }

    /// Flips a bit that was written long ago.
    pub fn flip(&self, inode: usize, offset: usize) {
        self.lock().inodes[inode].data[offset] ^= 4;
    }

    /// Up to where the log was durable after the first `events`, as was reported: that far, or up to a later cut below.
    pub fn reported(&self, events: usize) -> u64 {
        self.lock().events[..events].iter().fold(0, |durable, event| match event {
            DiskEvent::Reported { to } => *to,
            DiskEvent::Cut { to } => durable.min(*to),
            _ => durable,
        })
    }

    /// Whether bytes were written over that somebody held then without a copy, and where: they were to stay for ever.
    pub fn changed_under_a_reader(&self) -> Option<String> {
        self.lock().handed_out.changed.clone()
    }

    /// Bytes read by everybody so far.
    pub fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }

    /// Within the first `events`: up to where segments were certainly released, and up to where at most.
    pub fn released(&self, events: usize) -> (u64, u64) {
        let state = self.lock();
        let highest =
            |of: fn(&DiskEvent) -> Option<u64>| state.events[..events].iter().filter_map(of).max().unwrap_or(0);
        let released = highest(|event| if let DiskEvent::Released { start } = event { Some(*start) } else { None });
        let asked = highest(|event| if let DiskEvent::ReleaseAsked { before } = event { Some(*before) } else { None });
        (released, asked)
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> usize {
        self.lock().events.iter().filter(|event| matches!(event, DiskEvent::Sync { .. })).count()
    }

    /// Segment files that were created.
    pub fn creations(&self) -> usize {
        let of_segment = |event: &&DiskEvent| matches!(event, DiskEvent::Create { name, .. } if name.ends_with(".log"));
        self.lock().events.iter().filter(of_segment).count()
    }

    /// Files that were segments before and became segments again, behind the first `events`.
    pub fn recycled_since(&self, events: usize) -> u64 {
        let recycled = |event: &&DiskEvent| matches!(event, DiskEvent::Rename { from, to } if from.ends_with(".spare") && to.ends_with(".log"));
        self.lock().events.iter().skip(events).filter(recycled).count() as u64
    }

    /// What is in the files now, as a process that was killed leaves it.
    pub fn image(&self) -> Image {
        let state = self.lock();
        state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].data.clone())).collect()
    }

    /// A range of a file as it can be read now.
    pub fn bytes_at(&self, name: &str, offset: u64, len: usize) -> Option<Vec<u8>> {
        let state = self.lock();
        let data = &state.inodes[*state.names.get(name)?].data;
        data.get(offset as usize..offset as usize + len).map(<[u8]>::to_vec)
    }

    /// Whether these positions of the log, in segments of this size, are on the disk as they can be read, whatever is lost of
    /// what was not synced.
    pub fn has_for_good(&self, positions: std::ops::Range<u64>, segment_size: u64) -> bool {
        let kept = self.after_power_cut(self.events(), PowerLoss::All, &mut Rng::new(0));
        let segments = (positions.start / segment_size..).map(|number| number * segment_size);
        segments.take_while(|start| *start < positions.end).all(|start| {
            let name = crate::segment::file_name(start);
            let (from, to) = (positions.start.max(start) - start, (positions.end - start).min(segment_size));
            let there = self.bytes_at(&name, from, (to - from) as usize);
            there.as_deref() == kept.get(&name).and_then(|kept| kept.get(from as usize..to as usize))
        })
    }

    /// What is on the disk when the power is cut after the first `events`.
    pub fn after_power_cut(&self, events: usize, loss: PowerLoss, rng: &mut Rng) -> Image {
        let state = self.lock();
        let mut platter = Platter::new(&state.base, state.inodes.len());
        for event in &state.events[..events] {
            platter.take(event);
        }
        platter.cut(loss, rng)
    }
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Disk for SimDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.changes()?;
        state.enough(true)?;
        if state.faults.contains(&SimFault::NoSpace) {
            return Err(no_space());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.events.push(DiskEvent::Create { name: name.to_owned(), inode });
        Ok(Arc::new(SimFile { disk: self.clone(), inode, seen: Mutex::new(0) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = self.lock();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.enough(true)?;
        let seen = Mutex::new(state.inodes[inode].failures);
        Ok(Arc::new(SimFile { disk: self.clone(), inode, seen }))
    }

    fn open_uncached(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.changes()?;
        state.enough(false)?;
        if SimFile::take_fault(&mut state, SimFault::Remove) {
            return Err(io_error());
        }
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.events.push(DiskEvent::Remove { name: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.changes()?;
        state.enough(false)?;
        rename(&mut state.names, from, to);
        state.events.push(DiskEvent::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        if SimFile::take_fault(&mut self.lock(), SimFault::SyncDirectory) {
            return Err(io_error());
        }
        self.lock().changes()?;
        self.record(DiskEvent::SyncDirectory);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    /// Write-back failures that this description has reported.
    seen: Mutex<u64>,
}

impl SimFile {
    fn take_fault(state: &mut State, fault: SimFault) -> bool {
        let at = state.faults.iter().position(|planned| *planned == fault);
        at.map(|at| state.faults.remove(at)).is_some()
    }
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].data.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.changes()?;
        state.inodes[self.inode].data.resize(size as usize, 0);
        state.events.push(DiskEvent::Size { inode: self.inode, size });
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.lock();
        assert!(offset.is_multiple_of(4096) && into.len().is_multiple_of(4096), "reads are aligned");
        state.readable(self.inode, offset, into.len() as u64)?;
        let data = &state.inodes[self.inode].data;
        let from = data.len().min(offset as usize);
        let len = into.len().min(data.len() - from);
        into[..len].copy_from_slice(&data[from..from + len]);
        state.bytes_read += len as u64;
        Ok(len)
    }

    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let mut data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let zeros = data.iter().all(|byte| *byte == 0);
        let end = offset + data.len() as u64;
        if zeros {
            state.enough(false)?;
        }
        if end > state.inodes[self.inode].allocated && state.faults.contains(&SimFault::NoSpace) {
            return Err(no_space());
        }
        let failed = Self::take_fault(&mut state, if zeros { SimFault::WriteOfZeros } else { SimFault::Write });
        if failed {
            data.truncate(data.len() / 2);
        }
        let (start, end) = (offset as usize, offset as usize + data.len());
        state.handed_out.written(self.inode, offset, &data);
        let inode = &mut state.inodes[self.inode];
        assert!(end <= inode.data.len(), "writes stay inside the segment");
        inode.data[start..end].copy_from_slice(&data);
        inode.high = inode.high.max(end as u64);
        inode.allocated = inode.allocated.max(end as u64);
        state.events.push(DiskEvent::Write { inode: self.inode, offset, data });
        if failed { Err(io_error()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.changes()?;
        let Inode { high, written, .. } = state.inodes[self.inode];
        if high > written && Self::take_fault(&mut state, SimFault::NewBlocks) {
            state.aborted = true;
            state.events.push(DiskEvent::BlocksLost { inode: self.inode, from: written });
            return Ok(());
        }
        if Self::take_fault(&mut state, SimFault::Sync) {
            state.inodes[self.inode].failures += 1;
            state.events.push(DiskEvent::WritebackFailed { inode: self.inode });
        }
        let mut seen = self.seen.lock().unwrap();
        let failures = state.inodes[self.inode].failures;
        state.inodes[self.inode].written = high.next_multiple_of(4096);
        // What is still pending reaches the disk, whatever happened before.
        state.events.push(DiskEvent::Sync { inode: self.inode });
        if std::mem::replace(&mut *seen, failures) < failures {
            return Err(io_error());
        }
        Ok(())
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.changes()?;
        state.enough(false)?;
        if state.faults.contains(&SimFault::NoSpace) {
            return Err(no_space());
        }
        let inode = &mut state.inodes[self.inode];
        inode.allocated = inode.allocated.max(offset + len);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.disk.lock().inodes[self.inode].high).then_some(offset))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].high.max(offset))
    }

    fn will_need(&self, _: u64, _: u64) {}

    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        assert!(len <= self.size()?, "a mapping must not reach beyond the file");
        self.disk.lock().enough(false)?;
        Ok(Arc::new(SimMapping { disk: self.disk.clone(), inode: self.inode, len }))
    }
}

struct SimMapping {
    disk: SimDisk,
    inode: usize,
    len: u64,
}

struct Held {
    bytes: Arc<Vec<u8>>,
    _mapping: Arc<SimMapping>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Mapping for SimMapping {
    fn bytes(self: Arc<Self>, range: Fixed) -> Bytes {
        let (offset, len) = range.place();
        let mut bytes = vec![0; len];
        self.copy(offset, &mut bytes);
        let bytes = Arc::new(bytes);
        self.disk.lock().handed_out.add(self.inode, offset, &bytes);
        // As on a real disk, whoever holds the bytes holds the mapping.
        Bytes::from_owner(Held { bytes, _mapping: self })
    }

    fn copy(&self, offset: u64, into: &mut [u8]) {
        assert!(offset + into.len() as u64 <= self.len, "a read leaves the mapping");
        let mut state = self.disk.lock();
        state.bytes_read += into.len() as u64;
        into.copy_from_slice(&state.inodes[self.inode].data[offset as usize..offset as usize + into.len()]);
    }

    fn populate(&self, offset: u64, len: usize) -> io::Result<()> {
        assert!(offset + len as u64 <= self.len, "populating leaves the mapping");
        self.disk.lock().readable(self.inode, offset, len as u64)
    }
}
