//! The threads that guests run on, and the clock that interrupts them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
    thread_schedule_policy,
};
use tokio::runtime::{Builder, Runtime};
use wasmtime::EngineWeak;

/// How often a running guest is interrupted so that others, and timers, get their turn.
pub(crate) const EPOCH: Duration = Duration::from_millis(10);
/// How far the guests' threads stand back behind the rest of the process (`nice`).
const NICE: i32 = 10;
/// Threads for what would keep a guests' thread from the guests: name look-ups, which the system offers only as blocking
/// calls (one for each name that hangs), bodies to decompress, compiled code to read. Made only when they are needed.
const BLOCKING_THREADS: usize = 96;

/// Lowers the priority of the calling thread. On Linux the value belongs to the thread, not to the process.
fn stand_back() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "guest threads keep the normal priority");
    }
}

/// Lets a guests' thread have what nobody else wants: a thread of the broker that wakes takes its core at once. With a
/// lower `nice` alone it would wait until the guest has finished its slice of some milliseconds, and a send with it.
fn stand_back_at_once() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    // The call also sets `nice`, which may be refused where the whole process has another one; the class is what counts.
    if !thread_schedule_policy().is_ok_and(|policy| policy == idle) {
        tracing::warn!(?set, "guest threads are not scheduled as idle ones; a guest that computes may delay sends");
    }
    stand_back();
}

/// A runtime whose threads all stand back.
pub(crate) fn guest_runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("vouch-guest")
        .on_thread_start(stand_back_at_once)
        .enable_all()
        .build()
}

/// Threads that compile, so that a large upload neither takes the guests' threads nor every core at normal priority.
pub(crate) fn compile_pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("vouch-compile-{n}"))
        .start_handler(|_| stand_back())
        .build()
}

/// Counts running guests. The epoch ticker sleeps while there are none, so an idle broker is not woken.
#[derive(Clone)]
pub(crate) struct RunningGuests {
    guests: Arc<AtomicUsize>,
    ticker: Thread,
}

/// One running guest; ends when dropped.
pub(crate) struct Run(Arc<AtomicUsize>);

impl RunningGuests {
    /// Counts a guest as running until what this gives is dropped. The first one wakes the ticker, which sleeps while
    /// there is none.
    pub(crate) fn enter(&self) -> Run {
        if self.guests.fetch_add(1, Ordering::SeqCst) == 0 {
            self.ticker.unpark();
        }
        Run(Arc::clone(&self.guests))
    }

    /// Wakes the ticker, so that it sees that its engine is gone.
    pub(crate) fn wake_ticker(&self) {
        self.ticker.unpark();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Starts the thread that moves the engine's epoch every [`EPOCH`] while a guest runs. It ends with its engine. It keeps
/// the normal priority: it must get its turn when guests take every core.
pub(crate) fn start_ticker(engine: EngineWeak) -> io::Result<RunningGuests> {
    let guests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&guests);
    let ticker = thread::Builder::new().name("vouch-epoch".to_owned()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            let idle = seen.load(Ordering::SeqCst) == 0;
            engine.increment_epoch();
            drop(engine);
            if idle {
                thread::park();
            } else {
                thread::sleep(EPOCH);
            }
        }
    })?;
    Ok(RunningGuests { guests, ticker: ticker.thread().clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_run_on_threads_that_take_only_what_nobody_else_wants() {
        let runtime = guest_runtime(1).unwrap();
        let policy = runtime.block_on(runtime.spawn(async { thread_schedule_policy().unwrap() })).unwrap();
        assert_eq!(policy, ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle));
    }
}
