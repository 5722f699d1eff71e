//! A disk whose requests go through qemu's block layer, with an ext4 file system on it.
//!
//! ```text
//! the log -> ext4 -> /dev/loopN -> FUSE -> qemu: [raw -> blkdebug ->] blklogwrites -> file in memory
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::medium::BLOCK;
use super::write_log::SECTOR;

/// Bytes of the disk: room for a dozen segments beside the file system's journal of 4 MiB.
pub(super) const DISK_SIZE: u64 = 16 << 20;

/// Attempts to unmount what is busy.
const TRIES: usize = 100;

/// Runs a program and gives what it printed.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.map_err(|error| format!("{program} cannot be run: {error}; see tests/run for what it needs"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}", arguments.join(" "), why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch paths are plain")
}

/// A folder in memory for disks and images: a flush of the virtual disk must not wait for the real one.
pub(super) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=1g", "vouch-tests", text(folder.path())]).unwrap();
        Self(folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An empty file system.
    pub(super) fn fresh_image(&self) -> Vec<u8> {
        let path = self.path("fresh.img");
        fs::File::create(&path).unwrap().set_len(DISK_SIZE).unwrap();
        let eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", "size=4", "-m", "0", "-E", eager, text(&path)]).unwrap();
        fs::read(path).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is gone with the folder in memory.
        let _ = run("umount", &["--lazy", text(self.0.path())]);
    }
}

/// A mounted file system.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// The loop device goes with the mount.
    fn new(image: &Path, folder: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&folder).unwrap();
        run("mount", &["-t", "ext4", "-o", "loop,errors=remount-ro", text(image), text(&folder)])?;
        Ok(Self(folder))
    }

    /// Writes an image and mounts it as the next start of the machine would: ext4 replays its journal. Each place has
    /// one image at a time.
    pub(super) fn image(scratch: &Scratch, place: usize, image: &[u8]) -> Result<Self, String> {
        let path = scratch.path(&format!("cut-{place}.img"));
        fs::write(&path, image).unwrap();
        Self::written_image(scratch, place)
    }

    /// Mounts the same image again, with what was done to it since.
    pub(super) fn written_image(scratch: &Scratch, place: usize) -> Result<Self, String> {
        let [image, folder] = [format!("cut-{place}.img"), format!("cut-{place}")].map(|name| scratch.path(&name));
        Self::new(&image, folder)
    }

    /// The folder of the log in it.
    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn unmount(self) -> Result<(), String> {
        let mut done = run("umount", &[text(&self.0)]);
        for _ in 0..TRIES {
            // A program that another thread is just starting has our files until it runs.
            if !done.as_ref().is_err_and(|error| error.contains("busy")) {
                break;
            }
            done = run("umount", &[text(&self.0)]);
        }
        if done.is_ok() {
            std::mem::forget(self);
        }
        done.map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", text(&self.0)]);
    }
}

/// A request that fails, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskFault {
    pub(super) kind: FaultKind,
    /// Which request of its kind, from 1.
    pub(super) nth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A write gives EIO.
    Write,
    /// A flush gives EIO.
    Flush,
    /// A write finds no space: a thin disk.
    NoSpace,
}

/// The node that injects a fault: it counts requests by going from state to state.
fn faults(fault: DiskFault) -> String {
    let (event, io, errno) = match fault.kind {
        FaultKind::Write => ("pwritev", "write", rustix::io::Errno::IO),
        FaultKind::NoSpace => ("pwritev", "write", rustix::io::Errno::NOSPC),
        FaultKind::Flush => ("flush_to_disk", "flush", rustix::io::Errno::IO),
    };
    let mut node = "driver=blkdebug,node-name=faults,image=log-writes".to_owned();
    for (rule, state) in (1..fault.nth).enumerate() {
        let next = state + 1;
        node += &format!(
            ",set-state.{rule}.event={event},set-state.{rule}.state={state},set-state.{rule}.new_state={next}"
        );
    }
    let (nth, errno) = (fault.nth, errno.raw_os_error());
    node + &format!(
        ",inject-error.0.event={event},inject-error.0.state={nth},inject-error.0.iotype={io},\
         inject-error.0.errno={errno},inject-error.0.once=on"
    )
}

/// The daemon and the mount; what it leaves is a write log and an image.
pub(super) struct VirtualDisk {
    daemon: Child,
    /// Says when to end; qemu takes commands here.
    commands: ChildStdin,
    mounted: Option<Mounted>,
    write_log: PathBuf,
    image: PathBuf,
    export: PathBuf,
}

