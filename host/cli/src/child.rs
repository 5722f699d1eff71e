//! Servers that this program starts as processes of their own, so that what they use can be measured and they can be
//! killed like real ones.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::endpoints::Endpoints;

/// How long a server may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often its endpoints file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a server may take to stop when asked.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
/// Lines of a failed server's messages that are shown.
const LAST_LINES: usize = 12;
/// Clock ticks per second in `/proc/<pid>/stat` (`USER_HZ`), a constant of the kernel's interface.
const TICKS_PER_SECOND: u32 = 100;

/// A child process of this binary. Killed when dropped; it also stops by itself when this process is gone, because its
/// standard input then ends.
pub(crate) struct Server {
    /// For messages to people.
    name: &'static str,
    /// Owned: nobody else waits for it.
    process: Child,
    /// The file with what it writes on standard error.
    messages: PathBuf,
    /// Where it listens.
    pub(crate) endpoints: Endpoints,
    /// Its standard output, line by line.
    pub(crate) lines: Option<BufReader<ChildStdout>>,
    /// Open while the child is to run.
    input: Option<ChildStdin>,
}

/// How a child is started.
pub(crate) struct ChildStart<'a> {
    /// Its name in messages.
    pub(crate) name: &'static str,
    /// Arguments of this binary.
    pub(crate) arguments: Vec<OsString>,
    /// Folder in which it writes its endpoints; its messages lie beside it.
    pub(crate) folder: &'a Path,
    /// Environment of the child besides this process's own.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

