//! Components that answer about many transactions in one call (`checkback-batch`).
//!
//! Asks of such a binding wait together. Whoever gets a place takes along what waits with it, up to a bound: so a batch never waits
//! to fill, and grows with the load. Where a call fails as a whole, one transaction may be to blame: it is found by splitting,
//! and only it suffers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use vouch_broker::StoredMessage;
use vouch_plugin::{Admission, Checked, NoAnswer, Pending, Staged};

use super::Asker;
use super::call_name::call_name;
use crate::components::{Answerer, BatchAnswer, CheckQuestion, WaitingAsk};
use crate::effects::is_nothing;

/// Most bytes of transactions that a component is asked about at once; a larger one comes alone.
const BATCH_BYTES: usize = 1 << 20;
/// Where a call failed for want of an answer, so many are asked alone at most, until one is answered.
const PROBES: usize = 2;

/// One of a batch, with what it is about.
struct Asked {
    waiting: WaitingAsk,
    half: StoredMessage,
}

/// Asks about all that wait now and fit into one call, in the place that one of them got, and tells each what came of it.
pub(super) async fn ask_waiting(asker: Arc<Asker>, answerer: Answerer, admission: Admission) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < answerer.batches.most() && bytes < BATCH_BYTES {
        let Some(waiting) = answerer.batches.take() else { break };
        match asker.halves.get(waiting.due.transaction).await {
            Ok(half) => {
                bytes += half.message.body.len();
                batch.push(Asked { waiting, half });
            }
            Err(error) => waiting.tell(BatchAnswer::NotRead(error)),
        }
    }
    ask_batch(&asker, &answerer, Some(admission), batch).await;
}

/// Asks about these: in one call if they fit, and else in several. Without a place it waits for one.
fn ask_batch<'a>(
    asker: &'a Asker,
    answerer: &'a Answerer,
    admission: Option<Admission>,
    mut batch: Vec<Asked>,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        if batch.is_empty() {
            return;
        }
        let admission = match admission {
            Some(admission) => admission,
            None => {
                let Some(admission) = place(asker, answerer).await else { return };
                admission
            }
        };
        // While this waited they may have ended, or their binding is another one: a place that is free at last is not for these.
        batch.retain(Asked::is_awaited);
        if batch.is_empty() {
            return;
        }
        let (answered, asked) = call(asker, answerer, admission, &batch).await;
        let rest = batch.split_off(asked);
        let failed = match answered {
            Ok((all, mut staged)) => {
                answerer.batches.was_answered(asked);
                // There is something staged only where one was asked about.
                batch.into_iter().zip(all).for_each(|(each, checked)| each.tell(checked, std::mem::take(&mut staged)));
                None
            }
            Err(why) => Some((why, batch)),
        };
        if let Some((why, batch)) = failed {
            split(asker, answerer, why, batch).await;
        }
        ask_batch(asker, answerer, None, rest).await;
    })
}

/// A call about these failed as a whole.
async fn split(asker: &Asker, answerer: &Answerer, why: NoAnswer, mut batch: Vec<Asked>) {
    if batch.len() == 1 {
        batch.into_iter().for_each(|each| each.tell(Checked::NoAnswer(why.clone()), Staged::default()));
        return;
    }
    if matches!(why, NoAnswer::Deadline { .. } | NoAnswer::TimeUsedUp { .. }) {
        answerer.batches.was_too_much(batch.len());
    }
    // That the component fails is the fault of one of them, or it always does: then each fails alone, and is asked again later.
    // A service that is away, or slow, is nobody's fault among them, unless one alone is answered.
    if !is_fault_of_one(&why) && !is_one_answered(asker, answerer, &mut batch).await {
        let why = NoAnswer::Several { asked: batch.len(), why: Box::new(why) };
        batch.into_iter().for_each(|each| each.tell(Checked::NoAnswer(why.clone()), Staged::default()));
        return;
    }
    let second = batch.split_off(batch.len() / 2);
    tokio::join!(ask_batch(asker, answerer, None, batch), ask_batch(asker, answerer, None, second));
}

