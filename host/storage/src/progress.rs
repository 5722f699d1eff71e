//! How far a start has come, for whoever waits for it, and the word that it shall end.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::StartError;

/// What a start is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartStep {
    /// It looks at the data folder, and takes it.
    #[default]
    Opening,
    /// It waits for a tool that needs the folder as it is.
    Waiting {
        /// For whom.
        holder: String,
    },
    /// It reads the newest snapshot.
    ReadingSnapshot,
    /// It replays the log behind the snapshot.
    Replaying {
        /// Bytes of the log that are replayed.
        replayed_bytes: u64,
        /// Bytes that are to be replayed, at most: what is prepared behind the log's end counts as well.
        total_bytes: u64,
    },
    /// The log or its snapshots are damaged, and all of the log is looked at.
    Looking {
        /// Bytes that were looked at.
        done_bytes: u64,
        /// Bytes that there are.
        total_bytes: u64,
    },
    /// It gets from another node what it lacks.
    Pulling {
        /// Bytes that came, or were there.
        done_bytes: u64,
        /// Bytes that there are to come.
        total_bytes: u64,
    },
    /// Nobody gives it what it lacks, now: others are asked, and they are asked again.
    Asking {
        /// What each of them says.
        told: String,
    },
    /// It reads what it got, as a start would.
    Checking {
        /// Bytes that were read.
        done_bytes: u64,
        /// Bytes that there are.
        total_bytes: u64,
    },
    /// The log is recovered; what works on it is started.
    Beginning,
}

/// What the operator waits for, after *recovering:*.
impl fmt::Display for StartStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("the data folder is being opened"),
            Self::Waiting { holder } => write!(f, "waiting for {holder}, which needs the data folder as it is"),
            Self::ReadingSnapshot => f.write_str("the newest snapshot is being read"),
            Self::Replaying { replayed_bytes, total_bytes } => {
                write!(f, "{replayed_bytes} of at most {total_bytes} bytes of the log are replayed")
            }
            Self::Looking { done_bytes, total_bytes } => {
                write!(f, "something is damaged; {done_bytes} of {total_bytes} bytes of the log are looked at")
            }
            Self::Pulling { done_bytes, total_bytes } => {
                write!(f, "{done_bytes} of {total_bytes} bytes of the log are here, which come from another node")
            }
            Self::Asking { told } => write!(f, "what this node lacks is asked for, and not to be had now: {told}"),
            Self::Checking { done_bytes, total_bytes } => {
                write!(f, "{done_bytes} of {total_bytes} bytes of the log are checked, which came from another node")
            }
            Self::Beginning => f.write_str("the log is recovered, and what works on it is being started"),
        }
    }
}

/// How far one start has come. Whoever waits asks; the start goes on without regard to it, unless it is given up.
#[derive(Debug, Default)]
pub struct StartProgress {
    step: Mutex<StartStep>,
    /// Written for each entry, so not behind the lock.
    replayed: AtomicU64,
    given_up: AtomicBool,
}

impl StartProgress {
    fn locked(&self) -> MutexGuard<'_, StartStep> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is at.
    pub fn step(&self) -> StartStep {
        let mut step = self.locked().clone();
        if let StartStep::Replaying { replayed_bytes, total_bytes } = &mut step {
            *replayed_bytes = self.replayed.load(Ordering::Relaxed).min(*total_bytes);
        }
        step
    }

    /// Nobody wants the node any more: the start ends with [`StartError::GivenUp`] as soon as it can, and changes nothing in
    /// the log.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// It was given up.
    pub fn go_on(&self) -> Result<(), StartError> {
        if self.given_up.load(Ordering::Relaxed) { Err(StartError::GivenUp) } else { Ok(()) }
    }

    /// What the start is at from now on. Whoever waits sees it at the next look.
    pub fn enter(&self, step: StartStep) {
        *self.locked() = step;
    }

    /// `total_bytes` of the log are to be replayed from now on.
    pub(crate) fn replays(&self, total_bytes: u64) {
        self.replayed.store(0, Ordering::Relaxed);
        self.enter(StartStep::Replaying { replayed_bytes: 0, total_bytes });
    }

    /// So many are by now.
    pub(crate) fn replayed(&self, bytes: u64) {
        self.replayed.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_never_says_more_than_there_is() {
        let progress = StartProgress::default();
        progress.replays(10);
        assert_eq!(progress.step().to_string(), "0 of at most 10 bytes of the log are replayed");
        progress.replayed(7);
        assert_eq!(progress.step(), StartStep::Replaying { replayed_bytes: 7, total_bytes: 10 });
        progress.replayed(11);
        assert_eq!(progress.step(), StartStep::Replaying { replayed_bytes: 10, total_bytes: 10 });
    }

    #[test]
    fn each_step_is_told_in_words_and_a_start_that_is_given_up_goes_no_further() {
        let progress = StartProgress::default();
        let steps = [
            (StartStep::Opening, "is being opened"),
            (StartStep::Waiting { holder: "process 7 (vouch backup)".to_owned() }, "waiting for process 7"),
            (StartStep::ReadingSnapshot, "newest snapshot"),
            (StartStep::Looking { done_bytes: 3, total_bytes: 9 }, "3 of 9 bytes"),
            (StartStep::Beginning, "the log is recovered"),
        ];
        for (step, words) in steps {
            progress.enter(step.clone());
            assert_eq!(progress.step(), step);
            assert!(step.to_string().contains(words), "{step}");
            progress.go_on().unwrap();
        }
        progress.give_up();
        assert!(matches!(progress.go_on(), Err(StartError::GivenUp)));
        assert_eq!(progress.step(), StartStep::Beginning, "that it was given up changes nothing of how far it is");
    }
}
