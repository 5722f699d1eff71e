//! Metrics whose numbers live elsewhere, with labels and with histograms, as the encoder wants them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use vouch_node::{DURATION_BOUNDS, DurationCounts};

/// Labels of a sample.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What is sampled.
#[derive(Debug)]
pub(super) enum Samples {
    /// They only grow.
    Counters(Vec<(Labels, f64)>),
    /// They go up and down.
    Gauges(Vec<(Labels, f64)>),
    /// How long something took.
    Histogram(DurationCounts),
}

/// A metric with its samples of this moment; told with its name and help even if it has none.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) samples: Samples,
}

impl Collector for Family {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let kind = match &self.samples {
            Samples::Counters(_) => MetricType::Counter,
            Samples::Gauges(_) => MetricType::Gauge,
            Samples::Histogram(_) => MetricType::Histogram,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), kind)?;
        match &self.samples {
            Samples::Counters(samples) => samples.iter().try_for_each(|(labels, value)| match labels.is_empty() {
                true => metric.encode_counter::<NoLabelSet, _, f64>(value, None),
                false => metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(value, None),
            }),
            Samples::Gauges(samples) => samples.iter().try_for_each(|(labels, value)| match labels.is_empty() {
                true => metric.encode_gauge(value),
                false => metric.encode_family(labels)?.encode_gauge(value),
            }),
            Samples::Histogram(counts) => {
                let bounds = DURATION_BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(counts.buckets).collect();
                let count = counts.buckets.iter().sum();
                metric.encode_histogram::<NoLabelSet>(counts.sum.as_secs_f64(), count, &buckets, None)
            }
        }
    }
}
