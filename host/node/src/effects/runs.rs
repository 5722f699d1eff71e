//! The runs of one call: beside others, and alone where that went wrong too often.

use std::collections::BTreeMap;

use vouch_broker::record::KeptAccess;

use super::locks::{HeldKeys, KeyClaim, KeyUse};

/// What a call had read is another by then so often, side by side with others, before it runs alone with its keys.
const SIDE_BY_SIDE: u32 = 3;
/// And then so often, for each time it touched others than before, before it runs alone in its namespace.
const WITH_ITS_KEYS: u32 = 3;

/// What a call touched in the runs of which nothing came since others changed it, and what its present run holds of it.
#[derive(Default)]
pub(crate) struct CallRuns {
    /// How many there were; where somebody who runs alone has its keys, as many as if it had been stale too often.
    stale: u32,
    /// What they read and wrote.
    keys: BTreeMap<String, KeyUse>,
    /// What the present one holds.
    pub(super) held: HeldKeys,
    /// Length of the last record that was proposed for one of them.
    pub(super) record_len: usize,
}

impl CallRuns {
    /// The present run is over: others may have what it held.
    pub(crate) fn leave(&mut self) {
        self.held = HeldKeys::default();
    }

    /// Length of the record that was proposed last with what it staged; 0 where there was none.
    pub(crate) fn record_len(&self) -> usize {
        self.record_len
    }

    /// Whether the next run holds its keys.
    pub(crate) fn is_alone(&self) -> bool {
        self.stale >= SIDE_BY_SIDE
    }

    /// What the next run waits for.
    pub(super) fn claim(&self) -> KeyClaim {
        if !self.is_alone() {
            // It holds nothing. Who runs alone with one of these keys makes it stale for sure: that one is waited for.
            return KeyClaim::Keys(self.keys.keys().map(|key| (key.clone(), KeyUse::Changes)).collect());
        }
        if self.stale < SIDE_BY_SIDE + WITH_ITS_KEYS { KeyClaim::Keys(self.keys.clone()) } else { KeyClaim::All }
    }

    /// What the run had read is another by now.
    pub(super) fn was_stale(&mut self, kept: Option<&KeptAccess>) {
        self.stale += 1;
        self.comes_to_nothing(kept);
    }

    /// Somebody who runs alone, or waits to, has a key that the run wrote: the next one waits for its turn.
    pub(super) fn was_kept_out(&mut self, kept: Option<&KeptAccess>) {
        self.stale = (self.stale + 1).max(SIDE_BY_SIDE);
        self.comes_to_nothing(kept);
    }

    /// Before it runs once more it waits for a place, and whoever has one may wait for its keys: it keeps none of them meanwhile.
    fn comes_to_nothing(&mut self, kept: Option<&KeptAccess>) {
        self.leave();
        self.touched(kept);
    }

    /// Notes what a run read and wrote.
    fn touched(&mut self, kept: Option<&KeptAccess>) {
        let Some(KeptAccess { reads, writes, .. }) = kept else { return };
        for key in reads.keys() {
            self.keys.entry(key.clone()).or_insert(KeyUse::Keeps);
        }
        self.keys.extend(writes.keys().map(|key| (key.clone(), KeyUse::Owns)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use vouch_broker::record::{KeyExpiry, KeyWrite};

    use super::*;
    use crate::effects::locks::KeyLocks;

    fn touched(reads: &[&str], writes: &[&str]) -> KeptAccess {
        let write = || KeyWrite { value: None, expires: KeyExpiry::Never };
        KeptAccess {
            namespace: "n".to_owned(),
            reads: reads.iter().map(|key| ((*key).to_owned(), 0)).collect(),
            writes: writes.iter().map(|key| ((*key).to_owned(), write())).collect(),
        }
    }

    fn keys(keys: &[(&str, KeyUse)]) -> KeyClaim {
        KeyClaim::Keys(keys.iter().map(|(key, of)| ((*key).to_owned(), *of)).collect())
    }

    #[test]
    fn a_call_that_is_stale_three_times_holds_all_that_it_touched_and_after_three_more_its_namespace() {
        let mut runs = CallRuns::default();
        assert_eq!((runs.is_alone(), runs.claim()), (false, keys(&[])));
        runs.was_stale(Some(&touched(&["a", "b"], &["a"])));
        assert_eq!((runs.is_alone(), runs.claim()), (false, keys(&[("a", KeyUse::Changes), ("b", KeyUse::Changes)])));
        runs.was_stale(Some(&touched(&["a"], &["c"])));
        assert!(!runs.is_alone());
        for stale in 0..3 {
            runs.was_stale(Some(&touched(&["b"], &[])));
            let all = keys(&[("a", KeyUse::Owns), ("b", KeyUse::Keeps), ("c", KeyUse::Owns)]);
            assert_eq!((runs.is_alone(), runs.claim()), (true, all), "{stale}");
        }
        runs.was_stale(Some(&touched(&["b"], &["b"])));
        assert_eq!((runs.is_alone(), runs.claim()), (true, KeyClaim::All));
    }

    #[test]
    fn who_is_kept_out_waits_for_its_turn_at_once_and_what_is_read_first_and_written_then_is_owned() {
        let mut runs = CallRuns::default();
        runs.was_kept_out(Some(&touched(&["a"], &[])));
        assert_eq!((runs.is_alone(), runs.claim()), (true, keys(&[("a", KeyUse::Keeps)])));
        runs.was_kept_out(Some(&touched(&[], &["a"])));
        assert_eq!(runs.claim(), keys(&[("a", KeyUse::Owns)]));
        runs.was_stale(Some(&touched(&["a"], &[])));
        assert_eq!(runs.claim(), keys(&[("a", KeyUse::Owns)]));
        runs.was_kept_out(None);
        assert_eq!(runs.claim(), KeyClaim::All, "each run that came to nothing counts");
    }

    /// Those who have the places may all wait for what it has.
    #[tokio::test]
    async fn a_run_that_comes_to_nothing_keeps_no_key_while_its_call_waits_for_a_place() {
        let locks = Arc::<KeyLocks>::default();
        let owns = || keys(&[("a", KeyUse::Owns)]);
        for came_to_nothing in [CallRuns::was_stale as fn(&mut CallRuns, Option<&KeptAccess>), CallRuns::was_kept_out] {
            let mut runs = CallRuns { held: locks.take("n", owns()).await, ..CallRuns::default() };
            assert!(runs.held.owns("a"));
            came_to_nothing(&mut runs, None);
            let other = tokio::time::timeout(Duration::from_secs(10), locks.take("n", owns())).await;
            assert!(other.is_ok_and(|held| held.owns("a")), "it is everybody's");
        }
    }
}
