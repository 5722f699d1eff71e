//! Asking: a place to run in, the call, and what came of it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinError, JoinHandle},
};
use tracing::{Instrument, Span};

use super::Binding;
use crate::{
    call::{self, CallSetup, GuestQuestion},
    dry::{DryRun, Tried},
    http::HttpGate,
    log::CallLog,
    outcome::{Answered, Checked, Consumed, ConsumerVerdict, NoAnswer},
    places::NodePlace,
    question::{ConsumerDelivery, Pending},
    reach::CallReach,
    staged::Staged,
};

/// A place to run one call in, held until it is used or dropped.
pub struct Admission {
    binding: Binding,
    places: Places,
}

/// One place of the binding and one of the node.
struct Places {
    _binding: OwnedSemaphorePermit,
    node: NodePlace,
}

/// What one call has besides the question and the binding.
#[derive(Default)]
struct Surroundings {
    /// Who lends it state and topics.
    reach: Option<Arc<dyn CallReach>>,
    /// Nothing of it is to stay.
    dry: Option<DryRun>,
}

/// What a call came to as a whole.
type Outcome<Q> = Result<(<Q as GuestQuestion>::Came, Staged), NoAnswer>;

impl Binding {
    /// Waits for a place: first among those of the binding, in the order of asking, then among those of the node, where
    /// the one goes first that will have held places for the least time, and some are left for those that have none running and
    /// for those whose checks are quick. For a runner that has more to ask than
    /// fits at once. May be dropped at any time.
    pub async fn admit(&self) -> Admission {
        let binding = Arc::clone(&self.0.places).acquire_owned().await.expect("this semaphore is never closed");
        let node = self.0.engine.places.take(&self.0.name).await;
        Admission { binding: self.clone(), places: Places { _binding: binding, node } }
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
        Ok(Admission { binding: self.clone(), places: Places { _binding: binding, node } })
    }

    /// The node runs as many calls as it may.
    fn full(&self) -> NoAnswer {
        NoAnswer::NoCapacity { running: self.0.engine.places.held(), scope: "the concurrency of the node" }
    }

    /// Asks one question in a fresh instance, or answers [`NoAnswer::NoCapacity`] at once if no place is free. Never takes
    /// much longer than `limits.deadline`. If the returned future is dropped, the guest is stopped. There is no state.
    pub async fn check(&self, pending: Pending) -> Checked {
        match self.try_admit() {
            Ok(admission) => admission.check(pending).await,
            Err(full) => Checked::NoAnswer(full),
        }
    }

    /// Asks one question in a dry call, of which nothing stays, or answers [`NoAnswer::NoCapacity`] if no place is free within
    /// `limits.deadline`. What the component says to its log stays there.
    pub async fn try_check(&self, pending: Pending, reach: Option<Arc<dyn CallReach>>) -> Tried {
        self.tried(vec![pending], reach, |outcome| single(outcome).0).await
    }

    /// Hands it a message in a dry call, otherwise as [`Self::try_check`].
    pub async fn try_consume(
        &self,
        delivery: ConsumerDelivery,
        reach: Option<Arc<dyn CallReach>>,
    ) -> Tried<ConsumerVerdict> {
        self.tried(delivery, reach, |outcome| consumed(outcome).0).await
    }

    /// A dry call, and what came of it as `read` says.
    async fn tried<Q: GuestQuestion, V>(
        &self,
        question: Q,
        reach: Option<Arc<dyn CallReach>>,
        read: impl FnOnce(Outcome<Q>) -> Answered<V>,
    ) -> Tried<V> {
        let dry = DryRun::default();
        let admitted = tokio::time::timeout(self.0.limits.deadline, self.admit()).await;
        let began = Instant::now();
        let outcome = match admitted {
            Ok(Admission { binding, places }) => {
                let surroundings = Surroundings { reach, dry: Some(dry.clone()) };
                binding.run(async move { Ok((question, places)) }, surroundings).await
            }
            Err(_) => Err(self.full()),
        };
        let secrets = &self.0.secrets;
        dry.into_tried(read(outcome), began.elapsed(), |text| secrets.hide(text))
    }
}

impl Admission {
    /// Asks one question in a fresh instance, without state. If the returned future is dropped, the guest is stopped.
    pub async fn check(self, pending: Pending) -> Checked {
        let Self { binding, places } = self;
        single(binding.run(async move { Ok((vec![pending], places)) }, Surroundings::default()).await).0
    }

