//! Bounds the memory of requests that are still being received: a message counts from its announcement until it is whole.
//! From then on the node counts what it accepts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::trailer::RETRY_AFTER;

/// When a refused caller should try again: a few large requests take about that long to arrive.
const RETRY_AFTER_MS: u64 = 200;
/// Flag and length before each gRPC message.
const PREFIX_LEN: usize = 5;

/// Bytes of messages that are being received, on all connections.
#[derive(Debug)]
pub(super) struct Inbound {
    announced: AtomicU64,
    max: u64,
}

impl Inbound {
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { announced: AtomicU64::new(0), max })
    }

    fn reserve(&self, bytes: u64) -> Result<(), Status> {
        let before = self.announced.fetch_add(bytes, Ordering::Relaxed);
        // A single message always fits an idle node, whatever the bound.
        if before == 0 || before + bytes <= self.max {
            return Ok(());
        }
        self.release(bytes);
        let text =
            format!("{before} bytes are being received already, {} are allowed at once; send it again later", self.max);
        // As with every refusal of that kind (ruling 21). There is no answer yet that could carry the code.
        let mut metadata = MetadataMap::new();
        metadata.insert(RETRY_AFTER, RETRY_AFTER_MS.into());
        Err(Status::with_metadata(Code::ResourceExhausted, text, metadata))
    }

    fn release(&self, bytes: u64) {
        self.announced.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where a body stands between two gRPC messages.
#[derive(Debug)]
struct Counter {
    inbound: Arc<Inbound>,
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    /// Announced, and not yet all here.
    message: u64,
    left: u64,
}

impl Counter {
    fn new(inbound: Arc<Inbound>) -> Self {
        Self { inbound, prefix: [0; PREFIX_LEN], prefix_len: 0, message: 0, left: 0 }
    }

    fn take(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.left > 0 {
                let here = self.left.min(data.len() as u64);
                self.left -= here;
                data = &data[here as usize..];
                if self.left == 0 {
                    self.release();
                }
                continue;
            }
            self.prefix[self.prefix_len] = data[0];
            self.prefix_len += 1;
            data = &data[1..];
            if self.prefix_len == PREFIX_LEN {
                self.prefix_len = 0;
                let [_, a, b, c, d] = self.prefix;
                let announced = u64::from(u32::from_be_bytes([a, b, c, d]));
                // More than the largest message is refused by the decoder before it keeps anything.
                if announced <= vouch_protocol::limits::INBOUND_MAX_BYTES as u64 {
                    self.inbound.reserve(announced)?;
                    self.message = announced;
                }
                self.left = announced;
            }
        }
        Ok(())
    }

    fn release(&mut self) {
        self.inbound.release(std::mem::take(&mut self.message));
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.release();
    }
}

/// A request's body that counts.
#[derive(Debug)]
pub(crate) struct CountedBody {
    body: Incoming,
    counter: Counter,
}

impl CountedBody {
    pub(super) fn new(body: Incoming, inbound: Arc<Inbound>) -> Self {
        Self { body, counter: Counter::new(inbound) }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            // The client went away, or broke the protocol: as without this layer.
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(Box::new(error))))),
            None => return Poll::Ready(None),
        };
        let counted = frame.data_ref().map_or(Ok(()), |data| self.counter.take(data));
        Poll::Ready(Some(counted.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(len: u32) -> Vec<u8> {
        [&[0][..], &len.to_be_bytes(), &vec![7; len as usize]].concat()
    }

    #[test]
    fn a_message_counts_from_its_announcement_until_it_is_whole() {
        let inbound = Inbound::new(100);
        let announced = || inbound.announced.load(Ordering::Relaxed);
        let mut counter = Counter::new(inbound.clone());
        let bytes = [framed(60), framed(0), framed(30)].concat();
        counter.take(&bytes[..3]).unwrap();
        assert_eq!(announced(), 0);
        counter.take(&bytes[3..5]).unwrap();
        assert_eq!(announced(), 60);
        counter.take(&bytes[5..64]).unwrap();
        assert_eq!(announced(), 60);
        counter.take(&bytes[64..80]).unwrap();
        assert_eq!(announced(), 30, "the first is whole, the third is announced");
        drop(counter);
        assert_eq!(announced(), 0);
    }

    #[test]
    fn beyond_the_bound_a_message_is_refused_before_it_is_received_and_an_idle_node_takes_any() {
        let inbound = Inbound::new(100);
        let (mut first, mut second) = (Counter::new(inbound.clone()), Counter::new(inbound.clone()));
        first.take(&framed(1000)[..10]).unwrap();
        let refused = second.take(&framed(1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("send it again later"));
        assert_eq!(refused.metadata().get(RETRY_AFTER).unwrap(), "200");
        drop(first);
        second = Counter::new(inbound.clone());
        second.take(&framed(99)[..50]).unwrap();
        Counter::new(inbound.clone()).take(&framed(1)).unwrap();
        assert!(Counter::new(inbound).take(&framed(2)).is_err());
    }
}
