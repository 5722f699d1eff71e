//! The binary on a file system of its own that has not one block left. It is made and mounted here, so this is for root and a
//! mount namespace of its own: `tests/run 'rust: the log on a virtual disk'`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use support::vouch;

struct SmallDisk {
    folder: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
}

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        let image = disk.folder.path().join("image");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(disk.root()).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), disk.root().to_str().unwrap()]);
        disk
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn fill(&self) {
        let mut file = File::create(self.root().join("somebody-elses")).unwrap();
        for len in [1 << 20, 64 << 10, 4096, 1] {
            while file.write_all(&vec![1; len]).is_ok() {}
        }
        file.sync_all().unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.root()).status();
    }
}

/// A node that says in its log that it is ready; killed when dropped.
struct Ready(Child);

impl Ready {
    fn start(disk: &SmallDisk) -> Self {
        let mut node = vouch()
            .args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--segment-size", "8MiB"])
            .args(["--zero-ahead", "4MiB", "--data-dir"])
            .arg(disk.root().join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .map(Self)
            .unwrap();
        let mut said = String::new();
        for line in BufReader::new(node.0.stderr.take().unwrap()).lines() {
            said += &(line.unwrap() + "\n");
            if said.contains(" ready ") {
                return node;
            }
        }
        panic!("it ended: {said}");
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "mounts a file system, which only root may"]
fn a_disk_without_a_block_left_keeps_no_node_from_starting_also_one_that_has_no_replica_file_yet() {
    let disk = SmallDisk::mount();
    drop(Ready::start(&disk));
    // As an earlier version leaves it.
    let replica = disk.root().join("data/shards/0/replica");
    fs::remove_file(&replica).unwrap();
    disk.fill();
    drop(Ready::start(&disk));
    assert!(!replica.exists());
    fs::remove_file(disk.root().join("somebody-elses")).unwrap();
    drop(Ready::start(&disk));
    assert!(replica.exists());
}
