//! Response bodies with an end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::Error;

use super::trouble::RequestTrouble;

/// The place of an open request: whoever holds something of it holds this.
pub(super) type Open = Arc<OwnedSemaphorePermit>;

/// A response's body that says when its next piece is waited for.
pub(super) struct WatchedBody<B> {
    body: B,
    trouble: RequestTrouble,
    waits: bool,
}

impl<B> WatchedBody<B> {
    /// Watches a body that the guest reads: while it waits for more, the time is not its own.
    pub(super) fn new(body: B, trouble: RequestTrouble) -> Self {
        Self { body, trouble, waits: false }
    }
}

impl<B: Body + Unpin> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() != self.waits {
            self.waits = polled.is_pending();
            if self.waits { self.trouble.waits() } else { self.trouble.came() }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body that fails once more than `left` bytes came.
pub(super) struct BoundedBody {
    incoming: Incoming,
    limit: u64,
    left: u64,
    /// Given back when the end was read, or nobody wants it.
    open: Option<Open>,
}

impl BoundedBody {
    /// Bounds a body to so many bytes, and keeps the request open until it is read or dropped.
    pub(super) fn new(incoming: Incoming, limit: u64, open: Open) -> Self {
        Self { incoming, limit, left: limit, open: Some(open) }
    }
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            None => {
                self.open = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.left = 0;
                Poll::Ready(Some(Err(Error::HttpResponseBodySize(Some(self.limit)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