impl Server {
    /// Starts this binary with other arguments and waits until it listens.
    ///
    /// # Errors
    /// The child ended or did not listen in time: the error shows the last lines it wrote.
    pub(crate) fn start(start: ChildStart<'_>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        std::fs::create_dir_all(start.folder).with_context(|| format!("cannot create {}", start.folder.display()))?;
        Endpoints::remove(start.folder).context("cannot remove the endpoints of an earlier run")?;
        // Beside the folder, which a node wants to itself.
        let messages = start.folder.with_added_extension("messages.log");
        let mut process = Command::new(program)
            .args(&start.arguments)
            .envs(start.environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages).context("cannot create the file for the child's messages")?)
            .spawn()
            .with_context(|| format!("cannot start {}", start.name))?;
        let lines = process.stdout.take().map(BufReader::new);
        let input = process.stdin.take();
        let endpoints = Endpoints { grpc: None, http: None, peer: None, pid: process.id() };
        let mut server = Self { name: start.name, process, messages, endpoints, lines, input };
        server.endpoints = server.wait_until_ready(start.folder)?;
        Ok(server)
    }

    /// Waits for the file with its endpoints.
    ///
    /// # Errors
    /// It ended, or wrote none in time.
    fn wait_until_ready(&mut self, folder: &Path) -> anyhow::Result<Endpoints> {
        let give_up_at = Instant::now() + READY_WITHIN;
        loop {
            if let Some(endpoints) = Endpoints::read(folder).context("cannot read the child's endpoints")? {
                return Ok(endpoints);
            }
            if let Some(status) = self.process.try_wait().context("cannot look after the child")? {
                bail!("{} ended before it listened ({status}):\n{}", self.name, self.last_messages());
            }
            if Instant::now() > give_up_at {
                bail!("{} did not listen within {READY_WITHIN:?}:\n{}", self.name, self.last_messages());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The gRPC address.
    pub(crate) fn grpc(&self) -> anyhow::Result<String> {
        let address = self.endpoints.grpc.with_context(|| format!("{} has no gRPC address", self.name))?;
        Ok(address.to_string())
    }

    /// The HTTP address.
    pub(crate) fn http(&self) -> anyhow::Result<String> {
        let address = self.endpoints.http.with_context(|| format!("{} has no HTTP address", self.name))?;
        Ok(address.to_string())
    }

    /// Processor time that the process used so far, in user and kernel mode, all threads.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))
            .with_context(|| format!("cannot read the processor time of {}", self.name))?;
        cpu_time_of(&stat).with_context(|| format!("cannot understand the processor time of {}", self.name))
    }

    /// What the process's own threads have made the disk read and write so far, of those whose name is wanted. Those of
    /// threads that have ended are left out.
    pub(crate) fn disk_use(&self, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<ChildDiskUse> {
        let mut total = ChildDiskUse::default();
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id()));
        for thread in threads.with_context(|| format!("cannot list the threads of {}", self.name))? {
            let thread = thread.context("cannot list threads")?.path();
            // One that ends just now cannot be read.
            let read = |file| std::fs::read_to_string(thread.join(file));
            let (Ok(name), Ok(io)) = (read("comm"), read("io")) else { continue };
            if is_wanted(name.trim_end()) {
                let used = ChildDiskUse::parse(&io);
                total += used.with_context(|| format!("cannot understand what {} read and wrote", self.name))?;
            }
        }
        Ok(total)
    }

    /// Writes a line to the child's standard input.
    ///
    /// # Errors
    /// It has ended, or was told to.
    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the child's input is closed")?;
        writeln!(input, "{line}").and_then(|()| input.flush()).with_context(|| format!("{} does not listen", self.name))
    }

    /// Kills the process at once, as a crash would (SIGKILL).
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.process.wait().with_context(|| format!("cannot wait for the end of {}", self.name))?;
        Ok(())
    }

    /// Lets the process stop by itself: its input ends. Kills it if it takes too long.
    ///
    /// # Errors
    /// It ended with another status than 0, or not within [`STOPPED_WITHIN`]; then it is killed.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let give_up_at = Instant::now() + STOPPED_WITHIN;
        while Instant::now() < give_up_at {
            if let Some(status) = self.process.try_wait().context("cannot look after the child")? {
                return if status.success() { Ok(()) } else { bail!("{} ended with {status}", self.name) };
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("{} did not stop within {STOPPED_WITHIN:?}:\n{}", self.name, self.last_messages())
    }

    /// The end of what the child wrote on standard error.
    pub(crate) fn last_messages(&self) -> String {
        let text = std::fs::read_to_string(&self.messages).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that has ended already cannot be killed, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Bytes that were read from the disk, and bytes that were changed in memory to be written there, by pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildDiskUse {
    /// From the disk, not from the page cache.
    pub(crate) read_bytes: u64,
    /// To be written, by whole pages.
    pub(crate) written_bytes: u64,
}

impl ChildDiskUse {
    /// Of a file `/proc/<pid>/io`, or that of a thread.
    fn parse(io: &str) -> Option<Self> {
        let bytes = |name: &str| io.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
        Some(Self { read_bytes: bytes("read_bytes:")?, written_bytes: bytes("write_bytes:")? })
    }

    /// What came to it since an earlier look.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

impl AddAssign for ChildDiskUse {
    fn add_assign(&mut self, other: Self) {
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// `utime + stime` of a `/proc/<pid>/stat` line. The second field is the program's name in parentheses and may hold
/// anything, so fields are counted after the last parenthesis.
fn cpu_time_of(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let kernel: u32 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs(1) / TICKS_PER_SECOND * user.checked_add(kernel)?)
}

/// Blocks until standard input ends: the process that started this one is gone, or asks it to stop.
pub(crate) fn wait_for_parent() {
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_plus_kernel_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 1 1 1";
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time_of("42 (x) S 1"), None);
    }

    /// Where a child is started from a test, it is the program of the tests.
    #[test]
    fn a_child_that_ends_before_it_listens_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("server");
        let arguments = vec!["--no-such-flag".into()];
        let start = ChildStart { name: "the server", arguments, folder: &place, environment: &[] };
        let error = Server::start(start).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("the server ended before it listened (exit status: "), "{error}");
        assert!(error.contains("no-such-flag"), "{error}");
    }

    #[test]
    fn this_process_uses_processor_time() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(cpu_time_of(&stat).is_some());
    }

    #[test]
    fn what_was_read_and_written_is_told_apart_from_what_was_only_moved() {
        let io = "rchar: 9\nwchar: 8\nsyscr: 1\nsyscw: 1\nread_bytes: 40\nwrite_bytes: 70\ncancelled_write_bytes: 3\n";
        let used = ChildDiskUse::parse(io).unwrap();
        assert_eq!(used, ChildDiskUse { read_bytes: 40, written_bytes: 70 });
        let before = ChildDiskUse { read_bytes: 10, written_bytes: 80 };
        assert_eq!(used.since(before), ChildDiskUse { read_bytes: 30, written_bytes: 0 });
        assert_eq!(ChildDiskUse::parse("read_bytes: 1\n"), None, "half of it is not there");
        assert!(ChildDiskUse::parse(&std::fs::read_to_string("/proc/self/io").unwrap()).is_some());
    }
}
