//! How often components said the same of a transaction as the producer that ended it, by binding.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_leader::{OTHER, Series};

/// Comparisons of one binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComparisonCounts {
    /// It said the same.
    pub agreed: u64,
    /// It said the opposite.
    pub contradicted: u64,
}

/// Comparisons by binding. Behind a lock: there is at most one a second.
#[derive(Debug, Default)]
pub struct Comparisons(Mutex<Series<String, ComparisonCounts>>);

impl Comparisons {
    fn series(&self) -> MutexGuard<'_, Series<String, ComparisonCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one of a binding.
    pub(crate) fn count(&self, binding: &str, agreed: bool) {
        let mut series = self.series();
        let counts = if binding == OTHER { series.other() } else { series.of(binding.to_owned()) };
        *if agreed { &mut counts.agreed } else { &mut counts.contradicted } += 1;
    }

    /// What was counted until now.
    pub fn counts(&self) -> Series<String, ComparisonCounts> {
        self.series().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_counted_by_binding() {
        let comparisons = Comparisons::default();
        for (binding, agreed) in [("a", true), ("b", false), ("a", true), (OTHER, false)] {
            comparisons.count(binding, agreed);
        }
        let counts = comparisons.counts();
        let named: Vec<_> = counts.named().map(|(binding, counts)| (binding.as_str(), *counts)).collect();
        let counted = |agreed, contradicted| ComparisonCounts { agreed, contradicted };
        assert_eq!(named, [("a", counted(2, 0)), ("b", counted(0, 1))]);
        assert_eq!(counts.rest(), Some(&counted(0, 1)));
    }
}
