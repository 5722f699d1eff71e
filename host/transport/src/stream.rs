//! A connection's bytes, with TLS or without.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Whatever carries a connection.
pub(crate) type Stream = Box<dyn Duplex>;

/// How long the other gets to read a last word.
const LINGER: Duration = Duration::from_secs(1);
/// At most so much of what it goes on sending is read meanwhile.
const LINGER_MAX_BYTES: u64 = 64 << 10;

/// Ends a connection so that the other reads what was said last: a socket that is closed while bytes wait in it is reset, and
/// the last word is lost on the way.
pub(crate) async fn part(mut stream: impl Duplex) {
    let end = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_MAX_BYTES), &mut tokio::io::sink()).await
    };
    // It may be gone already.
    let _ = timeout(LINGER, end).await;
}
