//! Work that would keep others waiting: decompressing and digesting bodies, a few at a time on threads of their own.
//!
//! A body is worth it if it is compressed or has more than 64 KiB (`protocol::takes_long`); below, the change of threads would cost
//! more than the work.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::Span;

/// Bodies at once: each takes a processor for some milliseconds, and a few megabytes.
const BODIES_MAX: usize = 4;

/// The threads aside.
#[derive(Clone)]
pub(super) struct Aside(Arc<Semaphore>);

impl Default for Aside {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_MAX)))
    }
}

impl Aside {
    /// Runs `work` on a thread aside when its turn has come. Work whose handle was aborted before is not begun.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Working<T> {
        let (turns, span) = (self.0.clone(), Span::current());
        Working(tokio::spawn(async move {
            // The semaphore is never closed.
            let turn = turns.acquire_owned().await.ok();
            let working = tokio::task::spawn_blocking(move || {
                let done = span.in_scope(work);
                drop(turn);
                done
            });
            working.await.ok()
        }))
    }
}

/// Work under way. Dropping it gives up what has not begun.
pub(super) struct Working<T>(JoinHandle<Option<T>>);

impl<T> Future for Working<T> {
    /// None if the work panicked, or the runtime ends.
    type Output = Option<T>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|joined| joined.ok().flatten())
    }
}

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::*;

    #[tokio::test]
    async fn only_so_many_work_at_once_and_what_is_given_up_never_begins() {
        let (aside, begun) = (Aside::default(), Arc::new(AtomicUsize::new(0)));
        let all_work = Arc::new(Barrier::new(BODIES_MAX + 1));
        let (ends, end) = mpsc::channel::<()>();
        let end = Arc::new(std::sync::Mutex::new(end));
        let work = || {
            let (begun, all_work, end) = (begun.clone(), all_work.clone(), end.clone());
            move || {
                begun.fetch_add(1, Ordering::SeqCst);
                all_work.wait();
                let _ = end.lock().map(|end| end.recv());
            }
        };
        let working: Vec<_> = (0..BODIES_MAX).map(|_| aside.run(work())).collect();
        tokio::task::spawn_blocking(move || all_work.wait()).await.unwrap();
        let given_up = aside.run::<()>(|| panic!("it was given up before its turn"));
        let waits = aside.run(|| 7);
        drop(given_up);
        assert_eq!((begun.load(Ordering::SeqCst), aside.0.available_permits()), (BODIES_MAX, 0));
        drop(ends);
        for working in working {
            assert_eq!(working.await, Some(()));
        }
        assert_eq!(waits.await, Some(7));
    }
}
