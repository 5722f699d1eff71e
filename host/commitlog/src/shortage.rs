//! What is missing for the moment. It says nothing of the disk: nothing was lost, and it passes.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// Of what there is not enough for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shortage {
    /// Space on the disk, or what its owner may have of it.
    Space = 1,
    /// File descriptors, of this process or of the system.
    Descriptors = 2,
    /// Memory, or room for mappings of files.
    Memory = 3,
}

impl Shortage {
    /// The shortage that an error tells of; `None` for any other error, such as that of a broken disk.
    ///
    /// An interrupted call is told as a shortage of memory: the system gave up waiting, and it is to be tried again.
    pub fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => return Some(Self::Descriptors),
            Some(Errno::NOBUFS | Errno::AGAIN) => return Some(Self::Memory),
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Space),
            io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted => Some(Self::Memory),
            _ => None,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Space, Self::Descriptors, Self::Memory].into_iter().find(|shortage| *shortage as u8 == number)
    }

    /// What helps, for a person.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Space => "free some space",
            Self::Descriptors => "close connections, or raise the limit of open files",
            Self::Memory => "free some memory",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Space => "space on the disk",
            Self::Descriptors => "file descriptors",
            Self::Memory => "memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_from_a_broken_disk() {
        let of = |errno: Errno| Shortage::of(&errno.into());
        for (errno, shortage) in [
            (Errno::NOSPC, Shortage::Space),
            (Errno::DQUOT, Shortage::Space),
            (Errno::MFILE, Shortage::Descriptors),
            (Errno::NFILE, Shortage::Descriptors),
            (Errno::NOMEM, Shortage::Memory),
            (Errno::AGAIN, Shortage::Memory),
            (Errno::INTR, Shortage::Memory),
        ] {
            assert_eq!(of(errno), Some(shortage), "{errno}");
            assert_eq!(Shortage::from_number(shortage as u8), Some(shortage));
        }
        for errno in [Errno::IO, Errno::NOENT, Errno::ROFS, Errno::ACCESS, Errno::FBIG, Errno::NXIO] {
            assert_eq!(of(errno), None, "{errno}");
        }
        assert_eq!(
            (Shortage::of(&io::ErrorKind::StorageFull.into()), Shortage::from_number(0)),
            (Some(Shortage::Space), None)
        );
    }
}
