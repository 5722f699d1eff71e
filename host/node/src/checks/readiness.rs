//! A node that does not lead has the components ready that it would ask if it did: they are compiled when their bindings are
//! applied, so that nobody waits for that when this node begins to lead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vouch_broker::state::BindingEntry;

use super::Asker;

/// Bindings that were made ready, by name, with their revisions.
#[derive(Clone, Default)]
pub(super) struct Readiness(Arc<Mutex<BTreeMap<String, u64>>>);

impl Readiness {
    /// Makes those ready that are not, beside whoever calls. One that cannot be is left to whoever asks it.
    pub(super) async fn keep(&self, asker: &Arc<Asker>) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let look = asker.shard.read(move |state| {
            let all = state.plugins().bindings();
            let new = all.filter(|(name, entry)| known.get(*name) != Some(&entry.revision));
            new.map(|(name, entry)| (name.to_owned(), entry.clone())).collect::<Vec<_>>()
        });
        let Ok(new) = look.await else { return };
        if new.is_empty() {
            return;
        }
        let revisions = new.iter().map(|(name, entry)| (name.clone(), entry.revision));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(revisions);
        tokio::spawn(make_ready(asker.clone(), new));
    }
}

async fn make_ready(asker: Arc<Asker>, bindings: Vec<(String, BindingEntry)>) {
    for (binding, entry) in bindings {
        match asker.bound.answerer(&binding, &entry).await {
            Ok(_) => tracing::info!(binding, "ready to be asked, if this node comes to lead"),
            Err(why) => tracing::warn!(binding, %why, "could not be asked if this node led"),
        }
    }
}
