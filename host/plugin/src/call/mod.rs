//! One call of a guest: a store, its limits, and what ended it.

mod checks;
mod consume;
mod reading;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use wasmtime::{Store, component::Instance};
use wasmtime_wasi::I32Exit;

use crate::{
    capability::inert_wasi,
    databases::{OpenDatabases, SqlReach},
    dry::DryRun,
    error_text::{describe, trace, without_trace},
    guest::CallState,
    guest_code::GuestCode,
    handed::{HOST_CALL_BYTES, HandedTooMuch, PUBLISH_BYTES},
    http::HttpGate,
    lent::{Lent, LentGrants},
    limits::Limits,
    log::CallLog,
    memory::OverMemory,
    outcome::NoAnswer,
    quantity::ByteSize,
    reach::CallReach,
    staged::Staged,
    worked::WorkedTime,
};
use reading::AnswerReader;

/// Most handles to resources that one instance may have, those of its own making and those lent to its parts included.
const MAX_HANDLES: usize = 16 << 10;

/// What a component is asked in one call, and how its answer is read.
pub(crate) trait GuestQuestion: Sized + Send + 'static {
    /// What comes of it.
    type Came: Send + 'static;

    /// Whom the lines of the log are about.
    fn about(&self) -> String;

    /// When it was asked, in ms since 1970 by the log's clock.
    fn asked_at_ms(&self) -> u64;

    /// Whether the call is about one thing, so that what it stages goes with the answer.
    fn stages(&self, guest: &GuestCode) -> bool;

    /// Puts it to a fresh instance, and reads what that says.
    ///
    /// # Errors
    /// What ended the guest; within, that it gave no answer.
    fn put(
        self,
        guest: &GuestCode,
        called: (&mut Store<CallState>, &Instance),
        reader: &AnswerReader,
    ) -> impl Future<Output = wasmtime::Result<Result<Self::Came, NoAnswer>>> + Send;

    /// Whether what was staged is recorded with this.
    fn keeps(came: &Self::Came) -> bool;

    /// Calls `each` with every text of it that a component can have written.
    fn each_text(came: &mut Self::Came, each: &mut impl FnMut(&mut String));
}

/// What one call needs besides the question.
pub(crate) struct CallSetup {
    pub(crate) guest: GuestCode,
    pub(crate) limits: Limits,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) gate: HttpGate,
    pub(crate) databases: OpenDatabases,
    /// What of state and outbox the binding grants, and who lends it.
    pub(crate) lent: (LentGrants, Option<Arc<dyn CallReach>>),
    /// `close-fence` answers *held*.
    pub(crate) holds_fences: bool,
    pub(crate) log: CallLog,
    pub(crate) body: bool,
    /// It has only this time, less than its deadline: its place is wanted by others.
    pub(crate) leash: Option<Duration>,
    /// Nothing of it is to stay.
    pub(crate) dry: Option<DryRun>,
}

/// Runs one call in a fresh instance, on the runtime of the guests. What came of it, and what it staged if that goes with it.
///
/// # Errors
/// Why the call as a whole gave no answer.
pub(crate) async fn ask<Q: GuestQuestion>(setup: CallSetup, question: Q) -> Result<(Q::Came, Staged), NoAnswer> {
    let (deadline, leashed) = (setup.leash.unwrap_or(setup.limits.deadline), setup.leash.is_some());
    let (log, trouble) = (setup.log.clone(), setup.gate.trouble.clone());
    let worked = WorkedTime::default();
    // Dropping the future drops the store, and with it the guest's requests and timers.
    let came = tokio::time::timeout(deadline, worked.measure(run(setup, question))).await;
    log.finish();
    let mut came = came.unwrap_or_else(|_| Err(out_of_time(deadline, leashed, worked.so_far())));
    if let Err(NoAnswer::Trap { why, .. }) = &mut came {
        let panic = log.take_panic();
        if !panic.is_empty() {
            *why = format!("{panic}\n{why}");
        }
    }
    let mut came = came.map_err(|then| match trouble.excuse().filter(|_| then.blames_component()) {
        Some(trouble) => NoAnswer::Outside { trouble, then: Box::new(then) },
        None => then,
    });
    // What follows goes to whoever looks: records, the transaction's last answer, the node's log. What was staged is the
    // component's own data.
    let mut hide = |text: &mut String| log.hide_secrets(text);
    match &mut came {
        Ok((came, _)) => Q::each_text(came, &mut hide),
        Err(why) => why.each_text(&mut hide),
    }
    came
}

