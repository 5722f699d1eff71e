//! The little of a file system that the log needs, as traits, so that tests can cut its power; and the real one.

use std::fs;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Advice, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::settled::{Fixed, SettledEnd};

/// One flat folder of files.
///
/// # To ensure correctness
/// - A created, removed or changed name survives a power cut only after `sync_directory` returned.
/// - A call that a signal interrupts is made again: nobody above needs to.
/// - Every `open` makes an open file description of its own: a failed write-back is reported once to each.
pub(crate) trait Disk: Send + Sync {
    fn names(&self) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist yet.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading past the page cache where the system can do that: what is read is what the medium
    /// holds, and nothing else is evicted for it. Reads must be aligned to 4096 bytes, in memory too.
    fn open_uncached(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in one step, which must not be taken.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn sync_directory(&self) -> io::Result<()>;
    /// How a person finds the file, for messages.
    fn path(&self, name: &str) -> PathBuf;
    /// Whether a file that had this name has lost it: somebody took it away.
    fn was_removed(&self, _name: &str) -> bool {
        false
    }
}

/// An open file description.
///
/// # To ensure correctness
/// - What `write_at` wrote is seen by every mapping at once and survives a power cut only after a later `sync`.
/// - A `sync` that returns an error may have dropped the data; a later success proves nothing.
pub(crate) trait File: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Reads as much as there is; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all parts one after the other.
    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes data and size durable, where the blocks of what was written are known to be written ones
    /// ([`crate::segment::WrittenBlocks`]).
    fn sync(&self) -> io::Result<()>;
    /// The same for anything else.
    ///
    /// # To ensure correctness
    /// A block that is new, or reserved and never written, becomes a written one by a change of metadata when its data
    /// is on the medium. Where ext4 cannot make that change, because its journal was aborted just then, it says
    /// so in the kernel's log and not to the sync that waits for it: that one succeeds, and after a power cut the block
    /// reads as zeros (seen on Linux 6.18; [`crate::tests::block_layer`] meets it). Whoever finds the journal aborted marks the file
    /// system before the sync returns, and every sync that begins on such a file system fails. So it takes a second one.
    fn sync_new_blocks(&self) -> io::Result<()> {
        self.sync()?;
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::NEW_BLOCKS_SYNCED_ONCE.injected() {
            return Ok(());
        }
        self.sync()
    }
    /// Reserves space, so that later writes to the range do not fail for want of it.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;
    /// First offset at or after `offset` that is not in a hole; `None` if only holes follow.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// First offset at or after `offset` that is in a hole (the end of the file counts as one).
    fn next_hole(&self, offset: u64) -> io::Result<u64>;
    /// Asks for the range to be read ahead. Only a hint.
    fn will_need(&self, offset: u64, len: u64);
    /// Maps the first `len` bytes; the file must be at least that long and never be cut shorter.
    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>>;
}

/// The bytes of a file in memory.
pub(crate) trait Mapping: Send + Sync {
    /// The bytes of a range that will never change, themselves.
    ///
    /// # Panics
    /// If the range leaves the mapping.
    fn bytes(self: Arc<Self>, range: Fixed) -> Bytes;
    /// Copies a range out. Where somebody writes to it meanwhile the copy may be old in one place and new in another.
    ///
    /// # Panics
    /// If the range leaves the mapping.
    fn copy(&self, offset: u64, into: &mut [u8]);
    /// Reads a range into memory, so that a sector that cannot be read is an error here and not a signal later.
    fn populate(&self, offset: u64, len: usize) -> io::Result<()>;
}

/// `len` bytes from `position` of a log on, which lie at `offset` in the mapping: themselves if they are settled, else a copy.
///
/// # Panics
/// If the range leaves the mapping.
pub(crate) fn bytes_of(
    mapping: Arc<dyn Mapping>,
    settled: &SettledEnd,
    position: u64,
    offset: u64,
    len: usize,
) -> Bytes {
    if let Some(fixed) = settled.fixed(position, offset, len) {
        return mapping.bytes(fixed);
    }
    let mut copy = BytesMut::zeroed(len);
    mapping.copy(offset, &mut copy);
    copy.freeze()
}

