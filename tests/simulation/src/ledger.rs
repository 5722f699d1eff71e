//! What a machine's disk must hold, by what its log and its note said: each start is held against it.

use vouch_commitlog::{Checkpoint, LogPosition};
use vouch_consensus::Vote;
use vouch_storage::ReplicaNote;

/// The entries of a log, and how many of them a power cut must leave.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    entries: Vec<Checkpoint>,
    /// What it was before a cut that may not have ended.
    before_the_cut: Option<Vec<Checkpoint>>,
    /// All before this position was said to be durable, by a node that is gone.
    pub(crate) durable: LogPosition,
    /// It was killed: what was written can still be read.
    killed: bool,
    /// The log begins here at the earliest, and here at the latest: segments were released.
    begins: (LogPosition, LogPosition),
    saved: Vote,
    /// What else was noted of it.
    noted: Noted,
}

/// What only grows in a note, but for what is durable, which a cut makes less.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    incarnation: u64,
    commit: u64,
    durable: LogPosition,
}

impl Noted {
    fn of(note: &ReplicaNote) -> Self {
        Self { incarnation: note.incarnation, commit: note.commit.index, durable: note.durable }
    }
}

impl Ledger {
    /// That of a log that came from other disks as a whole, all of it durable, in place of the one that this was. What was noted of the
    /// replica goes along.
    pub(crate) fn pulled(
        entries: Vec<Checkpoint>,
        (start, end): (LogPosition, LogPosition),
        own: Option<&Self>,
    ) -> Self {
        let (saved, was) = own.map_or_else(Default::default, |own| (own.saved, own.noted));
        let commit = entries.last().map_or(0, |last| last.index);
        let noted = Noted { commit, durable: end, ..was };
        Self { entries, durable: end, begins: (start, start), saved, noted, ..Self::default() }
    }

    /// The power went while no node ran.
    pub(crate) fn power_went(&mut self) {
        self.killed = false;
    }

    /// Entries that are there for good.
    pub(crate) fn durable_entries(&self) -> impl Iterator<Item = &Checkpoint> {
        self.entries.iter().filter(|entry| entry.end <= self.durable)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> &[Checkpoint] {
        &self.entries
    }

    pub(crate) fn appended(&mut self, entry: Checkpoint) {
        self.entries.push(entry);
    }

    /// All behind this position is about to be cut off.
    pub(crate) fn cut_begins(&mut self, to: LogPosition) {
        self.before_the_cut = Some(self.entries.clone());
        while self.entries.pop_if(|entry| entry.end > to).is_some() {}
        // It may be noted even if that fails.
        self.noted.durable = self.noted.durable.min(to);
    }

    pub(crate) fn cut_ended(&mut self) {
        self.before_the_cut = None;
    }

    pub(crate) fn saved(&mut self, vote: Vote) {
        self.saved = vote;
    }

    /// This is noted, durably.
    pub(crate) fn noted(&mut self, note: &ReplicaNote) {
        self.noted = Noted::of(note);
    }

    /// Segments before this position are about to leave the log.
    pub(crate) fn release_asked(&mut self, before: LogPosition) {
        self.begins.1 = self.begins.1.max(before);
    }

    /// The log begins here, for good.
    pub(crate) fn released(&mut self, start: LogPosition) {
        self.begins.0 = self.begins.0.max(start);
    }

    /// The last entry that is noted as committed.
    pub(crate) fn noted_commit(&self) -> u64 {
        self.noted.commit
    }

    pub(crate) fn vote(&self) -> Vote {
        self.saved
    }

    pub(crate) fn ends(&mut self, durable: LogPosition, killed: bool) {
        (self.durable, self.killed) = (durable, killed);
    }

    /// The entry with this index.
    pub(crate) fn entry(&self, index: u64) -> Option<&Checkpoint> {
        let first = self.entries.first()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// An entry somewhere near the end.
    pub(crate) fn late_entry(&self, from_the_end: u64) -> Option<&Checkpoint> {
        self.entries.iter().rev().nth(from_the_end as usize)
    }

    /// A start found a log that begins here, these entries, and this note; the log goes on with them.
    ///
    /// # Errors
    /// Something is missing that was durable, or is there that was never written or was cut off.
    pub(crate) fn found(
        &mut self,
        start: LogPosition,
        entries: Vec<Checkpoint>,
        note: &ReplicaNote,
    ) -> Result<(), String> {
        let (earliest, latest) = self.begins;
        let first = self.entries.is_empty() && self.before_the_cut.is_none();
        if !first && !(earliest..=latest).contains(&start) {
            return Err(format!("a log begins at {start}, and was released between {earliest} and {latest}"));
        }
        let Self { saved, durable, killed, noted: was, .. } = *self;
        let (noted, is) = (Vote { term: note.term, given_to: note.vote }, Noted::of(note));
        if is.incarnation < was.incarnation || is.commit < was.commit || is.durable < was.durable {
            return Err(format!("{was:?} was noted, and after a start it is {is:?}"));
        }
        let vote_is_kept = noted.term > saved.term
            || noted.term == saved.term && (noted.given_to == saved.given_to || saved.given_to.is_none());
        if !vote_is_kept {
            return Err(format!("{saved:?} was saved, and after a start it is {noted:?}"));
        }
        let end = entries.last().map_or(Checkpoint::BEFORE_ALL.end, |last| last.end);
        let all = |of: &Vec<Checkpoint>| of.last().map_or(LogPosition(0), |last| last.end);
        let fits = |of: &Vec<Checkpoint>| {
            let left = of.iter().take_while(|entry| entry.position < start).count();
            let at_least = if killed { all(of) } else { durable.min(all(of)) };
            of[left..].starts_with(&entries) && end >= at_least
        };
        if !first && !fits(&self.entries) && !self.before_the_cut.as_ref().is_some_and(fits) {
            let left = self.entries.iter().skip_while(|entry| entry.position < start);
            let differs = entries.iter().zip(left).find(|(found, was)| found != was);
            return Err(format!(
                "a start found {} entries up to {end}, and of {} up to {} those before {durable} were durable (killed: {killed}); \
                 they differ at {differs:?}",
                entries.len(),
                self.entries.len(),
                all(&self.entries),
            ));
        }
        *self = Self { entries, durable: end, saved: noted, begins: (start, start), ..Self::default() };
        Ok(())
    }
}
