//! Whether this replica has what the leader had at the positions that the log names.
//!
//! A replica is as far with its snapshots as it can be, so either may be known first. What is never found out costs nothing: the
//! next position tells as much.

use std::collections::{BTreeMap, VecDeque};

use vouch_broker::RecordPosition;
use vouch_broker::record::SealedAt;

/// So many positions are remembered of each.
const MOST: usize = 64;

/// What is known of both, as far as it was not held against each other yet.
#[derive(Default)]
pub(super) struct Comparison {
    own: BTreeMap<RecordPosition, SealedAt>,
    told: VecDeque<SealedAt>,
}

impl Comparison {
    /// What is here.
    pub(super) fn has(&mut self, sealed: &[SealedAt]) {
        self.own.extend(sealed.iter().map(|sealed| (sealed.position, *sealed)));
        while self.own.len() > MOST {
            self.own.pop_first();
        }
    }

    /// What the leader had.
    pub(super) fn told(&mut self, sealed: Vec<SealedAt>) {
        self.told.extend(sealed);
        let beyond = self.told.len().saturating_sub(MOST);
        self.told.drain(..beyond);
    }

    /// What differs, and where, of the first position at which anything does.
    pub(super) fn difference(&mut self) -> Option<(RecordPosition, &'static str)> {
        let Self { own, told } = self;
        let mut found = None;
        told.retain(|told| {
            let Some(own) = own.get(&told.position) else { return true };
            found = found.or_else(|| own.differs(told).map(|what| (told.position, what)));
            false
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64, since: u64, part: Option<u32>, state: u64) -> SealedAt {
        SealedAt { position: RecordPosition(position), since, part, state }
    }

    #[test]
    fn what_differs_is_found_whichever_is_known_first() {
        for first in [true, false] {
            let mut comparison = Comparison::default();
            let (own, told) = (
                vec![at(10, 0, Some(1), 7), at(20, 10, Some(2), 8)],
                vec![at(10, 0, Some(1), 7), at(20, 10, Some(2), 9)],
            );
            if first {
                comparison.has(&own);
                assert_eq!(comparison.difference(), None);
                comparison.told(told);
            } else {
                comparison.told(told);
                assert_eq!(comparison.difference(), None);
                comparison.has(&own);
            }
            assert_eq!(comparison.difference().map(|(position, _)| position.0), Some(20));
        }
    }

    #[test]
    fn parts_are_compared_where_they_begin_at_the_same_position() {
        let differs = |own, told| {
            let mut comparison = Comparison::default();
            comparison.has(&[own]);
            comparison.told(vec![told]);
            comparison.difference().is_some()
        };
        assert!(!differs(at(20, 10, Some(2), 8), at(20, 10, Some(2), 8)));
        assert!(differs(at(20, 10, Some(2), 8), at(20, 10, Some(3), 8)));
        assert!(differs(at(20, 10, None, 8), at(20, 10, Some(3), 8)));
        assert!(!differs(at(20, 15, Some(2), 8), at(20, 10, Some(3), 8)), "it had to make room in between");
        assert!(differs(at(20, 15, Some(2), 8), at(20, 10, Some(3), 9)), "what else there is does not depend on that");
        assert!(!differs(at(20, 10, Some(2), 8), at(30, 10, Some(3), 9)), "another position");
    }

    #[test]
    fn what_is_never_found_out_is_not_kept_for_ever() {
        let mut comparison = Comparison::default();
        for n in 0..1000 {
            comparison.has(&[at(2 * n, 0, None, 1)]);
            comparison.told(vec![at(2 * n + 1, 0, None, 1)]);
            assert_eq!(comparison.difference(), None);
        }
        assert_eq!((comparison.own.len(), comparison.told.len()), (MOST, MOST));
    }
}
