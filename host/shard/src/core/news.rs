//! One line in the node's log for each event that an operator may look for: told when it is durable and applied, whoever
//! caused it. What messages do is no event; nor is an end that its own producer decided.

use std::time::{Duration, Instant};

use vouch_broker::record::{CheckAnswered, End, EndedBy, Record, Settled, SettledHead};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{State, TransactionOutcome};
use vouch_registry::Digest;

/// Lines of one kind in a second; what comes beyond is counted, and told in one line when the second is over.
const LINES_A_SECOND: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Events of one kind that were told lately.
#[derive(Debug)]
struct Told {
    what: &'static str,
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Told {
    const fn new(what: &'static str) -> Self {
        Self { what, since: None, told: 0, untold: 0 }
    }

    /// Whether another one may be told now.
    fn may_tell(&mut self, now: Instant) -> bool {
        self.end_second(now);
        self.since.get_or_insert(now);
        if self.told < LINES_A_SECOND {
            self.told += 1;
            return true;
        }
        self.untold += 1;
        false
    }

    /// Ends a second that is over, and says how many were not told in it.
    fn end_second(&mut self, now: Instant) -> u64 {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) < SECOND) {
            return 0;
        }
        (self.since, self.told) = (None, 0);
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            tracing::info!(untold, told = LINES_A_SECOND, "more {} in a second than are told one by one", self.what);
        }
        untold
    }
}

/// What is told, by kind: a flood of one hides none of another.
#[derive(Debug)]
pub(super) struct News {
    settled: Told,
    parked: Told,
    groups_made: Told,
    administration: Told,
}

impl Default for News {
    fn default() -> Self {
        Self {
            settled: Told::new("transactions were settled"),
            parked: Told::new("transactions were parked"),
            groups_made: Told::new("groups were made by receives"),
            administration: Told::new("topics, groups, plugins or bindings were changed"),
        }
    }
}

impl News {
    /// Tells what a record did.
    pub(super) fn tell(&mut self, state: &State, record: &Record, outcome: &Outcome, now: Instant) {
        let Ok(applied) = outcome else { return };
        match (record, applied) {
            // Nearly all there is: first, and nothing.
            (Record::Message(_) | Record::Half(_) | Record::Lease(_) | Record::Ack(_) | Record::Renew(_), _) => {}
            (Record::End(end), Applied::Ended { repeated: false, .. }) => self.tell_end(state, end, now),
            (Record::CheckAnswered(answer), Applied::Counted { parked: true }) => self.tell_parked(state, answer, now),
            (Record::Settled(Settled { head, .. }), _) => match (head, applied) {
                (SettledHead::End(end), Applied::Ended { .. }) => self.tell_end(state, end, now),
                (SettledHead::CheckAnswered(answer), Applied::Counted { parked: true }) => {
                    self.tell_parked(state, answer, now);
                }
                _ => {}
            },
            (Record::ComponentFailed(failed), Applied::Counted { parked: true }) => {
                if self.parked.may_tell(now) {
                    let (transaction, by, failures) = (
                        state.incarnations().transaction_id(failed.transaction),
                        failed.by.to_string(),
                        failed.failures,
                    );
                    let error = &failed.error;
                    tracing::warn!(
                        %transaction, by, failures, error,
                        "parked: the component fails on it and answers about others; mend it and set its binding again"
                    );
                }
            }
            (Record::Resume(resume), _) => {
                if self.settled.may_tell(now) {
                    let (by, reason) = (&resume.by, &resume.reason);
                    tracing::info!(transaction = %state.incarnations().transaction_id(resume.transaction), by, reason, "an operator resumed a parked transaction");
                }
            }
            (Record::GroupMade(made), _) => {
                if self.groups_made.may_tell(now) {
                    tracing::info!(group = %made.name, "group made by a receive");
                }
            }
            (record, applied) => self.tell_administration(state, record, applied, now),
        }
    }

    fn tell_parked(&mut self, state: &State, answer: &CheckAnswered, now: Instant) {
        if self.parked.may_tell(now) {
            let (transaction, by, checks) =
                (state.incarnations().transaction_id(answer.transaction), answer.by.to_string(), answer.check_number);
            tracing::warn!(%transaction, by, checks, "parked: all checks were answered \"unknown\"; decide it, or resume it");
        }
    }

    fn tell_end(&mut self, state: &State, end: &End, now: Instant) {
        let topic = || {
            let ended = state.outcomes().get(end.transaction);
            ended.and_then(|ended| state.topics().name_of(ended.topic)).map(ToString::to_string).unwrap_or_default()
        };
        let (transaction, outcome, reason) =
            (state.incarnations().transaction_id(end.transaction), verdict(end.outcome), &end.reason);
        let by = || end.by.to_string();
        match &end.by {
            EndedBy::Client { .. } | EndedBy::Silence { .. } => {
                tracing::debug!(%transaction, topic = topic(), outcome, by = by(), "settled by its producer");
            }
            _ if !self.settled.may_tell(now) => {}
            EndedBy::Component { binding, .. } => {
                tracing::info!(%transaction, topic = topic(), outcome, binding, by = by(), reason, "settled by a component");
            }
            EndedBy::Operator { name } => {
                tracing::info!(%transaction, topic = topic(), outcome, by = name, reason, "settled by an operator");
            }
        }
    }

