//! The body of an answer: its room, and the trailer `retry-after-ms` of a throttled call (ruling 21).

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};

use crate::outbound::{ConnectionOutbound, OutboundRoom, RoomAsked};

/// Name of the trailer.
pub(super) const RETRY_AFTER: &str = "retry-after-ms";
/// Room that is asked for before a part of a stream is made: the largest message with all that belongs to it, and what the
/// encoder gathers besides.
const PART_MAX_BYTES: usize = (4 << 20) + (256 << 10);

/// Put into the extensions of a response: becomes the trailer if it is set before the response ends.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryAfter(Arc<OnceLock<u64>>);

impl RetryAfter {
    /// Set from the beginning.
    pub(super) fn ms(ms: u64) -> Self {
        Self(Arc::new(OnceLock::from(ms)))
    }

    /// Sets it once; later values are ignored.
    pub(super) fn set(&self, ms: u64) {
        self.0.get_or_init(|| ms);
    }
}

/// Put into the extensions of a streamed answer: while its next part is made aside, the room for it is kept, so that what is
/// made counts from before it is begun.
#[derive(Clone, Debug, Default)]
pub(super) struct PartRoom(Arc<AtomicBool>);

impl PartRoom {
    /// A part is being made until this is dropped. To be called where nothing is gathered: that would take the room with it.
    pub(super) fn keep(&self) -> RoomKept {
        self.0.store(true, Ordering::Relaxed);
        RoomKept(self.clone())
    }