/// Asks a few of these alone until one is answered; each is told what came of it.
async fn is_one_answered(asker: &Asker, answerer: &Answerer, batch: &mut Vec<Asked>) -> bool {
    for _ in 0..PROBES.min(batch.len()) {
        // Another one each time: the first may be the very one that fails.
        let alone = [batch.swap_remove(answerer.batches.turn() % batch.len())];
        let Some(admission) = place(asker, answerer).await else { return false };
        if !alone[0].is_awaited() {
            continue;
        }
        let (answered, _) = call(asker, answerer, admission, &alone).await;
        let (checked, staged) = answered.map_or_else(
            |why| (Checked::NoAnswer(why), Staged::default()),
            |(mut all, staged)| (all.remove(0), staged),
        );
        let is_answered = matches!(checked, Checked::Answer(_));
        alone.into_iter().for_each(|each| each.tell(checked.clone(), staged.clone()));
        if is_answered {
            return true;
        }
    }
    false
}

/// Whether the component failed at something that it was given, rather than for want of an answer from elsewhere or of time.
fn is_fault_of_one(why: &NoAnswer) -> bool {
    why.blames_component() && !matches!(why, NoAnswer::TimeUsedUp { .. })
}

/// Another place of the binding; `None`: the node stops.
async fn place(asker: &Asker, answerer: &Answerer) -> Option<Admission> {
    tokio::select! {
        admission = answerer.binding.admit() => Some(admission),
        () = asker.stopping.cancelled() => None,
    }
}

/// One call about as many of these as fit into it, from the first on; how many that were, and what came of each.
async fn call(
    asker: &Asker,
    answerer: &Answerer,
    admission: Admission,
    batch: &[Asked],
) -> (Result<(Vec<Checked>, Staged), NoAnswer>, usize) {
    let of = |each: &Asked| (CheckQuestion::from(&each.waiting.due), each.half.clone());
    let questions: Vec<_> = batch.iter().map(of).collect();
    let (asking, fitted) = (answerer.clone(), Arc::new(AtomicUsize::new(0)));
    let fits = fitted.clone();
    let began = Instant::now();
    // Of several nothing is staged: they read what their binding keeps, and that is all.
    let call = batch.first().map(|first| call_name(&first.waiting.due)).unwrap_or_default();
    let reach = asker.effects.reach(&answerer.settler, &call);
    let prepare = move || {
        let prepared = fitting(questions.into_iter().map(|(question, half)| asking.pending(&question, half)));
        fits.store(prepared.len(), Ordering::Relaxed);
        prepared
    };
    let answered = admission.check_many_prepared(prepare, Some(reach)).await;
    asker.metrics.check_calls.observe(began.elapsed());
    // None was prepared where the host failed before that.
    let asked = fitted.load(Ordering::Relaxed);
    (answered, if asked == 0 { batch.len() } else { asked })
}

/// The first of these that fit into one call: at least one.
fn fitting(pending: impl Iterator<Item = Pending>) -> Vec<Pending> {
    let (mut fit, mut bytes) = (Vec::new(), 0);
    for each in pending {
        bytes += each.size();
        if bytes > BATCH_BYTES && !fit.is_empty() {
            break;
        }
        fit.push(each);
    }
    fit
}

impl Asked {
    /// Whether anybody still wants to know.
    fn is_awaited(&self) -> bool {
        !self.waiting.due.ask.is_over()
    }

    fn tell(self, checked: Checked, staged: Staged) {
        let Self { waiting, half } = self;
        let staged = (!is_nothing(&staged)).then(|| Box::new(staged));
        waiting.tell(BatchAnswer::Checked { checked, producer: half.producer, staged });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(bytes: usize) -> Pending {
        let mut pending = Pending::default();
        pending.half.body = vec![0; bytes].into();
        pending
    }

    #[test]
    fn a_call_takes_what_fits_into_it_and_a_larger_one_comes_alone() {
        let fit = |sizes: &[usize]| fitting(sizes.iter().map(|size| pending(*size))).len();
        assert_eq!(fit(&[10; 128]), 128);
        assert_eq!(fit(&[400 << 10, 400 << 10, 400 << 10]), 2);
        assert_eq!(fit(&[4 << 20, 1]), 1);
        assert_eq!(fit(&[1, 4 << 20, 1]), 1);
    }

    #[test]
    fn an_outage_is_no_fault_of_one_of_them() {
        let trap = NoAnswer::Trap { why: "unreachable".to_owned(), trace: String::new() };
        assert!(is_fault_of_one(&trap));
        let outside = NoAnswer::Outside { trouble: "503".to_owned(), then: Box::new(trap) };
        let deadline = std::time::Duration::from_secs(1);
        for why in [
            outside,
            NoAnswer::Deadline { deadline },
            NoAnswer::TimeUsedUp { deadline },
            NoAnswer::GuestError("away".to_owned()),
        ] {
            assert!(!is_fault_of_one(&why), "{why}");
        }
    }
}
