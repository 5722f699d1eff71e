//! What the clock decides, as far as it must be in the log: ages are a function of the log alone.

use vouch_broker::Millis;
use vouch_broker::record::{LeapsBelieved, Leapt, Record};
use vouch_commitlog::EntryKind;

use super::executor::Executor;
use super::inbox::{Claim, Proposal};

/// So much time between two looks was not felt by the timers: the machine slept.
const NOT_FELT_MS: u64 = 5_000;

impl Executor {
    /// Time for an entry: no earlier than that of the one before it, which may be ahead of the clock while a leap is on its
    /// way.
    pub(super) fn time(&self) -> Millis {
        self.shared.clock.now().max(self.latest)
    }

    /// Looks what the clock decided. Also keeps the clock watched where nothing else asks for the time.
    pub(super) fn keep_time(&mut self) {
        let now = self.shared.clock.now();
        if now.ms_since(self.kept_time_at) >= NOT_FELT_MS {
            self.shared.checks_changed.notify_one();
        }
        self.kept_time_at = now;
        if self.closed.is_some() {
            return;
        }
        if let Some(ahead) = self.shared.clock.due()
            && self.latest <= now
        {
            // In an entry of its own, and before anything has a time that lies beyond it: what forgets by age must know
            // of the leap first.
            self.write_batch();
            let mut records = Vec::new();
            Leapt { from: ahead.from, doubted: false }.encode(&mut records);
            let leap = Proposal { records, reply: None, cost: 0, claim: Claim::Reserve };
            self.write_entry(EntryKind::Records, vec![leap], ahead.to);
        }
        if self.shared.clock.agreed()
            && let Some(to) = self.state.leaps().doubted_to()
        {
            let believed = LeapsBelieved { to };
            self.propose_own(|out| believed.encode(out));
        }
    }

    /// A leap that is in the log is the clock's, too. Until then nobody was told a time beyond it.
    pub(super) fn note_leap(&mut self, record: &Record, time: Millis) {
        match record {
            // One that is in doubt is where the clock began.
            Record::Leapt(Leapt { doubted: false, .. }) => {
                self.shared.clock.follow(time);
                self.shared.checks_changed.notify_one();
            }
            Record::LeapsBelieved(_) => {
                tracing::info!("the wall clock held since the start; what is forgotten by its age goes by it again");
            }
            _ => {}
        }
    }
}
