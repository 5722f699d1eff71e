//! Messages over a stream, each bounded before it is read.
//!
//! A message says how long it is in its first bytes. One that is longer than all that a call may get is never waited for,
//! so a single huge field costs no memory.

use bytes::BytesMut;
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a connection goes over: TCP, TLS or a Unix socket.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What a message costs besides what the limit of a call is about.
const ALLOWED_BESIDES: usize = 64 << 10;

/// Why no message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireFault {
    /// The connection ended, or what came is not of this protocol.
    Ended,
    /// The next message is longer than any that is wanted. It is not read.
    TooLong,
}

/// Both directions of a connection.
pub(super) struct Wire {
    stream: Box<dyn ByteStream>,
    incoming: BytesMut,
    /// Messages to be sent with the next [`Wire::send`].
    pub(super) outgoing: BytesMut,
    max_message: usize,
}

impl Wire {
    /// A wire whose messages hold at most so many bytes of values: in text form those are two letters each.
    pub(super) fn new(stream: Box<dyn ByteStream>, max_values: usize) -> Self {
        let max_message = max_values.saturating_mul(2).saturating_add(ALLOWED_BESIDES);
        Self { stream, incoming: BytesMut::new(), outgoing: BytesMut::new(), max_message }
    }

    /// Sends what was written to `outgoing`, all at once.
    pub(super) async fn send(&mut self) -> Result<(), WireFault> {
        let sent = self.stream.write_all(&self.outgoing).await;
        self.outgoing.clear();
        sent.map_err(|_| WireFault::Ended)?;
        self.stream.flush().await.map_err(|_| WireFault::Ended)
    }

    /// The next message that answers something.
    pub(super) async fn next(&mut self) -> Result<Message, WireFault> {
        loop {
            let message = self.next_of_any_kind().await?;
            let is_aside = matches!(
                message,
                Message::NoticeResponse(_) | Message::ParameterStatus(_) | Message::NotificationResponse(_)
            );
            if !is_aside {
                return Ok(message);
            }
        }
    }

    /// The next message, whether or not it answers anything.
    async fn next_of_any_kind(&mut self) -> Result<Message, WireFault> {
        loop {
            let header = Header::parse(&self.incoming).map_err(|_| WireFault::Ended)?;
            if let Some(header) = header
                && usize::try_from(header.len()).is_ok_and(|length| length > self.max_message)
            {
                return Err(WireFault::TooLong);
            }
            if let Some(message) = Message::parse(&mut self.incoming).map_err(|_| WireFault::Ended)? {
                return Ok(message);
            }
            let read = self.stream.read_buf(&mut self.incoming).await.map_err(|_| WireFault::Ended)?;
            if read == 0 {
                return Err(WireFault::Ended);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(bytes: &[u8]) -> Result<Message, WireFault> {
        let (mut server, client) = tokio::io::duplex(1 << 20);
        server.write_all(bytes).await.unwrap();
        drop(server);
        Wire::new(Box::new(client), 100).next().await
    }

    #[tokio::test]
    async fn asides_are_passed_over_and_the_end_is_told() {
        assert!(matches!(heard(b"N\0\0\0\x05\0Z\0\0\0\x05T").await, Ok(Message::ReadyForQuery(_))));
        assert!(matches!(heard(b"S\0\0\0\x08a\0b\0Z\0\0\0\x05T").await, Ok(Message::ReadyForQuery(_))));
        assert!(matches!(heard(b"Z\0\0").await, Err(WireFault::Ended)));
        assert!(matches!(heard(b"HTTP/1.1 400").await, Err(WireFault::TooLong)));
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_not_waited_for() {
        assert_eq!(heard(b"D\x40\0\0\0").await.err(), Some(WireFault::TooLong));
    }
}
