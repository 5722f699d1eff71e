//! Pulls.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use vouch_transport::{
    CHUNK_MAX_BYTES, FilePull, PeerHandlers, PeerIdentity, PeerListener, PullFailed, ServeFiles, Transport,
};

use crate::node::{Setup, eventually, listen, node};
use crate::proxy::{Fault, From, Proxy, Rule};

/// Files by name: `whole` has a length, `endless` has none, `broken` cannot be read to its end, `hangs` gives nothing.
#[derive(Clone, Default)]
pub(crate) struct Endless {
    /// One for each source that is open.
    open: Arc<()>,
}

const WHOLE: u64 = 700_001;
const BREAKS_AT: u64 = 300_000;

fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

struct Source {
    at: u64,
    end: u64,
    breaks_at: u64,
    _open: Arc<()>,
}

impl AsyncRead for Source {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.breaks_at == 0 {
            return Poll::Pending;
        }
        if self.at >= self.breaks_at {
            return Poll::Ready(Err(io::Error::other("sector 7 cannot be read")));
        }
        // In pieces that are none of anybody's sizes.
        let length = (self.end - self.at).min(10_007).min(buffer.remaining() as u64);
        for offset in self.at..self.at + length {
            buffer.put_slice(&[byte(offset)]);
        }
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl ServeFiles for Endless {
    async fn open(
        &self,
        _: PeerIdentity,
        name: &str,
        from: u64,
        _: u64,
    ) -> io::Result<impl AsyncRead + Send + Unpin + 'static> {
        let (end, breaks_at) = match name {
            "whole" => (WHOLE, u64::MAX),
            "endless" => (u64::MAX, u64::MAX),
            "broken" => (u64::MAX, BREAKS_AT),
            "hangs" => (u64::MAX, 0),
            _ => return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name} here"))),
        };
        Ok(Source { at: from.min(end), end, breaks_at, _open: self.open.clone() })
    }
}

async fn pair(setup: Setup) -> (Transport, Endless, Proxy, (Transport, PeerListener)) {
    let (one, two, files) = (node(1), setup.start(), Endless::default());
    let listener = listen(&two, PeerHandlers::default().files(files.clone())).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    (one, files, proxy, (two, listener))
}

/// Reads to the end, or to the error.
async fn read(pull: &mut FilePull, from: u64) -> Result<u64, (u64, PullFailed)> {
    let mut at = from;
    loop {
        match pull.next().await {
            Ok(Some(chunk)) => {
                assert!(chunk.len() <= CHUNK_MAX_BYTES);
                for found in &chunk {
                    assert_eq!(*found, byte(at), "at {at}");
                    at += 1;
                }
                assert_eq!(pull.offset(), at);
            }
            Ok(None) => return Ok(at),
            Err(failed) => return Err((at, failed)),
        }
    }
}

#[tokio::test]
async fn a_stretch_is_pulled_whole_and_ends_where_it_was_to_or_where_the_file_does() {
    let (one, _, _, _two) = pair(Setup::of(2)).await;
    for (from, len, end) in [
        (0, u64::MAX, WHOLE),
        (0, WHOLE, WHOLE),
        (5, 10, 15),
        (WHOLE - 3, 100, WHOLE),
        (WHOLE + 9, 100, WHOLE + 9),
        (7, 0, 7),
        (1, CHUNK_MAX_BYTES as u64 + 1, CHUNK_MAX_BYTES as u64 + 2),
    ] {
        let mut pull = one.pull(2, "whole", from, len).await.unwrap();
        assert_eq!(pull.peer().node, 2);
        assert_eq!(read(&mut pull, from).await, Ok(end));
        assert_eq!(pull.next().await, Ok(None), "it stays complete");
    }
}