    /// Whether a part is being made.
    pub(super) fn is_kept(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The room of a part that is being made.
#[derive(Debug)]
pub(super) struct RoomKept(PartRoom);

impl Drop for RoomKept {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// An answer as the generated service gives it.
pub(super) type Grpc = Response<tonic::body::Body>;

/// An answer whose bytes count until they are taken.
pub(crate) struct AnswerBody {
    /// As the service made it.
    body: tonic::body::Body,
    /// What may be set until it ends.
    retry_after: Option<RetryAfter>,
    /// The answer is a stream, which asks for room. Most are not: they stay small.
    streams: Option<Box<Parts>>,
    outbound: Arc<ConnectionOutbound>,
}

impl AnswerBody {
    /// An answer of the service, which may have put [`RetryAfter`] and, where it `streams`, [`PartRoom`] into its
    /// extensions.
    pub(super) fn of(mut answer: Grpc, streams: bool, outbound: Arc<ConnectionOutbound>) -> Response<Self> {
        let extensions = answer.extensions_mut();
        let retry_after = extensions.remove::<RetryAfter>();
        let streams = streams.then(|| {
            let part = extensions.remove::<PartRoom>().unwrap_or_default();
            Box::new(Parts { asked: RoomAsked::default(), part, kept: None })
        });
        answer.map(|body| Self { body, retry_after, streams, outbound })
    }

    /// An answer that no service made.
    pub(super) fn short(answer: Grpc, outbound: Arc<ConnectionOutbound>) -> Response<Self> {
        answer.map(|body| Self { body, retry_after: None, streams: None, outbound })
    }
}

/// The room of a stream's parts.
struct Parts {
    /// Its turn for room.
    asked: RoomAsked,
    /// Whether one is being made.
    part: PartRoom,
    /// Room of the part that is being made.
    kept: Option<OutboundRoom>,
}

impl Parts {
    /// Room for the next part: what is kept, or what comes with its turn.
    fn poll_room(&mut self, cx: &mut Context<'_>, of: &Arc<ConnectionOutbound>) -> Poll<Option<OutboundRoom>> {
        match self.kept.take() {
            Some(room) => Poll::Ready(Some(room)),
            None => self.asked.poll(cx, of, PART_MAX_BYTES),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let mut room = match &mut this.streams {
            Some(parts) => ready!(parts.poll_room(cx, &this.outbound)),
            None => None,
        };
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            // While the body has nothing and makes nothing, its room is free again.
            if let Some(parts) = &mut this.streams {
                parts.kept = room.filter(|_| parts.part.is_kept());
            }
            return Poll::Pending;
        };
        let retry_after = this.retry_after.as_ref().and_then(|retry_after| retry_after.0.get().copied());
        let hold = |bytes: Bytes| match room.take() {
            Some(mut room) => {
                OutboundRoom::shrink(&mut room, bytes.len());
                this.outbound.hold(bytes, Some(room))
            }
            None => this.outbound.hold_short(bytes),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| with_trailer(frame.map_data(hold), retry_after))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The last frame with the trailer, and every other as it is.
fn with_trailer(frame: Frame<Bytes>, retry_after: Option<u64>) -> Frame<Bytes> {
    match (frame.into_trailers(), retry_after) {
        (Ok(mut trailers), Some(ms)) => {
            add(&mut trailers, ms);
            Frame::trailers(trailers)
        }
        (Ok(trailers), None) => Frame::trailers(trailers),
        (Err(frame), _) => frame,
    }
}

/// Milliseconds, as the interface wants them.
fn add(trailers: &mut HeaderMap, ms: u64) {
    trailers.insert(RETRY_AFTER, HeaderValue::from(ms));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use super::*;
    use crate::outbound::Outbound;

    /// An answer whose part is made aside, and is made when `done` says so.
    #[derive(Clone, Default)]
    struct Aside {
        begun: Arc<AtomicUsize>,
        done: Arc<AtomicBool>,
    }

    struct Making {
        aside: Aside,
        part: PartRoom,
        kept: Option<RoomKept>,
    }

    impl Body for Making {
        type Data = Bytes;
        type Error = tonic::Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.kept.is_none() {
                self.aside.begun.fetch_add(1, Ordering::Relaxed);
                self.kept = Some(self.part.keep());
            }
            if !self.aside.done.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
            self.kept = None;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"made")))))
        }
    }

    #[test]
    fn what_is_made_aside_has_its_room_from_before_it_is_begun_until_it_is_taken() {
        const ON_ONE: usize = 3;
        let outbound = Outbound::new(8 * PART_MAX_BYTES, ON_ONE * PART_MAX_BYTES);
        let aside = Aside::default();
        let mut answers: Vec<_> = [outbound.connection(), outbound.connection()]
            .into_iter()
            .flat_map(|connection| vec![connection; 50])
            .map(|outbound| {
                let part = PartRoom::default();
                let body = tonic::body::Body::new(Making { aside: aside.clone(), part: part.clone(), kept: None });
                let streams = Some(Box::new(Parts { asked: RoomAsked::default(), part, kept: None }));
                AnswerBody { body, retry_after: None, streams, outbound }
            })
            .collect();
        let poll = |answer: &mut AnswerBody| {
            Pin::new(answer).poll_frame(&mut Context::from_waker(Waker::noop())).map(|frame| frame.unwrap().unwrap())
        };
        // However often: nobody reads.
        for _ in 0..2 {
            for answer in &mut answers {
                assert!(poll(answer).is_pending());
            }
            assert_eq!(aside.begun.load(Ordering::Relaxed), 2 * ON_ONE);
            assert_eq!(outbound.bytes(), (2 * ON_ONE * PART_MAX_BYTES) as u64);
        }
        aside.done.store(true, Ordering::Relaxed);
        let Poll::Ready(taken) = poll(&mut answers[0]) else { panic!("it is made") };
        assert_eq!(outbound.bytes(), ((2 * ON_ONE - 1) * PART_MAX_BYTES + 1024) as u64);
        assert!(poll(&mut answers[ON_ONE]).is_pending(), "what is made and not taken still counts");
        drop(taken);
        assert!(poll(&mut answers[ON_ONE]).is_ready());
        drop(answers);
        assert_eq!(outbound.bytes(), 0);
    }

    #[test]
    fn the_trailer_is_added_to_trailers_and_to_nothing_else() {
        let frame = with_trailer(Frame::trailers(HeaderMap::new()), Some(30));
        assert_eq!(frame.trailers_ref().and_then(|trailers| trailers.get(RETRY_AFTER)).unwrap(), "30");
        let frame = with_trailer(Frame::trailers(HeaderMap::new()), None);
        assert!(frame.trailers_ref().unwrap().is_empty());
        let frame = with_trailer(Frame::data(Bytes::from_static(b"x")), Some(30));
        assert_eq!(frame.data_ref().unwrap(), "x");
    }

    #[test]
    fn the_first_value_stands() {
        let retry_after = RetryAfter::default();
        retry_after.set(5);
        retry_after.set(9);
        assert_eq!(retry_after.0.get(), Some(&5));
    }
}
