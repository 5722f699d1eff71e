//! Which processes hold a lock, as the system says.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{major, minor};

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// What it calls itself.
    name: Option<String>,
}

impl Process {
    /// Who holds a lock (`flock`) on what is open; nobody where the system does not say: in another name space of
    /// processes, on some file systems, without `/proc`.
    pub(super) fn all_that_lock(file: &File) -> Vec<Self> {
        let (Ok(file), Ok(locks)) = (file.metadata(), fs::read_to_string("/proc/locks")) else { return Vec::new() };
        let (major, minor, inode) = (major(file.dev()), minor(file.dev()), file.ino());
        let id = format!("{major:02x}:{minor:02x}:{inode}");
        locks.lines().filter_map(|line| holder_of(&id, line)).map(Self::named).collect()
    }

    fn named(pid: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Self { pid, name: name.map(|name| name.trim_end().escape_debug().to_string()) }
    }
}

/// A line: number, kind, `ADVISORY`, `READ` or `WRITE`, process, file, range. One that waits has `->` behind its number.
fn holder_of(id: &str, line: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let kind = fields.next()?;
    let mut fields = fields.skip(2);
    let (pid, file) = (fields.next()?, fields.next()?);
    // 0 and -1 are processes of which this one may know nothing.
    pid.parse().ok().filter(|pid| *pid > 0 && kind == "FLOCK" && file == id)
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "process {} ({name})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_lock_is_told_from_those_of_others() {
        let of = |line: &str| holder_of("08:01:42", line);
        assert_eq!(of("1: FLOCK  ADVISORY  WRITE 77 08:01:42 0 EOF"), Some(77));
        assert_eq!(of("3: FLOCK  ADVISORY  READ 5 08:01:42 0 EOF"), Some(5));
        for other in [
            "1: POSIX  ADVISORY  WRITE 77 08:01:42 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 77 08:01:42 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 77 08:01:421 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 77 08:02:42 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 08:01:42 0 EOF",
            "1: OFDLCK ADVISORY  WRITE -1 08:01:42 0 EOF",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
