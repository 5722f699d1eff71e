//! Files that are damaged, or that belong elsewhere.

use std::fs;

use crate::{check, files, fill, indexed, never, often, read, started};

const PAGE: usize = 4096;

/// One page of one file at a time is damaged on the disk while the node is down, and then all but the first pages of all
/// of them while it runs.
#[tokio::test]
async fn a_damaged_file_is_never_believed_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(often(folder.path())).await;
    fill(&node).await;
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    indexed(&node).await;
    node.stop().await;
    drop(node);
    let whole = files(folder.path());
    let (path, bytes) = whole.iter().next().unwrap();
    for page in 0..bytes.len() / PAGE {
        let mut damaged = bytes.clone();
        damaged[page * PAGE + 40] ^= 4;
        fs::write(path, damaged).unwrap();
        let node = started(never(folder.path())).await;
        // With the damaged file in use, if it can be opened, and with the new one.
        indexed(&node).await;
        check(&node).await;
        indexed(&node).await;
        check(&node).await;
        assert_eq!((page, read(&node.status.lookup().damaged), read(&node.status.lookup().builds)), (page, 1, 1));
        node.stop().await;
        assert!(files(folder.path()) == whole, "page {page} is as it was");
    }

    let node = started(never(folder.path())).await;
    indexed(&node).await;
    for (path, bytes) in &whole {
        let mut damaged = bytes.clone();
        damaged[PAGE..].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(path, damaged).unwrap();
    }
    check(&node).await;
    indexed(&node).await;
    assert_eq!(read(&node.status.lookup().damaged), whole.len() as u64);
    check(&node).await;
    node.stop().await;
    assert!(files(folder.path()) == whole);
}

/// Recomputes the checksum of a file's first page, as somebody would who puts files of another log there.
fn sign(bytes: &mut [u8]) {
    let part: [u8; 8] = bytes[16..24].try_into().unwrap();
    let place = crc32c::crc32c_append(crc32c::crc32c(&part), &0u64.to_le_bytes());
    let checksum = crc32c::crc32c_append(place, &bytes[..PAGE - 4]);
    bytes[PAGE - 4..PAGE].copy_from_slice(&checksum.to_le_bytes());
}

#[tokio::test]
async fn a_file_of_another_log_part_or_version_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(often(folder.path())).await;
    fill(&node).await;
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    indexed(&node).await;
    node.stop().await;
    drop(node);
    let whole = files(folder.path());
    let (path, bytes) = whole.iter().next_back().unwrap();
    let checkpoint = 24..72;
    let change = |change: &dyn Fn(&mut [u8])| {
        let mut changed = bytes.clone();
        change(&mut changed);
        sign(&mut changed);
        changed
    };
    let another = [
        ("version", change(&|bytes| bytes[8] = 2)),
        ("part", change(&|bytes| bytes[12] ^= 1)),
        (
            "log",
            change(&|bytes| {
                // The checksum of the log's entry, and that of the checkpoint.
                bytes[24 + 12] ^= 1;
                let checksum = crc32c::crc32c(&bytes[checkpoint.clone()][8..]);
                bytes[24 + 4..24 + 8].copy_from_slice(&checksum.to_le_bytes());
            }),
        ),
    ];
    assert!(change(&|_| ()) == *bytes, "this is how it is signed");
    for (what, changed) in another {
        fs::write(path, changed).unwrap();
        let node = started(never(folder.path())).await;
        indexed(&node).await;
        assert_eq!((what, read(&node.status.lookup().damaged), read(&node.status.lookup().builds)), (what, 1, 1));
        check(&node).await;
        node.stop().await;
        assert!(files(folder.path()) == whole);
    }
}
