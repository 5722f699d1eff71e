//! Frames that come in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::counters::LaneCounters;
use crate::frame::{FrameHeader, HEADER_BYTES, HeaderFault};
use crate::pulse::Pulse;

/// Read at once; whatever of it belongs to a payload is copied out, so that a small payload that somebody keeps holds no more
/// than itself.
const BUFFER_BYTES: usize = 64 << 10;

/// Why no frame comes any more. Nothing of the one that was being read is delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    /// The other closed, at the end of a frame or in one.
    #[error("the peer closed the connection")]
    Ended,
    /// The system ended it.
    #[error("reading failed: {0}")]
    Failed(io::Error),
    /// Nothing came for too long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// Bytes were damaged on the way, or sent by somebody else.
    #[error("a frame is damaged: the checksum of its {0} is wrong")]
    Damaged(&'static str),
    /// The other says what this version does not know.
    #[error("the peer does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

/// The reading half of a connection.
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// What both ends derived from the hello, and every checksum begins with.
    seed: u32,
    /// How long to wait for a byte.
    patience: Duration,
    pulse: Pulse,
    counters: Arc<LaneCounters>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads a stream behind its hello.
    pub(crate) fn new(stream: R, seed: u32, patience: Duration, pulse: Pulse, counters: Arc<LaneCounters>) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(BUFFER_BYTES), seed, patience, pulse, counters }
    }

    /// The header of the next frame. Its payload must be taken or skipped before the next one is asked for.
    pub(crate) async fn next(&mut self) -> Result<FrameHeader, ReadFault> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() {
                let header = FrameHeader::decode(header, self.seed).map_err(|fault| self.header_fault(fault))?;
                self.buffer.advance(HEADER_BYTES);
                return Ok(header);
            }
            self.buffer.reserve(BUFFER_BYTES - self.buffer.len());
            read(&mut self.stream, &mut self.buffer, self.patience, &self.pulse).await?;
        }
    }

    /// The payload of the frame with this header, when all of it came and its checksum is right. What it takes is allocated
    /// at once: its header, whose checksum was right, says how much.
    pub(crate) async fn payload(&mut self, header: &FrameHeader) -> Result<Bytes, ReadFault> {
        let mut payload = BytesMut::with_capacity(header.length);
        let here = self.buffer.len().min(header.length);
        payload.extend_from_slice(&self.buffer.split_to(here));
        while payload.len() < header.length {
            let missing = header.length - payload.len();
            let mut rest = (&mut self.stream).take(missing as u64);
            read(&mut rest, &mut payload, self.patience, &self.pulse).await?;
        }
        self.check(header, crc32c::crc32c_append(self.seed, &payload))?;
        Ok(payload.freeze())
    }

    /// Lets the payload of the frame with this header pass, of which there is no more in memory than the buffer.
    pub(crate) async fn skip(&mut self, header: &FrameHeader) -> Result<(), ReadFault> {
        let (mut missing, mut crc) = (header.length, self.seed);
        loop {
            let here = self.buffer.len().min(missing);
            crc = crc32c::crc32c_append(crc, &self.buffer.split_to(here));
            missing -= here;
            if missing == 0 {
                return self.check(header, crc);
            }
            self.buffer.reserve(BUFFER_BYTES);
            read(&mut self.stream, &mut self.buffer, self.patience, &self.pulse).await?;
        }
    }

    fn check(&self, header: &FrameHeader, crc: u32) -> Result<(), ReadFault> {
        if crc != header.payload_crc {
            self.counters.bad_checksums.fetch_add(1, Relaxed);
            return Err(ReadFault::Damaged("payload"));
        }
        self.counters.received(HEADER_BYTES + header.length);
        Ok(())
    }

    fn header_fault(&self, fault: HeaderFault) -> ReadFault {
        match fault {
            HeaderFault::Checksum => {
                self.counters.bad_checksums.fetch_add(1, Relaxed);
                ReadFault::Damaged("header")
            }
            HeaderFault::Unknown => ReadFault::Protocol("a frame of an unknown kind"),
        }
    }
}

/// Reads what there is, one byte at least.
async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    patience: Duration,
    pulse: &Pulse,
) -> Result<(), ReadFault> {
    match timeout(patience, stream.read_buf(buffer)).await {
        Err(_) => Err(ReadFault::Silent(patience)),
        Ok(Ok(0)) => Err(ReadFault::Ended),
        Ok(Ok(_)) => {
            pulse.heard();
            Ok(())
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadFault::Ended),
        Ok(Err(error)) => Err(ReadFault::Failed(error)),
    }
}
