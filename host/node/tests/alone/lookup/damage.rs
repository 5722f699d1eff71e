//! Searches while files are damaged.

use std::fs;

use super::{check, files, fill, indexed, never, often, read, started};

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