#[tokio::test]
async fn what_cannot_be_had_says_why_and_what_breaks_says_that_it_may_be_tried_again() {
    let (one, _, proxy, _two) = pair(Setup::of(2)).await;
    let mut pull = one.pull(2, "none", 0, 10).await.unwrap();
    assert_eq!(pull.next().await, Err(PullFailed::Refused("there is no file none here".to_owned())));
    assert_eq!(pull.next().await, Err(PullFailed::Refused("there is no file none here".to_owned())), "it stays so");
    let mut pull = one.pull(2, "broken", 0, u64::MAX).await.unwrap();
    let (at, failed) = read(&mut pull, 0).await.unwrap_err();
    assert!(at <= BREAKS_AT, "{at}");
    assert_eq!(failed, PullFailed::Refused("sector 7 cannot be read".to_owned()));

    proxy.plan(Fault::Cut(From::Acceptor, 300_000));
    let mut pull = one.pull(2, "whole", 0, WHOLE).await.unwrap();
    let (at, failed) = read(&mut pull, 0).await.unwrap_err();
    assert!(matches!(failed, PullFailed::Broken(_)), "{failed}");
    let mut rest = one.pull(2, "whole", at, WHOLE).await.unwrap();
    assert_eq!(read(&mut rest, at).await, Ok(WHOLE), "it goes on where it broke off");

    proxy.plan(Fault::Flip(From::Acceptor, 250_000));
    let mut pull = one.pull(2, "whole", 0, WHOLE).await.unwrap();
    let (at, failed) = read(&mut pull, 0).await.unwrap_err();
    assert!(at < 250_000 && failed.to_string().contains("checksum"), "{failed}");
    let nobody = one.pull(9, "whole", 0, 1).await.err().unwrap();
    assert!(nobody.to_string().contains("no address of node 9"), "{nobody}");
    assert!(matches!(one.pull(2, &"x".repeat(5000), 0, 1).await.err(), Some(PullFailed::Refused(_))));
    assert!(one.pull(2, "whole", 1, u64::MAX - 1).await.is_ok());
}

#[tokio::test]
async fn a_pull_that_nobody_wants_any_more_lets_its_source_go() {
    let (one, files, proxy, _two) = pair(Setup::of(2)).await;
    let mut pull = one.pull(2, "endless", 0, u64::MAX).await.unwrap();
    assert!(pull.next().await.unwrap().is_some());
    eventually("it is open", || Arc::strong_count(&files.open) == 3).await;
    // The sender waits for its reader, with everything full between them.
    proxy.rule(From::Acceptor, Rule::Hold);
    drop(pull);
    eventually("it is closed", || Arc::strong_count(&files.open) == 2).await;
}

/// A disk that does not answer keeps nobody from noticing that the peer left.
#[tokio::test]
async fn a_pull_of_what_hangs_can_be_dropped_as_well() {
    let (one, files, _, _two) = pair(Setup::of(2)).await;
    let mut pull = one.pull(2, "hangs", 0, 10).await.unwrap();
    eventually("it is open", || Arc::strong_count(&files.open) == 3).await;
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(10), pull.next()).await;
    assert!(given_up.is_err());
    assert!(matches!(pull.next().await, Err(PullFailed::Broken(why)) if why.contains("was given up")));
    drop(pull);
    eventually("it is closed", || Arc::strong_count(&files.open) == 2).await;
}

#[tokio::test]
async fn pulls_go_no_faster_than_the_rate_and_one_that_waits_for_it_can_be_dropped() {
    let mut setup = Setup::of(2);
    setup.bounds.files_bytes_per_second = 100_000;
    let (one, files, _, _two) = pair(setup).await;
    let began = Instant::now();
    let mut pull = one.pull(2, "whole", 0, 60_000).await.unwrap();
    assert_eq!(read(&mut pull, 0).await, Ok(60_000));
    assert!(began.elapsed().as_millis() >= 300, "it took {:?}", began.elapsed());
    let mut long = one.pull(2, "whole", 0, WHOLE).await.unwrap();
    assert!(long.next().await.unwrap().is_some());
    drop(long);
    eventually("both are closed", || Arc::strong_count(&files.open) == 2).await;
}
