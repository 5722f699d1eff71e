//! Stretches of the log's time that nobody lived through, and how old things are in spite of them.
//!
//! The log's time leaps when a node starts after a while, and when it follows a wall clock that was ahead. Leases and
//! checks go by the log's time as it is. Whatever is *forgotten* by age (outcomes, messages for resends, what groups have a
//! right to, messages past their retention) goes by ages, which are counted here: a leap that may be a mistake of the wall
//! clock makes nothing older.

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::Millis;
use crate::record::codec::{DecodeError, Reader, Writer};

/// Leaps that are remembered. Beyond it the oldest goes.
pub const LEAPS_MAX: usize = 1000;

/// The log's time went from one moment to another, and no clock of a running node did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leap {
    /// Up to here time was lived.
    pub from: Millis,
    /// From here on again.
    pub to: Millis,
    /// Nobody knows yet whether so much time passed: it makes nothing older.
    pub doubted: bool,
    /// Records have times between the two, and these are too early by up to the whole leap: they count as `to`.
    pub stamped: bool,
}

impl Leap {
    fn len_ms(&self) -> u64 {
        self.to.ms_since(self.from)
    }
}

/// The leaps that still matter, ascending; none begins before the one before it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaps(Vec<Leap>);

impl Leaps {
    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Leap> {
        self.0.iter()
    }

    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// How much time is in doubt, in ms.
    pub fn doubted_ms(&self) -> u64 {
        self.0.iter().filter(|leap| leap.doubted).map(Leap::len_ms).sum()
    }

    /// Where the last leap that is in doubt ends.
    pub fn doubted_to(&self) -> Option<Millis> {
        self.0.iter().rfind(|leap| leap.doubted).map(|leap| leap.to)
    }

    /// Time leapt. Nothing is changed by one that is none.
    pub(super) fn add(&mut self, leap: Leap) {
        let from = self.0.last().map_or(leap.from, |last| last.to.max(leap.from));
        if from >= leap.to {
            return;
        }
        self.0.push(Leap { from, ..leap });
        if self.0.len() > LEAPS_MAX {
            let oldest = self.0.remove(0);
            if oldest.doubted {
                // Its time must not begin to count for that: the next one takes it over, with what lies between.
                self.0[0].from = oldest.from;
                self.0[0].doubted = true;
            }
        }
    }

    /// Time that leapt up to then did pass.
    pub(super) fn believe(&mut self, to: Millis) {
        self.0.iter_mut().filter(|leap| leap.to <= to).for_each(|leap| leap.doubted = false);
        self.0.retain(|leap| leap.stamped || leap.doubted);
    }
}

/// A moment of the log's time, and how old things are then.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The moment.
    pub time: Millis,
    leaps: &'a Leaps,
}

impl<'a> Now<'a> {
    pub(super) fn new(time: Millis, leaps: &'a Leaps) -> Self {
        Self { time, leaps }
    }

    /// How many milliseconds ago something was. Never more than passed since; what is in doubt does not count.
    ///
    /// Of two things the one with the earlier time is not the younger one.
    pub fn age_ms(self, then: Millis) -> u64 {
        let (mut from, mut doubted) = (then, 0);
        // Hardly ever is one of them younger than what is asked about.
        for leap in self.leaps.0.iter().rev().take_while(|leap| leap.to > then) {
            if leap.from >= then {
                doubted += if leap.doubted { leap.len_ms() } else { 0 };
            } else {
                from = leap.to;
            }
        }
        self.time.ms_since(from).saturating_sub(doubted)
    }
}

impl Snapshot for Leaps {
    const SECTION: u16 = 8;
    // Of the first version of sections the checksum leaves out the head; this one is younger.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 2;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        w.varint(self.0.len() as u64);
        for Leap { from, to, doubted, stamped } in &self.0 {
            w.u64(from.0);
            w.u64(to.0);
            w.u8((*doubted).into());
            w.u8((*stamped).into());
        }
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut leaps = Self::default();
        for _ in 0..r.count("leaps")? {
            let (from, to) = (Millis(r.u64("leap from")?), Millis(r.u64("leap to")?));
            let (doubted, stamped) = (r.flag("doubted")?, r.flag("stamped")?);
            if from >= to || leaps.0.last().is_some_and(|last| last.to > from) {
                return Err(DecodeError::Value { field: "leap to", value: to.0 }.into());
            }
            if leaps.0.len() == LEAPS_MAX || !(doubted || stamped) {
                return Err(DecodeError::Value { field: "leaps", value: leaps.0.len() as u64 }.into());
            }
            leaps.0.push(Leap { from, to, doubted, stamped });
        }
        Ok(leaps)
    }
}