    fn tell_administration(&mut self, state: &State, record: &Record, applied: &Applied, now: Instant) {
        let created = matches!(applied, Applied::Set { created: true, .. });
        let what = |new: &'static str, old: &'static str| if created { new } else { old };
        let line: Box<dyn FnOnce() + '_> = match record {
            Record::TopicPut(put) => {
                Box::new(move || tracing::info!(topic = %put.name, "{}", what("topic created", "topic changed")))
            }
            Record::TopicDelete(delete) => Box::new(|| tracing::info!(topic = %delete.name, "topic deleted")),
            Record::TopicForced(forced) => Box::new(|| {
                let (by, reason) = (&forced.by, &forced.reason);
                tracing::warn!(topic = %forced.name, by, reason, "topic deleted by force, with what was in it");
                if let Some((binding, _)) = state.plugins().binding_of_topic(&forced.name) {
                    tracing::warn!(
                        binding, topic = %forced.name,
                        "the binding names a topic that is gone, and settles nothing there; delete it, or set it without the topic"
                    );
                }
            }),
            Record::GroupPut(put) => {
                Box::new(move || tracing::info!(group = %put.name, "{}", what("group created", "group changed")))
            }
            Record::GroupDelete(delete) => Box::new(|| tracing::info!(group = %delete.name, "group deleted")),
            Record::PluginPublish(publish) => Box::new(|| {
                let digest = Digest(publish.digest);
                tracing::info!(plugin = publish.name, tag = publish.tag, %digest, "plugin uploaded");
            }),
            Record::TagDelete(delete) => {
                Box::new(|| tracing::info!(plugin = delete.name, tag = delete.tag, "tag of a plugin deleted"))
            }
            Record::PluginDelete(delete) => Box::new(|| tracing::info!(plugin = delete.name, "plugin deleted")),
            Record::BindingPut(put) => Box::new(move || {
                let digest = Digest(put.digest);
                tracing::info!(binding = put.name, %digest, "{}", what("binding set", "binding set again"));
            }),
            Record::BindingPaused(pause) => Box::new(|| {
                let what = if pause.paused { "an operator let a binding pause" } else { "a binding goes on" };
                tracing::info!(binding = pause.name, "{what}");
            }),
            Record::KeptDeleted(delete) => Box::new(|| {
                let (namespace, key) = (&delete.namespace, delete.key.as_deref());
                tracing::info!(namespace, key, "an operator deleted what bindings keep");
            }),
            Record::BindingDelete(delete) => Box::new(|| tracing::info!(binding = delete.name, "binding deleted")),
            Record::SecretPut(put) => {
                Box::new(move || tracing::info!(secret = put.name, "{}", what("secret set", "secret set again")))
            }
            Record::ClusterBegunAnew(anew) => Box::new(|| {
                let (node, incarnation) = (anew.node, anew.incarnation);
                tracing::warn!(%node, %incarnation, "the cluster begins anew, as this one node; handles of before are void");
            }),
            Record::LevelRaised(raised) => Box::new(|| {
                let (level, by) = (raised.level, &raised.by);
                tracing::warn!(level, by, "an operator finished the upgrade: no node goes back to the version before");
            }),
            Record::SecretDeleted(delete) => Box::new(|| tracing::info!(secret = delete.name, "secret deleted")),
            // No event: what else there is happens all the time, or says nothing to an operator.
            _ => return,
        };
        if self.administration.may_tell(now) {
            line();
        }
    }

    /// To be called about once a second.
    pub(super) fn end_second(&mut self, now: Instant) {
        for told in [&mut self.settled, &mut self.parked, &mut self.groups_made, &mut self.administration] {
            told.end_second(now);
        }
    }
}

fn verdict(outcome: TransactionOutcome) -> &'static str {
    match outcome {
        TransactionOutcome::Committed => "committed",
        TransactionOutcome::RolledBack => "rolled back",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_some_lines_and_one_with_the_rest() {
        let (mut told, began) = (Told::new("things happened"), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!((0..100).filter(|_| told.may_tell(at(0))).count(), LINES_A_SECOND as usize);
        assert_eq!(told.end_second(at(999)), 0, "the second is not over");
        assert_eq!(told.end_second(at(1000)), 100 - u64::from(LINES_A_SECOND));
        assert_eq!(told.end_second(at(1001)), 0, "once");
        assert!(told.may_tell(at(5000)), "and the next second has lines again");
        assert_eq!(told.end_second(at(6000)), 0);
    }
}
