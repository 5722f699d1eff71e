//! One call of a guest: a store, its limits, and the reading of what came out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use crate::{
    bindings::{checkback, checkback_batch, host::Level, types},
    capability::inert_wasi,
    databases::{OpenDatabases, SqlReach},
    dry::DryRun,
    error_text::{cut, describe, trace, without_trace},
    guest::CallState,
    guest_code::GuestCode,
    http::HttpGate,
    limits::Limits,
    log::{CallLog, LogSource},
    memory::OverMemory,
    outcome::{Checked, Message, NoAnswer, Pending, Verdict},
    quantity::ByteSize,
    worked::WorkedTime,
};

/// Most bytes that a guest may hand to the host in one call of an imported function.
pub(crate) const HOST_CALL_BYTES: ByteSize = Limits::OUTPUT.1;
/// Most handles to resources that one instance may have, those of its own making and those lent to its parts included.
const MAX_HANDLES: usize = 16 << 10;
/// Bytes of a transaction's id that is shown though nobody asked about it.
const ID_SHOWN_BYTES: usize = 64;

/// What one call needs besides the question.
pub(crate) struct CallSetup {
    pub(crate) guest: GuestCode,
    pub(crate) limits: Limits,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) gate: HttpGate,
    pub(crate) databases: OpenDatabases,
    /// `close-fence` answers *held*.
    pub(crate) holds_fences: bool,
    pub(crate) log: CallLog,
    pub(crate) body: bool,
    /// It has only this time, less than its deadline: its place is wanted by others.
    pub(crate) leash: Option<Duration>,
    /// Nothing of it is to stay.
    pub(crate) dry: Option<DryRun>,
}

