//! Metrics of groups, topics, bindings and calls, histograms, and the process.
//!
//! Labels come from names that clients choose, so there are at most a thousand of a metric; the rest is summed under
//! `other`.

use prometheus_client::registry::{Registry, Unit};
use vouch_node::{
    CheckCounts, ComparisonCounts, ConsumerStanding, DeliveryCounts, GroupLag, Node, OTHER, ProcessUse, SERIES_MAX,
    Series, SeriesView, TopicTransactions,
};

use super::super::App;
use super::family::{Family, Labels, Samples};

/// Registers samples that were counted elsewhere.
fn register(registry: &mut Registry, name: &'static str, help: &'static str, unit: Option<Unit>, samples: Samples) {
    registry.register_collector(Box::new(Family { name, help, unit, samples }));
}

/// Groups on topics, and topics.
pub(super) fn groups_and_topics(registry: &mut Registry, view: &SeriesView) {
    let of_groups = |value: fn(&GroupLag) -> Option<f64>| {
        let sample = |row: &GroupLag| {
            let labels: Labels = vec![("group", row.group.clone()), ("topic", row.topic.clone())];
            Some((labels, value(row)?))
        };
        Samples::Gauges(view.groups.iter().filter_map(sample).collect())
    };
    let of_topics = |value: fn(&TopicTransactions) -> Option<f64>| {
        let sample = |row: &TopicTransactions| Some((vec![("topic", row.topic.clone())], value(row)?));
        Samples::Gauges(view.topics.iter().filter_map(sample).collect())
    };
    let dead = view.dead_letters.iter().map(|(group, count)| (vec![("group", group.clone())], *count as f64));
    for (name, help, unit, samples) in [
        (
            "group_lag_messages",
            "Messages of the topic that the group has not done: ready and in flight",
            None,
            of_groups(|row| Some(row.lag as f64)),
        ),
        (
            "group_lag",
            "Age of the oldest message of the topic that the group has not done; 0 without one",
            Some(Unit::Seconds),
            of_groups(|row| row.lag_seconds),
        ),
        (
            "group_in_flight_messages",
            "Messages handed out to the group and not done",
            None,
            of_groups(|row| Some(row.in_flight as f64)),
        ),
        (
            "group_dead_letters",
            "Messages that the group gave up and that went to its dead letters",
            None,
            Samples::Counters(dead.collect()),
        ),
        (
            "topic_transactions_open",
            "Open transactions of the topic, parked ones included",
            None,
            of_topics(|row| Some(row.open as f64)),
        ),
        (
            "topic_transactions_parked",
            "Transactions of the topic that are no longer asked about",
            None,
            of_topics(|row| Some(row.parked as f64)),
        ),
        (
            "topic_transactions_oldest",
            "Age of the topic's oldest open transaction; 0 without one",
            Some(Unit::Seconds),
            of_topics(|row| row.oldest_seconds),
        ),
    ] {
        register(registry, name, help, unit, samples);
    }
}

/// Checks by binding and verdict.
pub(super) fn checks(registry: &mut Registry, counts: &Series<String, CheckCounts>) {
    let rest = counts.rest().map(|counts| (OTHER, counts));
    let all = counts.named().map(|(binding, counts)| (binding.as_str(), counts)).chain(rest);
    let samples = all.flat_map(|(binding, counts)| {
        counts.by_verdict().map(|(verdict, count)| {
            let labels: Labels = vec![("binding", binding.to_owned()), ("verdict", verdict.to_owned())];
            (labels, count as f64)
        })
    });
    let help = "Checks by the binding whose component was asked (empty: a producer was) and by what was answered";
    register(registry, "checks", help, None, Samples::Counters(samples.collect()));
}

/// Deliveries by binding and outcome.
pub(super) fn deliveries(registry: &mut Registry, counts: &Series<String, DeliveryCounts>) {
    let rest = counts.rest().map(|counts| (OTHER, counts));
    let all = counts.named().map(|(binding, counts)| (binding.as_str(), counts)).chain(rest);
    let samples = all.flat_map(|(binding, counts)| {
        counts.by_outcome().map(|(outcome, count)| {
            let labels: Labels = vec![("binding", binding.to_owned()), ("outcome", outcome.to_owned())];
            (labels, count as f64)
        })
    });
    let help = "Deliveries of messages to components by the binding that consumes and by what came of them";
    register(registry, "deliveries", help, None, Samples::Counters(samples.collect()));
}

/// Bindings as they are at this moment: whether they pause, and what is under way for those that consume.
///
/// `paused` are those of the log, each with whether its operator lets it pause; `consumers` those that this node delivers to.
pub(super) fn bindings(
    registry: &mut Registry,
    paused: impl IntoIterator<Item = (String, bool)>,
    consumers: &[(String, ConsumerStanding)],
) {
    let pauses_itself = |binding: &str| {
        let found = consumers.binary_search_by(|(name, _)| name.as_str().cmp(binding));
        found.is_ok_and(|at| consumers[at].1.paused_since_ms.is_some())
    };
    let paused = paused.into_iter().map(|(binding, paused)| {
        let paused = paused || pauses_itself(&binding);
        (binding, f64::from(u8::from(paused)))
    });
    let running = consumers.iter().map(|(binding, standing)| (binding.clone(), standing.in_flight as f64));
    for (name, help, samples) in [
        (
            "binding_paused",
            "1 while the component of the binding is asked nothing: its operator paused it, or delivery after delivery failed.",
            by_binding(paused),
        ),
        (
            "deliveries_running",
            "Deliveries to the component of the binding under way; told by the node that leads",
            by_binding(running),
        ),
    ] {
        register(registry, name, help, None, samples);
    }
}

