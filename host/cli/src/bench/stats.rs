//! The arithmetic of a measurement: rates, percentiles, processor time per message, ratios and their median.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency that is told apart, in microseconds: one minute. Anything longer counts as this.
const LONGEST_US: u64 = 60_000_000;
/// Significant digits of a recorded latency.
const DIGITS: u8 = 3;

/// Latencies in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are constants that fit each other"))
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }

    /// Adds those of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The latency that `percent` of all stayed at or below; zero if there are none.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        if self.0.is_empty() {
            return Duration::ZERO;
        }
        Duration::from_micros(self.0.value_at_percentile(percent))
    }
}

/// What was seen of one server in one round.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Messages answered with success within the window. A transaction counts as one message when its end is answered.
    pub(crate) messages: u64,
    /// Requests that were refused or failed.
    pub(crate) failures: u64,
    /// What the first failure said.
    pub(crate) first_failure: Option<String>,
    /// The window.
    pub(crate) elapsed: Duration,
    /// Of requests, not of messages: a batch is one request.
    pub(crate) latencies: Latencies,
    /// Processor time of the server in the window, if it is a process of ours.
    pub(crate) server_cpu: Option<Duration>,
}

impl Measured {
    /// Messages per second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Processor time of the server per message, in microseconds.
    pub(crate) fn cpu_us_per_message(&self) -> Option<f64> {
        let cpu = self.server_cpu?;
        (self.messages > 0).then(|| cpu.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// For `--json`.
    pub(crate) fn document(&self) -> Value {
        json!({
            "messages": self.messages,
            "failures": self.failures,
            "seconds": self.elapsed.as_secs_f64(),
            "messages_per_second": self.rate(),
            "p50_us": self.latencies.percentile(50.0).as_micros() as u64,
            "p99_us": self.latencies.percentile(99.0).as_micros() as u64,
            "p999_us": self.latencies.percentile(99.9).as_micros() as u64,
            "server_cpu_us_per_message": self.cpu_us_per_message(),
        })
    }
}

/// `a / b`, or nothing where that has no meaning.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    let ratio = a / b;
    (ratio.is_finite() && b > 0.0).then_some(ratio)
}

/// The middle of the values; the mean of the two middle ones if their number is even.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// A duration as a person reads it: `0.42 ms`, `13.1 ms`, `1.20 s`.
pub(crate) fn short(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(messages: u64, elapsed: Duration, cpu: Option<Duration>) -> Measured {
        Measured { messages, failures: 0, first_failure: None, elapsed, latencies: Latencies::new(), server_cpu: cpu }
    }

    #[test]
    fn rate_and_processor_time_are_per_message() {
        let seen = measured(10_000, Duration::from_secs(2), Some(Duration::from_millis(500)));
        assert!((seen.rate() - 5_000.0).abs() < 1e-6);
        assert!((seen.cpu_us_per_message().unwrap() - 50.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_sent_has_no_processor_time_per_message() {
        assert_eq!(measured(0, Duration::from_secs(1), Some(Duration::from_secs(1))).cpu_us_per_message(), None);
        assert_eq!(measured(5, Duration::from_secs(1), None).cpu_us_per_message(), None);
    }

    #[test]
    fn percentiles_come_from_all_that_was_merged() {
        let (mut fast, mut slow) = (Latencies::new(), Latencies::new());
        (0..99).for_each(|_| fast.record(Duration::from_millis(1)));
        slow.record(Duration::from_millis(100));
        fast.merge(&slow);
        assert_eq!(fast.percentile(50.0).as_millis(), 1);
        assert_eq!(fast.percentile(99.9).as_millis(), 100);
        assert_eq!(Latencies::new().percentile(99.0), Duration::ZERO);
    }

    #[test]
    fn a_latency_beyond_the_scale_is_counted_at_its_end() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(3600));
        assert_eq!(latencies.percentile(50.0).as_secs(), 60);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_to_nothing_is_no_ratio() {
        assert_eq!(ratio(1.0, 0.0), None);
        assert_eq!(ratio(0.0, 0.0), None);
        assert_eq!(ratio(3.0, 4.0), Some(0.75));
    }

    #[test]
    fn durations_read_with_three_digits() {
        let texts = [420, 13_100, 1_200_000].map(|micros| short(Duration::from_micros(micros)));
        assert_eq!(texts, ["0.42 ms", "13.1 ms", "1.20 s"]);
    }
}
