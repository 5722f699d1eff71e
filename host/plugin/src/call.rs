//! One call of a guest: a store, its limits, and the reading of what came out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use crate::{
    bindings::{CheckbackHostPre, checkback, types},
    capability::inert_wasi,
    databases::{OpenDatabases, SqlReach},
    dry::DryRun,
    error_text::{cut, describe, trace, without_trace},
    guest::CallState,
    http::HttpGate,
    limits::Limits,
    log::CallLog,
    memory::OverMemory,
    outcome::{Checked, Message, NoAnswer, Pending, Verdict},
    quantity::ByteSize,
    worked::WorkedTime,
};

/// Most bytes that a guest may hand to the host in one call of an imported function.
pub(crate) const HOST_CALL_BYTES: ByteSize = Limits::OUTPUT.1;
/// Most handles to resources that one instance may have, those of its own making and those lent to its parts included.
const MAX_HANDLES: usize = 16 << 10;

/// What one call needs besides the question.
pub(crate) struct CallSetup {
    pub(crate) pre: CheckbackHostPre<CallState>,
    pub(crate) limits: Limits,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) gate: HttpGate,
    pub(crate) databases: OpenDatabases,
    pub(crate) log: CallLog,
    pub(crate) body: bool,
    /// It has only this time, less than its deadline: its place is wanted by others.
    pub(crate) leash: Option<Duration>,
    /// Nothing of it is to stay.
    pub(crate) dry: Option<DryRun>,
}

/// Runs one check in a fresh instance, on the runtime of the guests.
pub(crate) async fn check(setup: CallSetup, pending: Pending) -> Checked {
    let (deadline, leashed) = (setup.leash.unwrap_or(setup.limits.deadline), setup.leash.is_some());
    let (log, trouble) = (setup.log.clone(), setup.gate.trouble.clone());
    let worked = WorkedTime::default();
    // Dropping the future drops the store, and with it the guest's requests and timers.
    let checked = tokio::time::timeout(deadline, worked.measure(run(setup, pending))).await;
    log.finish();
    let mut checked = checked.unwrap_or_else(|_| Checked::NoAnswer(out_of_time(deadline, leashed, worked.so_far())));
    if let Checked::NoAnswer(NoAnswer::Trap { why, .. }) = &mut checked {
        let panic = log.take_panic();
        if !panic.is_empty() {
            *why = format!("{panic}\n{why}");
        }
    }
    let mut checked = match checked {
        Checked::NoAnswer(then) if then.blames_component() => match trouble.excuse() {
            Some(trouble) => Checked::NoAnswer(NoAnswer::Outside { trouble, then: Box::new(then) }),
            None => Checked::NoAnswer(then),
        },
        checked => checked,
    };
    // What follows goes to whoever looks: records, the transaction's last answer, the node's log.
    checked.each_text(&mut |text| log.hide_secrets(text));
    checked
}

/// Whose time it was: the component's, if it computed for more than half of it. On a machine without processor time for
/// it nobody can say that it would not have answered.
fn out_of_time(deadline: Duration, leashed: bool, worked: Duration) -> NoAnswer {
    // Nobody is blamed for time that he was not given.
    if worked > deadline / 2 && !leashed { NoAnswer::TimeUsedUp { deadline } } else { NoAnswer::Deadline { deadline } }
}