/// A folder of the operating system.
///
/// # To ensure correctness
/// - Whatever is changed is changed in the folder that was opened, wherever it was moved since. What lies at its path by
///   then is somebody else's: a spare segment that appeared there would belong to a log of another identity.
pub(crate) struct RealDisk {
    directory: PathBuf,
    /// The folder, open: names are looked up in it, and it is synced without a descriptor more. `None`: nothing is
    /// changed, whoever asks.
    handle: Option<fs::File>,
}

impl RealDisk {
    /// Opens the folder, creating it (durably) if missing.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        if !directory.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let mut child = directory.canonicalize()?;
            // Any of the parents may be new: sync them all, it is done once in a log's life.
            while let Some(parent) = child.parent().map(Path::to_path_buf) {
                if fs::File::open(&parent).and_then(|parent| parent.sync_all()).is_err() {
                    break; // A parent we may not open cannot be one we created.
                }
                child = parent;
            }
        }
        Ok(Self { directory: directory.to_path_buf(), handle: Some(fs::File::open(directory)?) })
    }

    /// The folder, which is neither created nor ever changed through this.
    pub(crate) fn read_only(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf(), handle: None }
    }

    fn may_change(&self) -> io::Result<&fs::File> {
        self.handle.as_ref().ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }

    /// Opens a file of the folder; one that is created is for its owner alone.
    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<RealFile> {
        let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        let opened = retry_on_intr(|| match &self.handle {
            Some(folder) => rustix::fs::openat(folder, name, flags, mode),
            None => rustix::fs::open(self.path(name), flags, mode),
        })?;
        Ok(RealFile(opened.into()))
    }
}