/// One value for each of the first bindings; those of the others are summed.
fn by_binding(values: impl IntoIterator<Item = (String, f64)>) -> Samples {
    let (mut samples, mut rest) = (Vec::new(), None);
    for (binding, value) in values {
        if samples.len() < SERIES_MAX && binding != OTHER {
            samples.push((vec![("binding", binding)], value));
        } else {
            *rest.get_or_insert(0.0) += value;
        }
    }
    samples.extend(rest.map(|rest| (vec![("binding", OTHER.to_owned())], rest)));
    Samples::Gauges(samples)
}

/// Comparisons of what components say with what producers said.
pub(super) fn comparisons(registry: &mut Registry, counts: &Series<String, ComparisonCounts>) {
    let rest = counts.rest().map(|counts| (OTHER, counts));
    let all = counts.named().map(|(binding, counts)| (binding.as_str(), counts)).chain(rest);
    let samples = all.flat_map(|(binding, counts)| {
        [("agreed", counts.agreed), ("contradicted", counts.contradicted)].map(|(result, count)| {
            let labels: Labels = vec![("binding", binding.to_owned()), ("result", result.to_owned())];
            (labels, count as f64)
        })
    });
    let help = "Transactions ended by producers about which a component was asked all the same, by whether it said what they said";
    register(registry, "comparisons", help, None, Samples::Counters(samples.collect()));
}

/// Calls by method and code.
pub(super) fn calls(registry: &mut Registry, app: &App) {
    let samples = app.calls.counts().map(|(method, code, count)| {
        let labels: Labels = vec![("method", method.to_owned()), ("code", code.to_owned())];
        (labels, count as f64)
    });
    let help = "gRPC calls that were answered, by method and by the code of the answer.";
    register(registry, "grpc_calls", help, None, Samples::Counters(samples.collect()));
}

/// How long things take.
pub(super) fn durations(registry: &mut Registry, node: &Node) {
    let metrics = &node.metrics;
    for (name, help, counts) in [
        ("send", "Sends that were stored, from the call to the answer", metrics.sends.counts()),
        ("sync", "Syncs of the log", node.status.syncs()),
        (
            "check",
            "Calls of components about a transaction, without the wait for a place to run",
            metrics.check_calls.counts(),
        ),
        (
            "delivery",
            "Calls of components about a delivery, without the wait for a place to run",
            metrics.delivery_calls.counts(),
        ),
        (
            "receive",
            "Receives that got messages, from the call to the answer: the wait for messages included",
            metrics.receives.counts(),
        ),
    ] {
        register(registry, name, help, Some(Unit::Seconds), Samples::Histogram(counts));
    }
}

/// Age of the last backup.
pub(super) fn backup(registry: &mut Registry, age_seconds: Option<f64>) {
    let samples = Samples::Gauges(age_seconds.map(|age| (Labels::new(), age)).into_iter().collect());
    let help = "Age of the last backup of the data folder; missing until there is one";
    register(registry, "backup_age", help, Some(Unit::Seconds), samples);
}

/// The process, under the names that all programs share.
pub(super) fn process(registry: &mut Registry, used: ProcessUse) {
    let one =
        |value: Option<f64>| -> Vec<(Labels, f64)> { value.map(|value| (Labels::new(), value)).into_iter().collect() };
    let count = |value: Option<u64>| one(value.map(|value| value as f64));
    for (name, help, unit, samples) in [
        (
            "process_resident_memory",
            "Memory that is resident, mapped files included",
            Some(Unit::Bytes),
            Samples::Gauges(count(used.resident_bytes)),
        ),
        (
            "process_cpu",
            "Processor time of all threads",
            Some(Unit::Seconds),
            Samples::Counters(one(Some(used.cpu.as_secs_f64()))),
        ),
        ("process_open_fds", "Open files and connections", None, Samples::Gauges(count(used.open_fds))),
        ("process_max_fds", "Open files and connections that there may be", None, Samples::Gauges(count(used.max_fds))),
        (
            "process_start_time",
            "When the process started, since 1970",
            Some(Unit::Seconds),
            Samples::Gauges(one(used.start_seconds)),
        ),
    ] {
        register(registry, name, help, unit, samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_bindings_a_thousand_have_values_of_their_own_and_the_rest_is_summed() {
        let names = (0..SERIES_MAX + 2).map(|number| format!("b{number:05}")).chain([OTHER.to_owned()]);
        let Samples::Gauges(samples) = by_binding(names.map(|name| (name, 1.0))) else { panic!("they go up and down") };
        assert_eq!(samples.len(), SERIES_MAX + 1);
        assert_eq!(samples[0], (vec![("binding", "b00000".to_owned())], 1.0));
        assert_eq!(samples[SERIES_MAX], (vec![("binding", OTHER.to_owned())], 3.0));
        assert!(matches!(by_binding([]), Samples::Gauges(none) if none.is_empty()));
    }
}
