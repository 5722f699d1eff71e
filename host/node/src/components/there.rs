//! Which bindings there were at a moment, for whoever remembers something of bindings and is to forget what is gone.

use std::collections::HashSet;

use vouch_broker::{NotDone, State};
use vouch_shard::Shard;

/// The bindings that there were when a shard was looked at. One that is made while the answer is on its way is none of
/// them, and is not gone either.
pub(crate) struct BindingsThen {
    names: HashSet<String>,
    /// Log position of the last record that had been applied.
    applied: u64,
}

impl BindingsThen {
    /// Looks now.
    ///
    /// # Errors
    /// The node stops.
    pub(crate) async fn look(shard: &Shard) -> Result<Self, NotDone> {
        shard.read(Self::of).await
    }

    fn of(state: &State) -> Self {
        let names = state.plugins().bindings().map(|(name, _)| name.to_owned());
        Self::behind(state.last_applied().map_or(0, |position| position.0), names)
    }

    /// Those of these names, behind the record at this log position.
    pub(crate) fn behind(applied: u64, names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect(), applied }
    }

    /// Whether a binding of this name, as the record at this log position set it, had been taken away. What was set
    /// behind the last record that was looked at is there.
    pub(crate) fn had_lost(&self, name: &str, revision: u64) -> bool {
        revision <= self.applied && !self.names.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_that_is_set_while_it_is_looked_for_is_not_gone() {
        let then = BindingsThen::behind(100, ["kept".to_owned()]);
        assert!(then.had_lost("removed", 40) && then.had_lost("removed", 100));
        assert!(!then.had_lost("removed", 101), "set again behind what was looked at");
        assert!(!then.had_lost("kept", 40) && !then.had_lost("kept", 200));
    }
}
