//! What the clock decides, as far as it must be in the log: ages are a function of the log alone.

use vouch_broker::Millis;
use vouch_broker::record::{LeapsBelieved, Leapt, Record};

use super::{Claim, ClockSays, Command, Core, Hearer, Proposal, ToWrite};

/// So much time between two looks was not felt by the timers: the machine slept.
const NOT_FELT_MS: u64 = 5_000;

impl Core {
    /// Takes over what the clock decided.
    pub(super) fn keep_time(&mut self, clock: ClockSays) {
        let now = self.now.time;
        if now.ms_since(self.kept_time_at) >= NOT_FELT_MS {
            self.commands.push_back(Command::ChecksChanged);
        }
        self.kept_time_at = now;
        if self.closed.is_some() {
            return;
        }
        if let Some(ahead) = clock.leap
            && self.latest <= now
        {
            // In an entry of its own, and before anything has a time that lies beyond it: what forgets by age must know
            // of the leap first.
            self.write_batch();
            let mut records = Vec::new();
            Leapt { from: ahead.from, doubted: false }.encode(&mut records);
            let leap = Proposal { records, told: Hearer::Nobody, cost: 0, claim: Claim::Reserve };
            self.to_write.push_back(ToWrite::Leap(leap, ahead.to));
        }
        if clock.agreed
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
                // What this turn still decides lies behind the leap: a lease of before it would be over at once.
                self.now.time = self.now.time.max(time);
                self.commands.push_back(Command::FollowClock(time));
                self.commands.push_back(Command::ChecksChanged);
            }
            Record::LeapsBelieved(_) => {
                tracing::info!("the wall clock held since the start; what is forgotten by its age goes by it again");
            }
            _ => {}
        }
    }
}