/// One call in a store of its own, from the instantiation to the answer. It has no time limit here: whoever polls it
/// ends it, and dropping it frees the instance with all that the guest holds.
async fn run(setup: CallSetup, pending: Pending) -> Checked {
    let CallSetup { pre, limits, config, mut gate, databases, log, body, leash, dry } = setup;
    let said = log.clone();
    let time = leash.unwrap_or(limits.deadline);
    gate.dry.clone_from(&dry);
    let sql = match &dry {
        Some(dry) => SqlReach::dry_within(databases, time, dry.clone()),
        None => SqlReach::within(databases, time),
    };
    let state = CallState::new(inert_wasi(&log), &limits, config, (gate, sql), log, pending.asked_at_ms);
    let mut store = Store::new(pre.engine(), state);
    store.limiter(|state| state);
    // Yields at every epoch, so that one guest does not hold a thread, and so that the deadline's timer gets its turn.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store.set_hostcall_fuel(HOST_CALL_BYTES.as_usize());
    store.set_max_component_handles(MAX_HANDLES);
    let called = async {
        let guest = pre.instantiate_async(&mut store).await?;
        guest.vouch_plugin_checkback().call_check(&mut store, &to_wit(pending, body)).await
    }
    .await;
    if let Some(dry) = dry {
        dry.had(store.data().cap.taken());
    }
    match called {
        Ok(answer) => read(answer, &limits, &said),
        Err(error) => Checked::NoAnswer(classify(&error, &limits)),
    }
}

/// Tells an answer from an error, and both from what is too long.
fn read(answer: Result<checkback::Verdict, String>, limits: &Limits, log: &CallLog) -> Checked {
    let too_large = |text: &str| text.len() > limits.output.as_usize();
    let verdict = match answer {
        Err(text) if too_large(&text) => return over_output(limits),
        Err(mut text) => {
            // Before the cut, which could leave the half of one.
            log.hide_secrets(&mut text);
            cut(&mut text, crate::error_text::MAX_ERROR_TEXT);
            return Checked::NoAnswer(NoAnswer::GuestError(text));
        }
        Ok(checkback::Verdict::Commit) => Verdict::Commit,
        Ok(checkback::Verdict::Rollback(reason)) if too_large(&reason) => return over_output(limits),
        Ok(checkback::Verdict::Rollback(reason)) => Verdict::Rollback(reason),
        Ok(checkback::Verdict::Unknown(postponement)) if too_large(&postponement.reason) => return over_output(limits),
        Ok(checkback::Verdict::Unknown(types::Postponement { reason, retry_after })) => {
            Verdict::Unknown { reason, retry_after: retry_after.map(|ms| Duration::from_millis(ms.into())) }
        }
    };
    Checked::Answer(verdict)
}

/// The guest said more than its binding allows. Nothing of it is kept, not even its beginning: half a reason may say
/// the opposite.
fn over_output(limits: &Limits) -> Checked {
    Checked::NoAnswer(NoAnswer::OutputTooLarge { limit: limits.output })
}

/// Why there was no answer, by what ended the guest. The order matters: an error of ours is looked for before anything
/// that a guest could bring about to look like it.
fn classify(error: &wasmtime::Error, limits: &Limits) -> NoAnswer {
    if error.is::<OverMemory>() {
        return NoAnswer::MemoryLimit { limit: limits.memory };
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
        return NoAnswer::OutputTooLarge { limit: HOST_CALL_BYTES };
    }
    NoAnswer::Trap { why: without_trace(error), trace }
}

/// The question in the words of the WIT world.
fn to_wit(pending: Pending, with_body: bool) -> checkback::Pending {
    let Pending { transaction_id, half, producer, opened_at_ms, asked_at_ms, check_number, checks_left } = pending;
    checkback::Pending {
        transaction_id,
        half: message_to_wit(half, with_body),
        producer,
        opened_at: opened_at_ms,
        asked_at: asked_at_ms,
        check_number,
        checks_left,
    }
}

/// The message in the words of the WIT world. `with_body` is the binding's choice; without it the guest sees how large
/// the body is, and no more.
fn message_to_wit(message: Message, with_body: bool) -> types::Message {
    types::Message {
        id: message.id,
        topic: message.topic,
        tag: message.tag,
        keys: message.keys,
        message_group: message.message_group,
        properties: message.properties,
        attributes: message.attributes,
        born_at: message.born_at_ms,
        born_host: message.born_host,
        stored_at: message.stored_at_ms,
        body_size: message.body_size,
        // Not copied if nobody else holds it: a decompressed body is in memory once, besides the guest's own copy.
        body: if with_body { message.body.into() } else { Vec::new() },
    }
}
