//! What this replica had at the positions that the log names, held against what others say that they had there.
//!
//! A replica is as far with its snapshots as it can be, so either may be known first. What is never found out costs nothing: the
//! next position tells as much. Where two had something else nobody knows yet who is right; that the members find out among themselves,
//! and until then this says that it is in doubt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_broker::RecordPosition;
use vouch_broker::record::SealedAt;

/// So many positions are remembered of each.
const MOST: usize = 64;

/// Two replicas had something else at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedUnlike {
    /// What this one had there. Of a later position than the other, where it was moved on.
    pub own: SealedAt,
    /// What another one had.
    pub other: SealedAt,
    /// What of it is not the same.
    pub what: &'static str,
}

/// What is known of this replica and of others, as far as it was not held against each other yet.
#[derive(Default)]
struct Compared {
    own: BTreeMap<RecordPosition, SealedAt>,
    told: VecDeque<SealedAt>,
    /// Positions at which it was found out who is right, and it was not for this replica to close.
    decided: BTreeSet<RecordPosition>,
    doubt: Option<SealedUnlike>,
}

/// What this replica had, and what others told that they had. All may ask and tell at any time.
#[derive(Default)]
pub struct Comparison(Mutex<Compared>);

impl Comparison {
    fn compared(&self) -> MutexGuard<'_, Compared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is here, as the snapshots find it.
    pub fn has(&self, sealed: &[SealedAt]) {
        let mut compared = self.compared();
        compared.own.extend(sealed.iter().map(|sealed| (sealed.position, *sealed)));
        while compared.own.len() > MOST {
            compared.own.pop_first();
        }
        compared.compare();
    }

    /// What another replica had.
    pub fn told(&self, sealed: impl IntoIterator<Item = SealedAt>) {
        let mut compared = self.compared();
        for sealed in sealed {
            // Whoever is in doubt asks again and again.
            if !compared.told.contains(&sealed) {
                compared.told.push_back(sealed);
            }
        }
        let beyond = compared.told.len().saturating_sub(MOST);
        compared.told.drain(..beyond);
        compared.compare();
    }

    /// What this replica had there; `None` where it has made no snapshot of it since it started, or has forgotten.
    #[must_use]
    pub fn had(&self, position: RecordPosition) -> Option<SealedAt> {
        let compared = self.compared();
        let doubted = compared.doubt.map(|doubt| doubt.own).filter(|own| own.position == position);
        doubted.or_else(|| compared.own.get(&position).copied())
    }

    /// What this replica and another one had at the last position at which that was not the same, for as long as nobody knows who is
    /// right. Until then it must not become harder to find out: no segment goes, and nobody takes a snapshot from here.
    #[must_use]
    pub fn doubt(&self) -> Option<SealedUnlike> {
        self.compared().doubt
    }

    /// It is known who is right at this position, and this replica goes on.
    pub fn decided(&self, position: RecordPosition) {
        let mut compared = self.compared();
        compared.decided.insert(position);
        while compared.decided.len() > MOST {
            compared.decided.pop_first();
        }
        compared.doubt = compared.doubt.filter(|doubt| doubt.own.position != position);
    }

    /// The others do not say what they had at the position that is in doubt, since they have forgotten, or started since. From now on it
    /// is the newest that this replica knows.
    pub fn move_on(&self) {
        let mut compared = self.compared();
        let newest = compared.own.last_key_value().map(|(_, newest)| *newest);
        if let Some((doubt, newest)) = compared.doubt.as_mut().zip(newest)
            && newest.position > doubt.own.position
        {
            doubt.own = newest;
        }
    }
}

