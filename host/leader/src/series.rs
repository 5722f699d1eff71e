//! A bounded number of series: who scrapes pays for each, and names are chosen by tenants.

use std::collections::BTreeMap;

/// Most series of one metric, [`OTHER`] not among them.
pub const SERIES_MAX: usize = 1000;
/// The label under which what has no series of its own is summed. Whoever is called so is summed there, too.
pub const OTHER: &str = "other";

/// Values by label: the first [`SERIES_MAX`] labels have a series of their own, for as long as this lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series<K, V> {
    named: BTreeMap<K, V>,
    other: Option<V>,
}

impl<K, V> Default for Series<K, V> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), other: None }
    }
}

impl<K: Ord, V: Default> Series<K, V> {
    /// The value of a label, or the one that it shares with others.
    pub fn of(&mut self, label: K) -> &mut V {
        if self.named.len() < SERIES_MAX || self.named.contains_key(&label) {
            return self.named.entry(label).or_default();
        }
        self.other()
    }

    /// The value that is shared.
    pub fn other(&mut self) -> &mut V {
        self.other.get_or_insert_default()
    }

    /// Takes the series of labels away that nobody has any more.
    pub fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.named.retain(|label, _| is_there(label));
    }
}

impl<K, V> Series<K, V> {
    /// Labels with a series of their own.
    pub fn named(&self) -> impl Iterator<Item = (&K, &V)> {
        self.named.iter()
    }

    /// What all others have together, if there are any.
    pub fn rest(&self) -> Option<&V> {
        self.other.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_values_are_summed() {
        let mut series = Series::<usize, u64>::default();
        for label in 0..SERIES_MAX {
            *series.of(label) += 1;
        }
        assert_eq!((series.named().count(), series.rest()), (SERIES_MAX, None));
        for label in [SERIES_MAX, SERIES_MAX + 1, 0] {
            *series.of(label) += 1;
        }
        assert_eq!((series.named().count(), series.rest()), (SERIES_MAX, Some(&2)));
        assert_eq!(series.named().next(), Some((&0, &2)), "who has a series keeps it");
        series.retain(|label| *label != 0);
        *series.of(SERIES_MAX) += 1;
        assert_eq!((series.named().count(), series.rest()), (SERIES_MAX, Some(&2)));
    }
}
