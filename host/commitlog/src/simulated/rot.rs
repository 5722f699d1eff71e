//! Bit rot: what was durable turns on the medium.

use super::disk::SimDisk;
use super::event::DiskEvent;
use super::platter::Platter;

/// The file of a log with segments of this size in which a position lies, and where in it.
pub fn log_file(position: u64, segment_size: u64) -> (String, u64) {
    let offset = position % segment_size;
    (crate::segment::file_name(position - offset), offset)
}

impl SimDisk {
    /// The medium gives these bytes from now on, in place of what was durable there, until somebody writes over them. `seen`:
    /// whoever reads now finds them; otherwise the page cache hides them until the power goes. Nothing happens, and `false` is
    /// given, where something is not durable or is about to be written over.
    pub fn rot(&self, name: &str, offset: u64, data: Vec<u8>, seen: bool) -> bool {
        let mut state = self.lock();
        let Some(inode) = state.names.get(name).copied() else { return false };
        let mut platter = Platter::new(&state.base, state.inodes.len());
        state.events.iter().for_each(|event| platter.take(event));
        let rests = platter.rest(inode, offset, &data);
        if rests {
            if seen {
                state.inodes[inode].data[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
            }
            state.events.push(DiskEvent::Rotted { inode, offset, data, seen });
        }
        rests
    }
}
