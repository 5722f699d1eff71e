//! The store of the *bare* server: one file, one writer thread, group commit, nothing else.
//!
//! Pinned so that it cannot flatter what is measured against it: no checksum, no index, no header beyond a length, one
//! `pwrite` per group into a file whose blocks were written before, one `fdatasync` in flight. Whatever arrived while
//! the previous group was written and synced is the next group.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use vouch_protocol::wire;

/// Appends that may wait for the writer; more than any number of producers here.
const WAITING_MAX: usize = 65_536;
/// Bytes after which a group is closed.
const GROUP_MAX_BYTES: usize = 4 << 20;
/// Size of the file. Writing starts over at its end: blocks that exist cost what zero-filled ones cost.
const FILE_BYTES: u64 = 256 << 20;
/// Unit in which the file is filled with zeros.
const FILL_BYTES: usize = 1 << 20;

/// Something to make durable, and who waits for it.
struct Append {
    what: StoreRequest,
    done: oneshot::Sender<bool>,
}

/// What one request stores.
pub(crate) enum StoreRequest {
    /// Messages of a send.
    Messages(Vec<wire::Message>),
    /// The end of a transaction.
    End(String),
}

/// The handle that requests use.
#[derive(Clone)]
pub(crate) struct GroupCommitFile {
    queue: SyncSender<Append>,
}

impl GroupCommitFile {
    /// Creates the file, fills it with zeros, syncs it and starts the writer. The writer ends when the last handle is
    /// dropped.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, JoinHandle<()>)> {
        let file = create_zero_filled(path, FILE_BYTES)?;
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let writer =
            std::thread::Builder::new().name("bare-writer".to_owned()).spawn(move || write(&file, &waiting))?;
        Ok((Self { queue }, writer))
    }

    /// Returns whether it is on disk.
    pub(crate) async fn append(&self, what: StoreRequest) -> bool {
        let (done, answer) = oneshot::channel();
        // A full queue cannot be: it is longer than the number of requests in flight. Treat it as a failure.
        self.queue.try_send(Append { what, done }).is_ok() && answer.await.unwrap_or(false)
    }
}

/// A file of this size whose blocks are all written, on disk.
pub(crate) fn create_zero_filled(path: &Path, size: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).read(true).open(path)?;
    let zeros = vec![0; FILL_BYTES];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    file.sync_all()?;
    Ok(file)
}

/// The writer: takes what waits, writes it as one group, syncs, answers all of it, until nobody can send any more.
fn write(file: &File, waiting: &Receiver<Append>) {
    let mut bytes = Vec::with_capacity(GROUP_MAX_BYTES);
    let mut done = Vec::new();
    let mut position = 0;
    while let Ok(first) = waiting.recv() {
        bytes.clear();
        add(first, &mut bytes, &mut done);
        while bytes.len() < GROUP_MAX_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            add(next, &mut bytes, &mut done);
        }
        if position + bytes.len() as u64 > FILE_BYTES {
            position = 0;
        }
        let stored = file.write_all_at(&bytes, position).and_then(|()| file.sync_data()).is_ok();
        position += bytes.len() as u64;
        for waiter in done.drain(..) {
            // A caller that went away needs no answer.
            let _ = waiter.send(stored);
        }
    }
}

/// Adds one request to the group.
fn add(append: Append, bytes: &mut Vec<u8>, done: &mut Vec<oneshot::Sender<bool>>) {
    match append.what {
        StoreRequest::Messages(messages) => messages.iter().for_each(|message| add_message(message, bytes)),
        StoreRequest::End(id) => add_field(id.as_bytes(), bytes),
    }
    done.push(append.done);
}

/// Topic, id and body: what a message cannot do without. Properties are left out, to bare's advantage.
fn add_message(message: &wire::Message, bytes: &mut Vec<u8>) {
    let topic = message.topic.as_ref().map_or("", |topic| topic.name.as_str());
    let id = message.system_properties.as_ref().map_or("", |system| system.message_id.as_str());
    add_field(topic.as_bytes(), bytes);
    add_field(id.as_bytes(), bytes);
    add_field(&message.body, bytes);
}

/// The length in four bytes, and the field.
fn add_field(field: &[u8], bytes: &mut Vec<u8>) {
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_filled_file_has_its_size_and_its_blocks() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let size = 3 * FILL_BYTES as u64 + 17;
        let file = create_zero_filled(&folder.path().join("f"), size).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), size);
        assert!(metadata.blocks() * 512 >= size, "the file must not be sparse");
    }

    #[tokio::test]
    async fn an_append_is_in_the_file_when_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bare");
        let (file, writer) = GroupCommitFile::create(&path).unwrap();
        let mut message = wire::Message { body: b"hello".to_vec().into(), ..wire::Message::default() };
        message.topic = Some(wire::Resource { name: "t".to_owned(), ..wire::Resource::default() });
        assert!(file.append(StoreRequest::Messages(vec![message])).await);
        assert!(file.append(StoreRequest::End("id".to_owned())).await);
        let stored = std::fs::read(&path).unwrap();
        let expected = b"\x01\0\0\0t\0\0\0\0\x05\0\0\0hello\x02\0\0\0id";
        assert_eq!(&stored[..expected.len()], expected);
        drop(file);
        writer.join().unwrap();
    }
}
