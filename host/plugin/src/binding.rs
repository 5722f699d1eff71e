//! A component that answers for a binding.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinHandle},
};
use tracing::{Instrument, Span};
use vouch_sql::SqlCall;

use crate::{
    call::{self, CallSetup},
    code::PluginCode,
    core::EngineCore,
    databases::{self, ExaminedDatabase, FenceTable, OpenDatabases},
    dry::{DryRun, Tried},
    error::BindError,
    grants::HttpGrant,
    http::HttpGate,
    limits::Limits,
    log::{CallLog, LogLine, LogRing},
    outcome::{Checked, NoAnswer, Pending},
    places::{Membership, Name, NodePlace},
    quantity::ByteSize,
    secrets::BindingSecrets,
    spec::BindingSpec,
};

/// A component with its grants, limits and configuration. Cheap to clone; clones share places and log.
#[derive(Clone)]
pub struct Binding(Arc<Bound>);

/// What all clones of a binding share. It never changes: a binding that is set anew is another one, and checks that run
/// in the old one end there.
struct Bound {
    engine: Arc<EngineCore>,
    code: Arc<PluginCode>,
    name: Name,
    limits: Limits,
    grants: Arc<[HttpGrant]>,
    databases: OpenDatabases,
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

/// A place to run one check in, held until it is used or dropped.
pub struct Admission {
    binding: Binding,
    places: Places,
}

/// One place of the binding and one of the node.
struct Places {
    _binding: OwnedSemaphorePermit,
    _node: NodePlace,
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
        let BindingSpec { name, grants, limits, config, body, passwords, hidden } = spec;
        let databases = databases::open(&grants.sql, &passwords, &limits, &engine.databases)
            .map_err(|(name, why)| BindError::Database { name, why })?;
        let name = Name::from(name);
        Ok(Self(Arc::new(Bound {
            _membership: engine.places.join(&name, limits.deadline),
            log: before.map_or_else(|| LogRing::new(&name, &code.digest), |before| Arc::clone(&before.0.log)),
            places: before
                .map_or_else(|| Arc::new(Semaphore::new(limits.concurrency)), |before| Arc::clone(&before.0.places)),
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

    /// Whether its component is asked about many transactions in one call.
    pub fn takes_batches(&self) -> bool {
        self.0.code.guest.takes_batches()
    }

    /// Checks of this binding that are running now.
    pub fn running(&self) -> usize {
        self.0.limits.concurrency - self.0.places.available_permits()
    }

    /// What the operator should know: the component wants something that the binding does not grant, or the other way
    /// round. Empty if all is well.
    pub fn warnings(&self) -> Vec<String> {
        let (http, sql) = (!self.0.grants.is_empty(), !self.0.databases.is_empty());
        let wanted = &self.0.code.imports_wanted;
        let is_http = |name: &str| name.starts_with("wasi:http/");
        let is_sql = |name: &str| name.starts_with("vouch:plugin/sql@");
        let lacks = |name: &String| {
            let lack = match name {
                name if is_http(name) && http || is_sql(name) && sql => return None,
                name if is_http(name) => " and the binding grants no origin: every request will be denied",
                name if is_sql(name) => " and the binding grants no database: every call answers not-granted",
                _ => ", which this version cannot grant: every call answers not-granted",
            };
            Some(format!("the component imports {name}{lack}"))
        };
        let mut warnings: Vec<String> = wanted.iter().filter_map(lacks).collect();
        for (granted, name, is_it) in [(http, "http", &is_http as &dyn Fn(&str) -> bool), (sql, "sql", &is_sql)] {
            if granted && !wanted.iter().any(|wanted| is_it(wanted)) {
                warnings.push(format!(
                    "the binding grants {name} and the component does not import it: the grant has no use"
                ));
            }
        }
        warnings
    }

    /// The last 256 lines of the log of this binding.
    pub fn recent_logs(&self) -> Vec<LogLine> {
        self.0.log.after(0)
    }

    /// The lines of the log after the line with this number, oldest first, as far as they are remembered.
    pub fn logs_after(&self, number: u64) -> Vec<LogLine> {
        self.0.log.after(number)
    }

    /// Waits for a place: first among those of the binding, in the order of asking, then among those of the node, where
    /// the one goes first that will have held places for the least time, and some are left for those that have none running and
    /// for those whose checks are quick. For a runner that has more to ask than
    /// fits at once. May be dropped at any time.
    pub async fn admit(&self) -> Admission {
        let binding = Arc::clone(&self.0.places).acquire_owned().await.expect("this semaphore is never closed");
        let node = self.0.engine.places.take(&self.0.name).await;
        Admission { binding: self.clone(), places: Places { _binding: binding, _node: node } }
    }

    /// Takes a place if one is free.
    ///
    /// # Errors
    /// [`NoAnswer::NoCapacity`] if none is.
    pub fn try_admit(&self) -> Result<Admission, NoAnswer> {
        let binding = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| NoAnswer::NoCapacity {
            running: self.0.limits.concurrency,
            scope: "limits.concurrency of the binding",
        })?;
        let node = self.0.engine.places.try_take(&self.0.name).ok_or_else(|| self.full())?;
        Ok(Admission { binding: self.clone(), places: Places { _binding: binding, _node: node } })
    }

    /// The node runs as many calls as it may.
    fn full(&self) -> NoAnswer {
        NoAnswer::NoCapacity { running: self.0.engine.places.held(), scope: "the concurrency of the node" }
    }

    /// Asks one question in a fresh instance, or answers [`NoAnswer::NoCapacity`] at once if no place is free. Never takes
    /// much longer than `limits.deadline`. If the returned future is dropped, the guest is stopped.
    pub async fn check(&self, pending: Pending) -> Checked {
        match self.try_admit() {
            Ok(admission) => admission.check(pending).await,
            Err(full) => Checked::NoAnswer(full),
        }
    }
}

impl Binding {
    /// Asks one question in a dry call, of which nothing stays, or answers [`NoAnswer::NoCapacity`] if no place is free within
    /// `limits.deadline`. What the component says to its log stays there.
    pub async fn try_check(&self, pending: Pending) -> Tried {
        let dry = DryRun::default();
        let admitted = tokio::time::timeout(self.0.limits.deadline, self.admit()).await;
        let began = Instant::now();
        let checked = match admitted {
            Ok(Admission { binding, places }) => {
                single(binding.run(async move { Ok((vec![pending], places)) }, Some(dry.clone())).await)
            }
            Err(_) => Checked::NoAnswer(self.full()),
        };
        let secrets = &self.0.secrets;
        dry.into_tried(checked, began.elapsed(), |text| secrets.hide(text))
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

impl Admission {
    /// Asks one question in a fresh instance. If the returned future is dropped, the guest is stopped.
    pub async fn check(self, pending: Pending) -> Checked {
        let Self { binding, places } = self;
        single(binding.run(async move { Ok((vec![pending], places)) }, None).await)
    }

    /// Asks what `prepare` makes, which may take its time and memory: it runs on a thread for such work, behind the rest of
    /// the process, and holds the place while it does. So no more is prepared at once than runs at once.
    pub async fn check_prepared(self, prepare: impl FnOnce() -> Pending + Send + 'static) -> Checked {
        single(self.check_many_prepared(|| vec![prepare()]).await)
    }

    /// The same of a component that answers about many in one call. What came of each, in the order of asking.
    ///
    /// # Errors
    /// Why the call as a whole gave no answer.
    pub async fn check_many_prepared(
        self,
        prepare: impl FnOnce() -> Vec<Pending> + Send + 'static,
    ) -> Result<Vec<Checked>, NoAnswer> {
        let Self { binding, places } = self;
        let span = Span::current();
        let prepared = binding.0.engine.guests.spawn_blocking(move || (span.in_scope(prepare), places));
        binding.run(prepared, None).await
    }
}

impl Binding {
    /// Asks in a task of its own, so that a guest that computes holds no thread of the caller. The places are held
    /// until the guest is really gone, not only until the caller has his answer: what runs is what counts. If this is
    /// dropped the task is aborted at its next yield, which every epoch brings.
    ///
    /// A panic of the host is an answer of its own ([`NoAnswer::Host`]): the next check begins in a fresh instance, so
    /// nothing of this one is left to be wrong.
    async fn run(
        &self,
        prepared: impl Future<Output = Result<(Vec<Pending>, Places), JoinError>> + Send + 'static,
        dry: Option<DryRun>,
    ) -> Result<Vec<Checked>, NoAnswer> {
        let (binding, running) = (self.clone(), self.0.engine.running.clone());
        let checking = async move {
            let (asked, places) = prepared.await?;
            let run = running.enter();
            let mut setup = binding.setup(&asked);
            setup.dry = dry;
            setup.leash =
                Some(places._node.within(setup.limits.deadline)).filter(|leash| *leash < setup.limits.deadline);
            // The engine ends with its last handle, whether or not a guest still runs.
            drop(binding);
            let checked = call::check(setup, asked).await;
            drop((run, places));
            Ok::<_, JoinError>(checked)
        };
        // What is logged of the call belongs to whoever asks.
        let mut task = StopOnDrop(self.0.engine.guests.spawn(checking.instrument(Span::current())));
        match (&mut task.0).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(binding = self.name(), digest = self.digest(), %error, "a check failed in the host");
                Err(NoAnswer::Host(error.to_string()))
            }
        }
    }

    /// Everything that one call gets. The gate and the log are new for each: what one call spends of its bounds is none
    /// of the next one's business.
    fn setup(&self, asked: &[Pending]) -> CallSetup {
        let bound = &self.0;
        let about = match asked {
            [] => String::new(),
            [one] => one.transaction_id.clone(),
            [first, more @ ..] => format!("{} and {} more", first.transaction_id, more.len()),
        };
        let log = CallLog::new(Arc::clone(&bound.log), Arc::clone(&bound.secrets), about);
        let engine = &bound.engine;
        let gate = HttpGate::new(
            Arc::clone(&bound.grants),
            Arc::clone(&engine.resolver),
            Arc::clone(&engine.tls),
            &bound.limits,
            log.clone(),
        );
        CallSetup {
            guest: bound.code.guest.clone(),
            limits: bound.limits.clone(),
            config: Arc::clone(&bound.config),
            gate,
            databases: Arc::clone(&bound.databases),
            holds_fences: bound.holds_fences.load(Ordering::Relaxed),
            log,
            body: bound.body,
            leash: None,
            dry: None,
        }
    }
}

/// What came of the only one that was asked about.
fn single(checked: Result<Vec<Checked>, NoAnswer>) -> Checked {
    let only = checked.map(|mut all| all.pop().unwrap_or(Checked::NoAnswer(NoAnswer::LeftOut)));
    only.unwrap_or_else(Checked::NoAnswer)
}

/// Stops its task when dropped.
struct StopOnDrop<T>(JoinHandle<T>);

impl<T> Drop for StopOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