    /// Asks what `prepare` makes, which may take its time and memory: it runs on a thread for such work, behind the rest of
    /// the process, and holds the place while it does. So no more is prepared at once than runs at once. What the call staged is
    /// to be recorded together with the answer, or not at all; it is empty where there is no answer.
    pub async fn check_prepared(
        self,
        prepare: impl FnOnce() -> Pending + Send + 'static,
        reach: Option<Arc<dyn CallReach>>,
    ) -> (Checked, Staged) {
        single(self.prepared(|| vec![prepare()], reach).await)
    }

    /// The same of a component that answers about many in one call. What came of each, in the order of asking. Something is staged
    /// only where one was asked about alone, by a component that exports `checkback` as well.
    ///
    /// # Errors
    /// Why the call as a whole gave no answer.
    pub async fn check_many_prepared(
        self,
        prepare: impl FnOnce() -> Vec<Pending> + Send + 'static,
        reach: Option<Arc<dyn CallReach>>,
    ) -> Result<(Vec<Checked>, Staged), NoAnswer> {
        self.prepared(prepare, reach).await
    }

    /// Hands the component the message that `prepare` makes, as [`Self::check_prepared`] asks. What was staged is empty where it
    /// wants the message again, too.
    pub async fn consume_prepared(
        self,
        prepare: impl FnOnce() -> ConsumerDelivery + Send + 'static,
        reach: Option<Arc<dyn CallReach>>,
    ) -> (Consumed, Staged) {
        consumed(self.prepared(prepare, reach).await)
    }

    async fn prepared<Q: GuestQuestion>(
        self,
        prepare: impl FnOnce() -> Q + Send + 'static,
        reach: Option<Arc<dyn CallReach>>,
    ) -> Outcome<Q> {
        let Self { binding, places } = self;
        let span = Span::current();
        let prepared = binding.0.engine.guests.spawn_blocking(move || (span.in_scope(prepare), places));
        binding.run(prepared, Surroundings { reach, dry: None }).await
    }
}

impl Binding {
    /// Asks in a task of its own, so that a guest that computes holds no thread of the caller. The places are held
    /// until the guest is really gone, not only until the caller has his answer: what runs is what counts. If this is
    /// dropped the task is aborted at its next yield, which every epoch brings.
    ///
    /// A panic of the host is an answer of its own ([`NoAnswer::Host`]): the next call begins in a fresh instance, so
    /// nothing of this one is left to be wrong.
    async fn run<Q: GuestQuestion>(
        &self,
        prepared: impl Future<Output = Result<(Q, Places), JoinError>> + Send + 'static,
        surroundings: Surroundings,
    ) -> Outcome<Q> {
        let (binding, running) = (self.clone(), self.0.engine.running.clone());
        let asking = async move {
            let (question, places) = prepared.await?;
            let run = running.enter();
            let mut setup = binding.setup(question.about(), surroundings);
            let deadline = setup.limits.deadline;
            setup.leash = Some(places.node.within(deadline)).filter(|leash| *leash < deadline);
            // The engine ends with its last handle, whether or not a guest still runs.
            drop(binding);
            let came = call::ask(setup, question).await;
            drop((run, places));
            Ok::<_, JoinError>(came)
        };
        // What is logged of the call belongs to whoever asks.
        let mut task = StopOnDrop(self.0.engine.guests.spawn(asking.instrument(Span::current())));
        match (&mut task.0).await {
            Ok(Ok(came)) => came,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(binding = self.name(), digest = self.digest(), %error, "a call failed in the host");
                Err(NoAnswer::Host(error.to_string()))
            }
        }
    }

    /// Everything that one call gets. The gate and the log are new for each: what one call spends of its bounds is none
    /// of the next one's business.
    fn setup(&self, about: String, surroundings: Surroundings) -> CallSetup {
        let bound = &self.0;
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
            lent: (bound.lent.clone(), surroundings.reach),
            holds_fences: bound.holds_fences.load(Ordering::Relaxed),
            log,
            body: bound.body,
            leash: None,
            dry: surroundings.dry,
        }
    }
}

/// What came of the only one that was asked about.
fn single(outcome: Outcome<Vec<Pending>>) -> (Checked, Staged) {
    match outcome {
        Ok((mut all, staged)) => (all.pop().unwrap_or(Checked::NoAnswer(NoAnswer::LeftOut)), staged),
        Err(why) => (Checked::NoAnswer(why), Staged::default()),
    }
}

/// What came of a delivery.
fn consumed(outcome: Outcome<ConsumerDelivery>) -> (Consumed, Staged) {
    match outcome {
        Ok((verdict, staged)) => (Consumed::Answer(verdict), staged),
        Err(why) => (Consumed::NoAnswer(why), Staged::default()),
    }
}

/// Stops its task when dropped.
struct StopOnDrop<T>(JoinHandle<T>);

impl<T> Drop for StopOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
