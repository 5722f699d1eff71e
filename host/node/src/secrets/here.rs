//! What the state holds of secrets, opened with the keys of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vouch_broker::state::SecretEntry;
use vouch_broker::{NotDone, Refusal, State};
use vouch_secrets::{SealedFor, SealedValue, SecretKeyId, SecretValue};
use vouch_shard::Shard;

use super::keys::{NodeKeys, refused};
use super::opened::OpenedSecrets;

/// The secrets of the cluster, as this node has them.
pub(crate) struct SealedSecretsHere {
    pub(crate) shard: Arc<Shard>,
    pub(crate) keys: Arc<NodeKeys>,
    pub(crate) cluster_id: [u8; 16],
}

impl SealedSecretsHere {
    /// Which values these secrets have now, in the order of their names; of one that does not exist nothing is said.
    ///
    /// # Errors
    /// The node stops.
    pub(crate) async fn value_ids(&self, names: &BTreeSet<String>) -> Result<Vec<[u8; 16]>, NotDone> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names = names.clone();
        let ids = move |state: &State| {
            let secrets = state.secrets();
            names.iter().filter_map(|name| secrets.get(name)).map(|secret| secret.value_id).collect()
        };
        self.shard.read(ids).await
    }

    /// The values of these secrets.
    ///
    /// # Errors
    /// One does not exist, or this node lacks the key that opens it.
    pub(crate) async fn opened(&self, names: &BTreeSet<String>) -> Result<OpenedSecrets, NotDone> {
        if names.is_empty() {
            return Ok(OpenedSecrets::default());
        }
        let names = names.clone();
        let find = move |state: &State| {
            let named = |name: String| (state.secrets().get(&name).cloned(), name);
            names.into_iter().map(named).collect::<Vec<_>>()
        };
        let mut values = BTreeMap::new();
        for (secret, name) in self.shard.read(find).await? {
            let missing =
                || Refusal::NotFound(format!("there is no secret {name}; set it first, with: vouch secret set {name}"));
            let value = self.open(&name, &secret.ok_or_else(missing)?).await?;
            values.insert(name, value);
        }
        Ok(OpenedSecrets::new(values))
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// This node lacks its key, or it was changed since it was sealed.
    pub(super) async fn open(&self, name: &str, secret: &SecretEntry) -> Result<SecretValue, NotDone> {
        let keys = self.keys.with(secret.key_id).await.map_err(|fault| refused(&fault))?;
        let (bound, sealed) = (self.bound(name, secret), sealed_value(secret));
        keys.open(&bound, &sealed).map_err(|why| NotDone::Refused(Refusal::Conflict(why.to_string())))
    }

    /// What a secret of the state is sealed for.
    pub(super) fn bound<'a>(&self, name: &'a str, secret: &SecretEntry) -> SealedFor<'a> {
        SealedFor { cluster_id: self.cluster_id, name, value_id: secret.value_id }
    }
}

/// What a secret of the state is, sealed.
pub(super) fn sealed_value(secret: &SecretEntry) -> SealedValue {
    SealedValue { key: SecretKeyId(secret.key_id), nonce: secret.nonce, sealed: secret.sealed.clone() }
}