impl VirtualDisk {
    /// Starts a disk with these bytes on it and mounts it.
    pub(super) fn start(scratch: &Scratch, base: &[u8], fault: Option<DiskFault>) -> Result<Self, String> {
        let [image, write_log, export] = ["disk.img", "disk.writes", "disk"].map(|name| scratch.path(name));
        fs::write(&image, base).unwrap();
        for empty in [&write_log, &export] {
            fs::write(empty, []).unwrap();
        }
        let (daemon, commands) = daemon(&image, &write_log, &export, fault)?;
        let mut disk = Self { daemon, commands, mounted: None, write_log, image, export };
        // Without direct I/O the loop device hands on one request at a time. Before version 10.1 qemu's export needs
        // that: a request that came while another was written took its buffer. The export itself caches nothing.
        disk.mounted = Some(Mounted::new(&disk.export, scratch.path("mounted"))?);
        Ok(disk)
    }

    /// The folder of the log.
    pub(super) fn log(&self) -> PathBuf {
        self.mounted().log()
    }

    pub(super) fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().expect("a disk that was started is mounted")
    }

    pub(super) fn write_log(&self) -> PathBuf {
        self.write_log.clone()
    }

    /// Unmounts and ends the daemon. Gives the write log, and what of the disk the log's files own.
    pub(super) fn stop(mut self) -> Result<(bytes::Bytes, BTreeSet<u64>), String> {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount()?;
        }
        self.commands.write_all(b"{\"execute\":\"quit\"}\n").map_err(|error| error.to_string())?;
        let status = self.daemon.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("qemu-storage-daemon ended with {status}"));
        }
        Ok((fs::read(&self.write_log).unwrap().into(), blocks_of_the_log(&self.image)?))
    }
}

impl Drop for VirtualDisk {
    fn drop(&mut self) {
        // Only where a test has failed half-way is anything left to do.
        drop(self.mounted.take());
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = run("umount", &["--lazy", "--quiet", text(&self.export)]);
    }
}

/// Starts the daemon and waits until the export is there: it greets after everything on its command line is done.
fn daemon(
    image: &Path,
    write_log: &Path,
    export: &Path,
    fault: Option<DiskFault>,
) -> Result<(Child, ChildStdin), String> {
    // The medium is memory: its own flushes would prove nothing. The write log has ours.
    let file =
        |name: &str, path: &Path| format!("driver=file,node-name={name},filename={},cache.no-flush=on", text(path));
    let logged = format!(
        "driver=blklogwrites,node-name=log-writes,file=medium,log=writes,log-sector-size={SECTOR},\
         log-super-update-interval=1048576"
    );
    let mut nodes = vec![file("medium", image), file("writes", write_log), logged];
    let mut top = "log-writes";
    if let Some(fault) = fault {
        nodes.push(faults(fault));
        // The event of a flush comes from the node above.
        nodes.push("driver=raw,node-name=top,file=faults".to_owned());
        top = "top";
    }
    let mut command = Command::new("setpriv");
    // A test that is killed takes its disk along.
    command.args(["--pdeathsig", "KILL", "qemu-storage-daemon"]);
    for node in nodes {
        command.arg("--blockdev").arg(node);
    }
    let export = format!("type=fuse,id=disk,node-name={top},mountpoint={},writable=on", text(export));
    command.args(["--export", &export, "--chardev", "stdio,id=commands", "--monitor", "chardev=commands"]);
    let mut daemon = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("setpriv cannot be run: {error}"))?;
    let (mut commands, answers) = (daemon.stdin.take().expect("piped"), daemon.stdout.take().expect("piped"));
    let mut greeting = String::new();
    let greeted = BufReader::new(answers).read_line(&mut greeting);
    if greeted.is_err() || !greeting.contains("QMP") {
        let _ = daemon.kill();
        let _ = daemon.wait();
        return Err(format!("qemu-storage-daemon does not start (it says {greeting:?}); tests/run says what it needs"));
    }
    commands.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").map_err(|error| error.to_string())?;
    Ok((daemon, commands))
}

/// Numbers of the blocks of the files in the folder of the log.
fn blocks_of_the_log(image: &Path) -> Result<BTreeSet<u64>, String> {
    let debugfs = |request: &str| run("debugfs", &["-R", request, text(image)]);
    let mut blocks = BTreeSet::new();
    // Lines as /inode/mode/uid/gid/name/size/.
    for line in debugfs("ls -p /log")?.lines() {
        let fields: Vec<&str> = line.split('/').collect();
        let (Some(mode), Some(name)) = (fields.get(2), fields.get(5)) else { continue };
        if !mode.starts_with("100") {
            continue;
        }
        let listed = debugfs(&format!("blocks /log/{name}"))?;
        blocks.extend(listed.split_whitespace().filter_map(|number| number.parse::<u64>().ok()));
    }
    assert!(blocks.iter().all(|block| block * (BLOCK as u64) < DISK_SIZE));
    Ok(blocks)
}