/// Runs one call in a fresh instance, on the runtime of the guests: about one transaction, or about many where the component takes
/// them. What came of each, in the order of asking.
///
/// # Errors
/// Why the call as a whole gave no answer.
pub(crate) async fn check(setup: CallSetup, asked: Vec<Pending>) -> Result<Vec<Checked>, NoAnswer> {
    let (deadline, leashed) = (setup.leash.unwrap_or(setup.limits.deadline), setup.leash.is_some());
    let (log, trouble) = (setup.log.clone(), setup.gate.trouble.clone());
    let worked = WorkedTime::default();
    // Dropping the future drops the store, and with it the guest's requests and timers.
    let checked = tokio::time::timeout(deadline, worked.measure(run(setup, asked))).await;
    log.finish();
    let mut checked = checked.unwrap_or_else(|_| Err(out_of_time(deadline, leashed, worked.so_far())));
    if let Err(NoAnswer::Trap { why, .. }) = &mut checked {
        let panic = log.take_panic();
        if !panic.is_empty() {
            *why = format!("{panic}\n{why}");
        }
    }
    let mut checked = checked.map_err(|then| match trouble.excuse().filter(|_| then.blames_component()) {
        Some(trouble) => NoAnswer::Outside { trouble, then: Box::new(then) },
        None => then,
    });
    // What follows goes to whoever looks: records, the transaction's last answer, the node's log.
    let mut hide = |text: &mut String| log.hide_secrets(text);
    match &mut checked {
        Ok(all) => all.iter_mut().for_each(|each| each.each_text(&mut hide)),
        Err(why) => why.each_text(&mut hide),
    }
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
async fn run(setup: CallSetup, mut asked: Vec<Pending>) -> Result<Vec<Checked>, NoAnswer> {
    let CallSetup { guest, limits, config, mut gate, databases, holds_fences, log, body, leash, dry } = setup;
    let said = log.clone();
    let time = leash.unwrap_or(limits.deadline);
    gate.dry.clone_from(&dry);
    let sql = match &dry {
        Some(dry) => SqlReach::dry_within(databases, time, dry.clone()),
        None => SqlReach { holds_fences, ..SqlReach::within(databases, time) },
    };
    let asked_at_ms = asked.iter().map(|each| each.asked_at_ms).max().unwrap_or(0);
    let state = CallState::new(inert_wasi(&log), &limits, config, (gate, sql), log, asked_at_ms);
    let mut store = Store::new(guest.engine(), state);
    store.limiter(|state| state);
    // Yields at every epoch, so that one guest does not hold a thread, and so that the deadline's timer gets its turn.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store.set_hostcall_fuel(HOST_CALL_BYTES.as_usize());
    store.set_max_component_handles(MAX_HANDLES);
    let many = guest.batch().filter(|_| asked.len() > 1 || guest.single().is_none());
    let called = async {
        let instance = guest.instantiate(&mut store).await?;
        if let Some(many) = many {
            let (ids, asked): (Vec<_>, Vec<_>) =
                asked.into_iter().map(|each| (each.transaction_id.clone(), to_wit(each, body))).unzip();
            let guest = many.load(&mut store, &instance)?;
            let answers = guest.call_check_many(&mut store, &asked).await?;
            return Ok(read_many(answers, &ids, &limits, &said));
        }
        let single = guest.single().and_then(|single| Some((single, asked.pop()?)));
        let Some((single, one)) = single else { return Ok(Ok(Vec::new())) };
        let guest = single.load(&mut store, &instance)?;
        let answer = guest.call_check(&mut store, &to_wit(one, body)).await?;
        Ok::<_, wasmtime::Error>(read(answer, &limits, &said).map(|verdict| vec![Checked::Answer(verdict)]))
    }
    .await;
    if let Some(dry) = dry {
        dry.had(store.data().cap.taken());
    }
    called.unwrap_or_else(|error| Err(classify(&error, &limits)))
}

/// The answers of a batch, in the order of asking. One that is left out has none; what nobody asked about, and what was answered
/// already, is said in the log and means nothing.
fn read_many(
    answers: Result<Vec<checkback_batch::Answer>, String>,
    ids: &[String],
    limits: &Limits,
    log: &CallLog,
) -> Result<Vec<Checked>, NoAnswer> {
    let answers = match answers {
        Ok(answers) => answers,
        Err(text) => return Err(guest_error(text, limits, log)),
    };
    let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
    let mut checked: Vec<Option<Checked>> = vec![None; ids.len()];
    for checkback_batch::Answer { transaction_id, verdict } in answers {
        let free =
            places.get(transaction_id.as_str()).and_then(|place| checked.get_mut(*place)).filter(|at| at.is_none());
        let Some(free) = free else {
            let mut id = transaction_id;
            cut(&mut id, ID_SHOWN_BYTES);
            let text = format!("an answer about {id:?} is ignored: nobody asked about it, or it came twice");
            log.write(Level::Warn, LogSource::Host, text);
            continue;
        };
        *free = Some(read_verdict(verdict, limits).map_or_else(Checked::NoAnswer, Checked::Answer));
    }
    Ok(checked.into_iter().map(|each| each.unwrap_or(Checked::NoAnswer(NoAnswer::LeftOut))).collect())
}

/// Tells an answer from an error, and both from what is too long.
fn read(answer: Result<checkback::Verdict, String>, limits: &Limits, log: &CallLog) -> Result<Verdict, NoAnswer> {
    match answer {
        Ok(verdict) => read_verdict(verdict, limits),
        Err(text) => Err(guest_error(text, limits, log)),
    }
}

/// The component said that it cannot answer.
fn guest_error(mut text: String, limits: &Limits, log: &CallLog) -> NoAnswer {
    if text.len() > limits.output.as_usize() {
        return over_output(limits);
    }
    // Before the cut, which could leave the half of one.
    log.hide_secrets(&mut text);
    cut(&mut text, crate::error_text::MAX_ERROR_TEXT);
    NoAnswer::GuestError(text)
}

fn read_verdict(verdict: checkback::Verdict, limits: &Limits) -> Result<Verdict, NoAnswer> {
    let too_large = |text: &str| text.len() > limits.output.as_usize();
    Ok(match verdict {
        checkback::Verdict::Commit => Verdict::Commit,
        checkback::Verdict::Rollback(reason) if too_large(&reason) => return Err(over_output(limits)),
        checkback::Verdict::Rollback(reason) => Verdict::Rollback(reason),
        checkback::Verdict::Unknown(postponement) if too_large(&postponement.reason) => {
            return Err(over_output(limits));
        }
        checkback::Verdict::Unknown(types::Postponement { reason, retry_after }) => {
            Verdict::Unknown { reason, retry_after: retry_after.map(|ms| Duration::from_millis(ms.into())) }
        }
    })
}

/// The guest said more than its binding allows. Nothing of it is kept, not even its beginning: half a reason may say
/// the opposite.
fn over_output(limits: &Limits) -> NoAnswer {
    NoAnswer::OutputTooLarge { limit: limits.output }
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
