//! The dialer's side of a pull.

use bytes::Bytes;

use super::CHUNK_MAX_BYTES;
use super::request::{NAME_MAX_BYTES, PullRequest};
use crate::connection::{Connection, Incoming, ToPeer};
use crate::counters::OpenCounted;
use crate::frame::{FrameHeader, FrameKind};
use crate::identity::PeerIdentity;
use crate::reading::ReadFault;
use crate::sentence::{self, SENTENCE_MAX_BYTES};

/// Why a pull ended before it was complete. What came before is right, and another pull may go on behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullFailed {
    /// The other does not have it, or cannot read it. Trying again there does not help.
    #[error("the peer cannot send the file: {0}")]
    Refused(String),
    /// There is no connection, or it ended. Trying again may help.
    #[error("the connection failed: {0}")]
    Broken(String),
}

/// A file on its way. Dropping it ends the pull, here and at the other end.
pub struct FilePull {
    reader: Incoming,
    /// Kept, because a half that is dropped closes nothing.
    _writer: ToPeer,
    peer: PeerIdentity,
    offset: u64,
    end: u64,
    /// What every further question is answered with, once the pull is over.
    over: Option<Result<(), PullFailed>>,
    _open: OpenCounted,
}

/// Asks for a stretch of a file.
pub(crate) async fn begin(
    connection: Connection,
    (name, from, len): (&str, u64, u64),
    open: OpenCounted,
) -> Result<FilePull, PullFailed> {
    let Connection { peer, reader, mut writer, .. } = connection;
    let Some(end) = from.checked_add(len).filter(|_| name.len() <= NAME_MAX_BYTES) else {
        let why = format!("names have {NAME_MAX_BYTES} bytes at most, and offsets end at 2^64");
        return Err(PullFailed::Refused(why));
    };
    let (head, payload) = PullRequest { name: name.to_owned(), from, len }.encode();
    writer.frame_at_once(head, &[payload]).await.map_err(|fault| PullFailed::Broken(fault.to_string()))?;
    Ok(FilePull { reader, _writer: writer, peer, offset: from, end, over: None, _open: open })
}

impl FilePull {
    /// Who sends it.
    #[must_use]
    pub fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// Where the next chunk begins; behind the last one when the pull is complete, which is before the end that was asked for if
    /// the file ends there.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next chunk, of [`CHUNK_MAX_BYTES`] at most; nothing when the sender said that this was all. As long as nobody asks
    /// for one, the sender waits, for [`crate::TransportTiming::pull_stall`] at most.
    ///
    /// # Errors
    /// The pull ended before that. It says so each time from then on. A future of this that is dropped before it is done ends the
    /// pull as well: half a chunk may have been read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PullFailed> {
        if let Some(over) = &self.over {
            return over.clone().map(|()| None);
        }
        self.over = Some(Err(PullFailed::Broken("the wait for its last chunk was given up".to_owned())));
        let read = self.read().await;
        self.over = match &read {
            Ok(Some(_)) => None,
            Ok(None) => Some(Ok(())),
            Err(failed) => Some(Err(failed.clone())),
        };
        read
    }

    async fn read(&mut self) -> Result<Option<Bytes>, PullFailed> {
        let broken = |fault: ReadFault| PullFailed::Broken(fault.to_string());
        let header = self.reader.next().await.map_err(broken)?;
        let number = header.head.number;
        match header.head.kind {
            FrameKind::Chunk if self.is_next(&header) => {
                let chunk = self.reader.payload(&header).await.map_err(broken)?;
                self.offset += chunk.len() as u64;
                Ok(Some(chunk))
            }
            FrameKind::Complete if number == self.offset && header.length == 0 => {
                self.reader.skip(&header).await.map_err(broken)?;
                Ok(None)
            }
            FrameKind::Failed if header.length <= SENTENCE_MAX_BYTES => {
                let why = self.reader.payload(&header).await.map_err(broken)?;
                Err(PullFailed::Refused(sentence::heard(&why)))
            }
            _ => Err(broken(ReadFault::Protocol("a frame that does not go on where the last one ended"))),
        }
    }

    fn is_next(&self, header: &FrameHeader) -> bool {
        let fits = header.length as u64 <= self.end - self.offset;
        header.head.number == self.offset && (1..=CHUNK_MAX_BYTES).contains(&header.length) && fits
    }
}
