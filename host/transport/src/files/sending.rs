//! The acceptor's side of a pull.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::CHUNK_MAX_BYTES;
use super::pace::SendingPace;
use super::request::{NAME_MAX_BYTES, PullRequest};
use super::source::ServeAnyFiles;
use crate::connection::{Connection, Incoming, ToPeer};
use crate::frame::{FrameHead, FrameKind};
use crate::identity::PeerIdentity;
use crate::reading::ReadFault;
use crate::sentence;

/// What answers pulls.
#[derive(Clone)]
pub(crate) struct FilesServed {
    pub(crate) files: Arc<dyn ServeAnyFiles>,
    pub(crate) pace: Arc<SendingPace>,
}

/// Why a pull ended before it was complete.
enum Broken {
    /// The connection is gone.
    Connection(String),
    /// The file is not to be had; the other is told.
    Source(io::Error),
}

/// Sends what is asked for, and says why the connection ended.
pub(crate) async fn send(connection: Connection, served: FilesServed) -> String {
    let Connection { peer, mut reader, mut writer, .. } = connection;
    let request = match read_request(&mut reader).await {
        Ok(request) => request,
        Err(fault) => return fault.to_string(),
    };
    let sent = tokio::select! {
        sent = send_all(&mut writer, peer, &served, &request) => sent,
        // A peer that does not want it any more closes, which must not wait for the pace or the disk.
        Err(gone) = hear_nothing(&mut reader) => Err(Broken::Connection(gone.to_string())),
    };
    let last = match sent {
        Ok(end) => writer.frame_at_once(FrameHead::new(FrameKind::Complete, end), &[]).await,
        Err(Broken::Connection(why)) => return why,
        Err(Broken::Source(error)) => {
            tracing::warn!(node = peer.node, name = request.name, %error, "a file cannot be sent to a peer");
            let sentence = sentence::bounded(error.to_string());
            writer.frame_at_once(FrameHead::new(FrameKind::Failed, 0), &[sentence.into()]).await
        }
    };
    match last {
        Err(fault) => fault.to_string(),
        // The peer closes when it has read the last frame: closing before could take that frame from it.
        Ok(()) => match hear_nothing(&mut reader).await {
            Err(ReadFault::Ended) => "the pull is over".to_owned(),
            Err(fault) => fault.to_string(),
        },
    }
}

async fn read_request(reader: &mut Incoming) -> Result<PullRequest, ReadFault> {
    let header = reader.next().await?;
    let unfit = ReadFault::Protocol("a pull of nothing that can be pulled");
    if header.length > 8 + NAME_MAX_BYTES {
        return Err(unfit);
    }
    let payload = reader.payload(&header).await?;
    PullRequest::decode(header.head, payload).ok_or(unfit)
}

/// A peer has nothing to say after its request; its silence is no reason to end a pull.
async fn hear_nothing(reader: &mut Incoming) -> Result<Infallible, ReadFault> {
    loop {
        match reader.next().await {
            Err(ReadFault::Silent(_)) => {}
            Err(fault) => return Err(fault),
            Ok(_) => return Err(ReadFault::Protocol("a frame after a pull")),
        }
    }
}

async fn send_all(
    writer: &mut ToPeer,
    peer: PeerIdentity,
    served: &FilesServed,
    request: &PullRequest,
) -> Result<u64, Broken> {
    let PullRequest { name, from, len } = request;
    let mut source = served.files.open_any(peer, name, *from, *len).await.map_err(Broken::Source)?;
    let (mut offset, end) = (*from, from + len);
    while offset < end {
        let most = served.pace.chunk(CHUNK_MAX_BYTES).min(usize::try_from(end - offset).unwrap_or(CHUNK_MAX_BYTES));
        let chunk = read_chunk(&mut source, most).await.map_err(Broken::Source)?;
        if chunk.is_empty() {
            break;
        }
        served.pace.wait(chunk.len()).await;
        let (head, length) = (FrameHead::new(FrameKind::Chunk, offset), chunk.len());
        let written = writer.frame_at_once(head, &[chunk.freeze()]).await;
        written.map_err(|fault| Broken::Connection(fault.to_string()))?;
        offset += length as u64;
    }
    Ok(offset)
}

/// So many bytes, or what is left.
async fn read_chunk(source: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<BytesMut> {
    let mut chunk = BytesMut::with_capacity(most);
    while chunk.len() < most {
        let missing = (most - chunk.len()) as u64;
        if (&mut *source).take(missing).read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk)
}
