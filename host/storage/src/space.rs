//! How much of a disk is used.

use std::io;
use std::path::Path;

/// How full a disk is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Used.
    pub used: u64,
    /// Used and available; what the system keeps for itself is neither.
    pub total: u64,
}

impl Space {
    /// Of the file system that holds this folder.
    pub fn of_folder(folder: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(folder)?;
        let used = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
        Ok(Self { used, total: used.saturating_add(found.f_bavail.saturating_mul(found.f_frsize)) })
    }

    /// Whether so many percent are used, or more.
    pub(crate) fn reaches(&self, percent: u8) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.total) * u128::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_disk_has_space() {
        let space = Space::of_folder(Path::new("/")).unwrap();
        assert!(space.used > 0 && space.total >= space.used);
    }

    #[test]
    fn a_percentage_is_reached_exactly_where_it_is_and_never_overflows() {
        let space = |used, total| Space { used, total };
        assert!(space(u64::MAX, u64::MAX).reaches(100) && !space(u64::MAX - 1, u64::MAX).reaches(100));
        assert!(space(1, 100).reaches(1) && !space(0, 100).reaches(1));
        assert!(space(0, 0).reaches(90), "where nothing can be had, everything is used");
    }
}