/// Whose time it was: the component's, if it computed for more than half of it. On a machine without processor time for
/// it nobody can say that it would not have answered.
fn out_of_time(deadline: Duration, leashed: bool, worked: Duration) -> NoAnswer {
    // Nobody is blamed for time that he was not given.
    if worked > deadline / 2 && !leashed { NoAnswer::TimeUsedUp { deadline } } else { NoAnswer::Deadline { deadline } }
}

/// One call in a store of its own, from the instantiation to the answer. It has no time limit here: whoever polls it
/// ends it, and dropping it frees the instance with all that the guest holds.
async fn run<Q: GuestQuestion>(setup: CallSetup, question: Q) -> Result<(Q::Came, Staged), NoAnswer> {
    let CallSetup { guest, limits, config, mut gate, databases, lent, holds_fences, log, body, leash, dry } = setup;
    let time = leash.unwrap_or(limits.deadline);
    gate.dry.clone_from(&dry);
    let sql = match &dry {
        Some(dry) => SqlReach::dry_within(databases, time, dry.clone()),
        None => SqlReach { holds_fences, ..SqlReach::within(databases, time) },
    };
    let (grants, reach) = lent;
    let lent = Lent::new(grants, reach, question.stages(&guest), dry.clone());
    let handed_most = if lent.publishes() { PUBLISH_BYTES } else { HOST_CALL_BYTES };
    let reader = AnswerReader { limits: limits.clone(), log: log.clone(), body };
    let state = CallState::new(inert_wasi(&log), &limits, config, (gate, sql, lent), log, question.asked_at_ms());
    let mut store = Store::new(guest.engine(), state);
    store.limiter(|state| state);
    // Yields at every epoch, so that one guest does not hold a thread, and so that the deadline's timer gets its turn.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store.set_hostcall_fuel(handed_most.as_usize());
    store.set_max_component_handles(MAX_HANDLES);
    let called = async {
        let instance = guest.instantiate(&mut store).await?;
        question.put(&guest, (&mut store, &instance), &reader).await
    }
    .await;
    if let Some(dry) = dry {
        dry.had(store.data().cap.taken());
    }
    let came = called.unwrap_or_else(|error| Err(classify(&error, &limits, handed_most)))?;
    let staged = if Q::keeps(&came) { store.into_data().lent.into_staged() } else { Staged::default() };
    Ok((came, staged))
}

/// Why there was no answer, by what ended the guest. The order matters: an error of ours is looked for before anything
/// that a guest could bring about to look like it.
fn classify(error: &wasmtime::Error, limits: &Limits, handed_most: ByteSize) -> NoAnswer {
    if error.is::<OverMemory>() {
        return NoAnswer::MemoryLimit { limit: limits.memory };
    }
    if error.is::<HandedTooMuch>() {
        return NoAnswer::OutputTooLarge { limit: HOST_CALL_BYTES };
    }
    let trace = trace(error);
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return NoAnswer::Trap { why: format!("it called exit({code}); a plugin answers by returning"), trace };
    }
    // Places in the pool are counted by the semaphores above it, so this is the host's own mistake.
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return NoAnswer::Host(describe(error));
    }
    // The engine has no type for this one; a test holds the words.
    if without_trace(error).contains("too much data is being copied") {
        return NoAnswer::OutputTooLarge { limit: handed_most };
    }
    NoAnswer::Trap { why: without_trace(error), trace }
}
