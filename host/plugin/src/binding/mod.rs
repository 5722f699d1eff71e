//! A component that answers for a binding.

mod asking;
mod warnings;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;
use vouch_sql::SqlCall;

pub use asking::Admission;

use crate::{
    code::PluginCode,
    core::EngineCore,
    databases::{self, ExaminedDatabase, FenceTable, OpenDatabases},
    error::BindError,
    grants::HttpGrant,
    lent::LentGrants,
    limits::Limits,
    log::{LogLine, LogRing},
    places::{Membership, Name},
    quantity::ByteSize,
    secrets::BindingSecrets,
    spec::BindingSpec,
    upload::World,
};

/// A component with its grants, limits and configuration. Cheap to clone; clones share places and log.
#[derive(Clone)]
pub struct Binding(Arc<Bound>);

/// What all clones of a binding share. It never changes: a binding that is set anew is another one, and calls that run
/// in the old one end there.
struct Bound {
    engine: Arc<EngineCore>,
    code: Arc<PluginCode>,
    name: Name,
    limits: Limits,
    grants: Arc<[HttpGrant]>,
    databases: OpenDatabases,
    lent: LentGrants,
    /// Its checks close no fence.
    holds_fences: Arc<AtomicBool>,
    config: Arc<BTreeMap<String, String>>,
    /// What of the config is in nothing that the component says.
    secrets: Arc<BindingSecrets>,
    body: bool,
    places: Arc<Semaphore>,
    log: Arc<LogRing>,
    /// Lets the node keep places for it.
    _membership: Membership,
}

impl Binding {
    /// Of a spec that was validated against this code. From now on places of the node are kept for it, until the last
    /// clone goes. It goes on with the log and the places of the one `before` it, if that was the same with other values of its
    /// secrets.
    ///
    /// # Errors
    /// A database that it grants cannot be used so.
    pub(crate) fn new(
        engine: Arc<EngineCore>,
        code: Arc<PluginCode>,
        spec: BindingSpec,
        before: Option<&Self>,
    ) -> Result<Self, BindError> {
        let BindingSpec { name, grants, mut limits, config, body, passwords, hidden } = spec;
        limits.concurrency = limits.concurrency.min(engine.config.concurrency);
        let databases = databases::open(&grants.sql, &passwords, &limits, &engine.databases)
            .map_err(|(name, why)| BindError::Database { name, why })?;
        let name = Name::from(name);
        Ok(Self(Arc::new(Bound {
            _membership: engine.places.join(&name, limits.deadline),
            log: before.map_or_else(|| LogRing::new(&name, &code.digest), |before| Arc::clone(&before.0.log)),
            places: before
                .map_or_else(|| Arc::new(Semaphore::new(limits.concurrency)), |before| Arc::clone(&before.0.places)),
            lent: LentGrants { state: grants.state.is_some(), publish: grants.publish.into() },
            grants: grants.http.into(),
            databases,
            holds_fences: before.map_or_else(Arc::default, |before| Arc::clone(&before.0.holds_fences)),
            secrets: Arc::new(BindingSecrets::of(&config, &hidden)),
            config: Arc::new(config),
            engine,
            code,
            name,
            limits,
            body,
        })))
    }

    /// The binding's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The digest of its component.
    pub fn digest(&self) -> &str {
        &self.0.code.digest
    }

    /// The databases that it grants with a fence table, by their names.
    pub fn fences(&self) -> impl Iterator<Item = (&str, FenceTable)> {
        let fences = self.0.databases.iter().filter(|(_, granted)| granted.fence);
        fences.map(|(name, granted)| (name.as_str(), FenceTable(granted.database.clone())))
    }

    /// From now on `close-fence` answers *held* to its checks, or does what it should again: while what the component says is
    /// contradicted by what producers say, it makes nothing true. Dry calls go on as they were.
    pub fn hold_fences(&self, hold: bool) {
        self.0.holds_fences.store(hold, Ordering::Relaxed);
    }

    /// Closes connections to its databases that nobody used for so long.
    pub fn close_idle_connections(&self, idle_for: Duration) {
        self.0.databases.values().for_each(|granted| granted.database.close_idle(idle_for));
    }

    /// Whether this is a clone of that one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether the component gets the messages' bodies. If not, [`crate::Message::body`] may be left empty.
    pub fn wants_body(&self) -> bool {
        self.0.body
    }

    /// The largest body that its component can be handed: what `limits.memory` leaves beside the memory it starts with.
    /// A larger one stops it in any case, so nobody need make it.
    pub fn body_max(&self) -> ByteSize {
        let taken = self.0.code.initial_memory.unwrap_or(ByteSize(0));
        ByteSize(self.0.limits.memory.0.saturating_sub(taken.0))
    }

    /// Whether its component settles transactions, one by one or many at a time.
    pub fn answers_checks(&self) -> bool {
        self.0.code.worlds.iter().any(|world| matches!(world, World::Checkback | World::CheckbackBatch))
    }

    /// Whether its component consumes messages.
    pub fn consumes(&self) -> bool {
        self.0.code.worlds.contains(&World::Consumer)
    }

    /// Whether its component is asked about many transactions in one call.
    pub fn takes_batches(&self) -> bool {
        self.0.code.guest.takes_batches()
    }

    /// Calls of this binding that are running now.
    pub fn running(&self) -> usize {
        self.0.limits.concurrency - self.0.places.available_permits()
    }

    /// The last 256 lines of the log of this binding.
    pub fn recent_logs(&self) -> Vec<LogLine> {
        self.0.log.after(0)
    }

    /// The lines of the log after the line with this number, oldest first, as far as they are remembered.
    pub fn logs_after(&self, number: u64) -> Vec<LogLine> {
        self.0.log.after(number)
    }

    /// Looks at the databases that it grants: whether each can be reached, and whether its fence can be trusted.
    pub async fn examine(&self) -> Vec<ExaminedDatabase> {
        let mut examined = Vec::new();
        for (name, granted) in self.0.databases.iter() {
            let mut found = granted.examine(SqlCall::dry_within(self.0.limits.deadline)).await;
            let secrets = &self.0.secrets;
            match &mut found {
                Ok(found) => found.refusals.iter_mut().chain(&mut found.warnings).for_each(|text| secrets.hide(text)),
                Err(error) => secrets.hide(error.text_mut()),
            }
            examined.push(ExaminedDatabase { name: name.clone(), found });
        }
        examined
    }
}
