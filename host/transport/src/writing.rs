//! Frames that go out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::counters::LaneCounters;
use crate::frame::{FrameHead, HEADER_BYTES};

/// Small pieces are gathered up to here, so that many small frames are one packet.
const BUFFER_BYTES: usize = 64 << 10;
/// A piece of this size goes out as it is: copying it costs more than a call of the system.
const LARGE_BYTES: usize = 16 << 10;

/// Why nothing goes out any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteFault {
    /// The system ended it.
    #[error("writing failed: {0}")]
    Failed(#[from] io::Error),
    /// The other reads nothing.
    #[error("the peer accepts no byte for {0:?}")]
    Stalled(Duration),
}

/// The writing half of a connection.
pub(crate) struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
    seed: u32,
    /// How long to wait until a byte is taken.
    stall: Duration,
    counters: Arc<LaneCounters>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes a stream behind its hello.
    pub(crate) fn new(stream: W, seed: u32, stall: Duration, counters: Arc<LaneCounters>) -> Self {
        Self { stream, buffer: Vec::with_capacity(BUFFER_BYTES), seed, stall, counters }
    }

    /// Writes a frame with these pieces as its payload, or a part of it and the rest with [`Self::flush`].
    pub(crate) async fn frame(&mut self, head: FrameHead, pieces: &[Bytes]) -> Result<(), WriteFault> {
        let header = head.encode(self.seed, pieces);
        self.piece(&header).await?;
        let mut length = HEADER_BYTES;
        for piece in pieces {
            length += piece.len();
            self.piece(piece).await?;
        }
        self.counters.sent(length);
        Ok(())
    }

    /// Hands everything to the system.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteFault> {
        self.empty().await?;
        timeout(self.stall, self.stream.flush()).await.map_err(|_| WriteFault::Stalled(self.stall))??;
        Ok(())
    }

    /// A frame that is not to wait for others.
    pub(crate) async fn frame_at_once(&mut self, head: FrameHead, pieces: &[Bytes]) -> Result<(), WriteFault> {
        self.frame(head, pieces).await?;
        self.flush().await
    }

    /// Gathers a small piece, or writes a large one behind what is gathered.
    async fn piece(&mut self, piece: &[u8]) -> Result<(), WriteFault> {
        if self.buffer.len() + piece.len() > BUFFER_BYTES || piece.len() >= LARGE_BYTES {
            self.empty().await?;
        }
        if piece.len() >= LARGE_BYTES {
            return write(&mut self.stream, piece, self.stall).await;
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    async fn empty(&mut self) -> Result<(), WriteFault> {
        let written = write(&mut self.stream, &self.buffer, self.stall).await;
        self.buffer.clear();
        written
    }
}

/// Writes all of it, as long as some of it is taken in time again and again.
async fn write(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8], stall: Duration) -> Result<(), WriteFault> {
    while !bytes.is_empty() {
        match timeout(stall, stream.write(bytes)).await {
            Err(_) => return Err(WriteFault::Stalled(stall)),
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(Ok(taken)) => bytes = &bytes[taken..],
            Ok(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameKind;
    use crate::pulse::Pulse;
    use crate::reading::{FrameReader, ReadFault};

    const SEED: u32 = 99;
    const STALL: Duration = Duration::from_secs(20);

    fn pieces(lengths: &[usize]) -> Vec<Bytes> {
        lengths.iter().enumerate().map(|(number, length)| Bytes::from(vec![number as u8 + 1; *length])).collect()
    }

    fn reader<R: tokio::io::AsyncRead + Unpin>(stream: R) -> FrameReader<R> {
        FrameReader::new(stream, SEED, STALL, Pulse::default(), Arc::default())
    }

    #[tokio::test]
    async fn pieces_of_all_sizes_are_read_back_as_one_payload() {
        let frames: [&[usize]; 7] = [
            &[],
            &[0, 0],
            &[1, 2, 3],
            &[LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1],
            &[BUFFER_BYTES, 5, BUFFER_BYTES * 3],
            &[5; 20],
            &[LARGE_BYTES - 1; 9],
        ];
        for pipe in [1, 1000, 1 << 20] {
            let (near, far) = tokio::io::duplex(pipe);
            let mut writer = FrameWriter::new(near, SEED, STALL, Arc::default());
            let mut reader = reader(far);
            let writes = async {
                for (number, frame) in frames.into_iter().enumerate() {
                    let head = FrameHead::new(FrameKind::Datagram, number as u64);
                    writer.frame(head, &pieces(frame)).await.unwrap();
                }
                writer.flush().await.unwrap();
            };
            let reads = async {
                for (number, frame) in frames.into_iter().enumerate() {
                    let header = reader.next().await.unwrap();
                    assert_eq!(header.head.number, number as u64);
                    if number % 3 == 2 {
                        reader.skip(&header).await.unwrap();
                    } else {
                        assert_eq!(reader.payload(&header).await.unwrap(), pieces(frame).concat());
                    }
                }
            };
            tokio::join!(writes, reads);
            drop(writer);
            assert!(matches!(reader.next().await, Err(ReadFault::Ended)));
        }
    }

    #[tokio::test]
    async fn a_damaged_payload_is_neither_taken_nor_skipped() {
        for skips in [false, true] {
            let mut sent = FrameHead::new(FrameKind::Datagram, 0).encode(SEED, &pieces(&[9])).to_vec();
            sent.extend([1, 1, 1, 1, 0, 1, 1, 1, 1]);
            let counters = Arc::new(LaneCounters::default());
            let mut reader = FrameReader::new(&sent[..], SEED, STALL, Pulse::default(), counters.clone());
            let header = reader.next().await.unwrap();
            let read = if skips { reader.skip(&header).await } else { reader.payload(&header).await.map(drop) };
            assert!(matches!(read, Err(ReadFault::Damaged("payload"))));
            assert_eq!(counters.bad_checksums.load(std::sync::atomic::Ordering::Relaxed), 1);
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_and_who_says_nothing_is_found_out() {
        let (near, far) = tokio::io::duplex(10);
        let short = Duration::from_millis(30);
        let mut writer = FrameWriter::new(near, SEED, short, Arc::default());
        let stalled = writer.frame_at_once(FrameHead::new(FrameKind::Ping, 0), &[]).await;
        assert!(matches!(stalled, Err(WriteFault::Stalled(_))), "{stalled:?}");
        let mut reader = FrameReader::new(far, SEED, short, Pulse::default(), Arc::default());
        assert!(matches!(reader.next().await, Err(ReadFault::Silent(_))), "ten bytes are no header");
    }
}