impl Disk for RealDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match &self.handle {
            Some(folder) => rustix::fs::Dir::read_from(folder)?,
            None => rustix::fs::Dir::new(fs::File::open(&self.directory)?)?,
        };
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.may_change()?;
        Ok(Arc::new(self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let access = if self.handle.is_some() { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(Arc::new(self.open_file(name, access)?))
    }

    fn open_uncached(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if let Ok(file) = self.open_file(name, OFlags::RDONLY | OFlags::DIRECT)
            && probe(&file)
        {
            return Ok(Arc::new(file));
        }
        Ok(Arc::new(self.open_file(name, OFlags::RDONLY)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.may_change()?, name, AtFlags::empty())?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let folder = self.may_change()?;
        // The folder is locked by the caller: nobody makes the name between the two steps.
        match rustix::fs::statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(folder, from, folder, to)?),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.may_change()?.sync_all()
    }

    fn was_removed(&self, name: &str) -> bool {
        // Where that cannot be seen, its writes tell.
        matches!(self.path(name).try_exists(), Ok(false))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Whether the file's first page can be read: some file systems promise direct reads and then refuse them.
fn probe(file: &RealFile) -> bool {
    const PAGE: usize = 4096;
    let mut memory = vec![0; 2 * PAGE];
    let aligned = memory.as_ptr().align_offset(PAGE);
    file.read_at(0, &mut memory[aligned..aligned + PAGE]).is_ok()
}

struct RealFile(fs::File);

/// `IOV_MAX` of Linux.
const MAX_PARTS: usize = 1024;

impl File for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A direct read that ended at the end of the file cannot go on from there.
                Err(_) if filled > 0 && offset + filled as u64 >= self.size()? => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        if let [only] = parts {
            return self.0.write_all_at(only, offset);
        }
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match rustix::io::pwritev(&self.0, &parts[..parts.len().min(MAX_PARTS)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let allocate = || rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len);
        match retry_on_intr(allocate) {
            // A file system without reservation: the write itself will tell.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.0, SeekFrom::Hole(offset)) {
            Ok(hole) => Ok(hole),
            Err(Errno::NXIO) => self.size(),
            Err(errno) => Err(errno.into()),
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        // Only a hint: where it fails, the scan faults the pages in by itself.
        let _ = rustix::fs::fadvise(&self.0, offset, NonZeroU64::new(len), Advice::WillNeed);
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Ok(Arc::new(RealMapping(MmapOptions::new().len(len).map_raw_read_only(&self.0)?)))
    }
}

struct RealMapping(MmapRaw);

impl RealMapping {
    fn pointer(&self, offset: u64, len: usize) -> *const u8 {
        let inside =
            usize::try_from(offset).ok().filter(|at| at.checked_add(len).is_some_and(|end| end <= self.0.len()));
        let at = inside.expect("callers keep ranges inside the mapping");
        // SAFETY: `at + len` was just checked to lie inside the one mapped object that the pointer belongs to.
        unsafe { self.0.as_ptr().add(at) }
    }
}

impl Mapping for RealMapping {
    fn bytes(self: Arc<Self>, range: Fixed) -> Bytes {
        let (offset, len) = range.place();
        let start = self.pointer(offset, len);
        Bytes::from_owner(MappedRange { start, len, _mapping: self })
    }

    fn copy(&self, offset: u64, into: &mut [u8]) {
        let start = self.pointer(offset, into.len());
        // SAFETY: `pointer` checked the source range; the destination is an exclusive borrow in our own memory, so the
        // two cannot overlap. No reference to the source is made, so nothing claims that its bytes stay as they are: where
        // the file is written meanwhile (by a system call, never through this mapping, which is read-only) each byte of the
        // copy is the old or the new one, and any byte is a valid `u8`. Whoever copies what may change asks the checksums.
        unsafe { std::ptr::copy_nonoverlapping(start, into.as_mut_ptr(), into.len()) }
    }

    fn populate(&self, offset: u64, len: usize) -> io::Result<()> {
        let page = rustix::param::page_size();
        let first = offset - offset % page as u64;
        let len = len + (offset - first) as usize;
        let start = self.pointer(first, len).cast_mut();
        // SAFETY: the page-aligned range was checked to lie in the mapping; populating for reading changes no byte.
        let populate = || unsafe { rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxPopulateRead) };
        match retry_on_intr(populate) {
            // A kernel before 5.14 does not know the call: the pages are then faulted in one by one.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A range of a mapping, which it keeps alive.
struct MappedRange {
    start: *const u8,
    len: usize,
    _mapping: Arc<RealMapping>,
}

// SAFETY: the pointer is to memory that the mapping, itself `Send` and `Sync`, keeps mapped read-only; it is only read.
unsafe impl Send for MappedRange {}

impl AsRef<[u8]> for MappedRange {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range was checked against the mapping, which lives as long as `self`. It was a `Fixed` one, which only
        // `settled` makes: an entry below the position up to which the log stays as it is (a cut begins above it, what is
        // written again below it are the same bytes, and a released file is used again only when no mapping of it is
        // left), or a whole file that was complete when it was mapped. So the bytes do not change under the reference;
        // and the file is never cut shorter, so no page of it is without backing.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Maps a whole file that is complete and will never change, such as a sealed part of an index: reads cost no copy and no
/// private memory, and removing its name leaves the bytes valid.
///
/// # Errors
/// The file cannot be opened, or a sector of it cannot be read.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    map(path, true)
}

/// The same for a file of which probably nothing will be read: a second copy. Nothing of it is read now, so a sector that
/// cannot be read is a signal later.
///
/// # Errors
/// The file cannot be opened.
pub fn map_spare_file(path: &Path) -> io::Result<Bytes> {
    map(path, false)
}

fn map(path: &Path, read_now: bool) -> io::Result<Bytes> {
    let file = RealFile(fs::File::open(path)?);
    let len = file.size()?;
    if len == 0 {
        return Ok(Bytes::new());
    }
    let mapping = file.map(len)?;
    let len = usize::try_from(len).map_err(io::Error::other)?;
    if read_now {
        // An error now instead of a signal later.
        mapping.populate(0, len)?;
    }
    Ok(mapping.bytes(Fixed::of_sealed_file(len)))
}