impl Compared {
    fn compare(&mut self) {
        let Self { own, told, decided, doubt } = self;
        told.retain(|other| {
            let Some(own) = own.get(&other.position) else { return true };
            let later = doubt.is_none_or(|doubt| doubt.own.position < own.position);
            if let Some(what) = own.differs(other).filter(|_| later && !decided.contains(&own.position)) {
                *doubt = Some(SealedUnlike { own: *own, other: *other, what });
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64, since: u64, part: Option<u32>, state: u64) -> SealedAt {
        SealedAt { position: RecordPosition(position), since, part, state }
    }

    const STATE: &str = "what is known of topics, groups and transactions";

    fn doubted(comparison: &Comparison) -> Option<u64> {
        comparison.doubt().map(|doubt| doubt.own.position.0)
    }

    #[test]
    fn what_differs_is_found_whichever_is_known_first() {
        for first in [true, false] {
            let comparison = Comparison::default();
            let (own, told) =
                ([at(10, 0, Some(1), 7), at(20, 10, Some(2), 8)], [at(10, 0, Some(1), 7), at(20, 10, Some(2), 9)]);
            if first {
                comparison.has(&own);
                assert_eq!(comparison.doubt(), None);
                comparison.told(told);
            } else {
                comparison.told(told);
                assert_eq!(comparison.doubt(), None);
                comparison.has(&own);
            }
            assert_eq!(comparison.doubt(), Some(SealedUnlike { own: own[1], other: told[1], what: STATE }));
        }
    }

    #[test]
    fn parts_are_compared_where_they_begin_at_the_same_position() {
        let differs = |own, told| {
            let comparison = Comparison::default();
            comparison.has(&[own]);
            comparison.told([told]);
            comparison.doubt().is_some()
        };
        assert!(!differs(at(20, 10, Some(2), 8), at(20, 10, Some(2), 8)));
        assert!(differs(at(20, 10, Some(2), 8), at(20, 10, Some(3), 8)));
        assert!(differs(at(20, 10, None, 8), at(20, 10, Some(3), 8)));
        assert!(!differs(at(20, 15, Some(2), 8), at(20, 10, Some(3), 8)), "it had to make room in between");
        assert!(differs(at(20, 15, Some(2), 8), at(20, 10, Some(3), 9)), "what else there is does not depend on that");
        assert!(!differs(at(20, 10, Some(2), 8), at(30, 10, Some(3), 9)), "another position");
    }

    #[test]
    fn a_doubt_stays_until_it_is_decided_and_that_position_is_not_doubted_again() {
        let comparison = Comparison::default();
        comparison.has(&[at(10, 0, None, 1), at(20, 0, None, 2)]);
        comparison.told([at(10, 0, None, 9), at(20, 0, None, 9), at(10, 0, None, 8)]);
        assert_eq!(doubted(&comparison), Some(20), "the last one");
        comparison.decided(RecordPosition(10));
        assert_eq!(doubted(&comparison), Some(20));
        comparison.decided(RecordPosition(20));
        comparison.told([at(10, 0, None, 9), at(20, 0, None, 9)]);
        assert_eq!(doubted(&comparison), None, "whoever is in doubt still asks on");
        comparison.has(&[at(30, 0, None, 3)]);
        comparison.told([at(30, 0, None, 9)]);
        assert_eq!(doubted(&comparison), Some(30), "the next position tells it again");
    }

    #[test]
    fn what_others_have_forgotten_is_asked_of_the_newest_position() {
        let comparison = Comparison::default();
        comparison.move_on();
        assert_eq!(comparison.doubt(), None);
        let other = at(10, 0, None, 9);
        comparison.has(&[at(10, 0, None, 1)]);
        comparison.told([other]);
        comparison.move_on();
        assert_eq!(doubted(&comparison), Some(10), "there is no newer one");
        comparison.has(&[at(20, 0, None, 2), at(30, 0, None, 3)]);
        comparison.move_on();
        assert_eq!(comparison.doubt(), Some(SealedUnlike { own: at(30, 0, None, 3), other, what: STATE }));
        comparison.decided(RecordPosition(30));
        assert_eq!(comparison.doubt(), None);
    }

    #[test]
    fn what_is_in_doubt_is_told_to_whoever_asks_however_old_it_is() {
        let comparison = Comparison::default();
        comparison.has(&[at(10, 0, None, 1)]);
        comparison.told([at(10, 0, None, 9)]);
        (2..1000).for_each(|n| comparison.has(&[at(10 * n, 0, None, 1)]));
        assert_eq!(comparison.had(RecordPosition(10)), Some(at(10, 0, None, 1)));
        assert_eq!(comparison.had(RecordPosition(20)), None, "it is forgotten");
        assert_eq!(comparison.had(RecordPosition(9990)), Some(at(9990, 0, None, 1)));
    }

    #[test]
    fn what_is_never_found_out_is_not_kept_for_ever() {
        let comparison = Comparison::default();
        for n in 0..1000 {
            comparison.has(&[at(2 * n, 0, None, 1)]);
            (0..3).for_each(|_| comparison.told([at(2 * n + 1, 0, None, 1)]));
            comparison.decided(RecordPosition(n));
            assert_eq!(comparison.doubt(), None);
        }
        let compared = comparison.compared();
        assert_eq!((compared.own.len(), compared.told.len(), compared.decided.len()), (MOST, MOST, MOST));
    }
}
