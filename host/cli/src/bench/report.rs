//! What a measurement says: every round, the ratios of each round, and their median.

use anyhow::bail;
use serde_json::{Value, json};

use super::load::Load;
use super::stats::{Measured, median, ratio, short};

/// One turn of every server.
pub(crate) struct Round {
    /// From 1.
    pub(crate) number: u32,
    /// By name, the node first.
    pub(crate) seen: Vec<(&'static str, Measured)>,
}

/// All rounds.
pub(crate) struct Report {
    load: Load,
    rounds_wanted: u32,
    seconds: u32,
    disk: String,
    pub(crate) rounds: Vec<Round>,
}

/// A quantity of which ratios are formed. `None` where it was not measured.
type Quantity = fn(&Measured) -> Option<f64>;

/// What is compared: name for people, name for scripts, how it is read.
const COMPARED: [(&str, &str, Quantity); 3] = [
    ("messages/s", "messages_per_second", |seen| Some(seen.rate())),
    ("server CPU", "server_cpu_per_message", Measured::cpu_us_per_message),
    ("p99 latency", "p99", |seen| Some(seen.latencies.percentile(99.0).as_secs_f64())),
];

impl Report {
    /// Nothing measured yet. `disk` is the folder whose disk is measured.
    pub(crate) fn new(load: Load, rounds_wanted: u32, seconds: u32, disk: String) -> Self {
        Self { load, rounds_wanted, seconds, disk, rounds: Vec::new() }
    }

    /// What is measured, and the headings of the rounds.
    pub(crate) fn heading(&self) -> String {
        let load = &self.load;
        let what = if load.transactions { "half + commit" } else { "send" };
        let pace = load.rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate} messages/s"));
        let topics = match load.topics.len() {
            1 => String::new(),
            many => format!(",\nspread over {many} topics (single: a node with one)"),
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        format!(
            "{what}: {} producers on {} connections, {} x {} bytes per request, {pace}{topics}\n\
             {} rounds of {} s per server, {processors} processors shared with the load, files in {}\n\n\
             {:>5}  {:<6} {:>10}  {:>8}  {:>8}  {:>8}  {:>10}  {:>5}",
            load.producers,
            load.connections.min(load.producers),
            load.batch,
            load.body,
            self.rounds_wanted,
            self.seconds,
            self.disk,
            "round",
            "server",
            "messages/s",
            "p50",
            "p99",
            "p99.9",
            "CPU us/msg",
            "fails"
        )
    }

    /// The ratios of the node to each other server.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for peer in self.peers() {
            text.push_str(&format!("\nvouch / {peer}\n"));
            for (title, _, quantity) in COMPARED {
                let ratios = self.ratios(peer, quantity);
                let Some(middle) = median(&ratios) else { continue };
                let each = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join("  ");
                text.push_str(&format!("  {title:<12} median {middle:.2}   rounds {each}\n"));
            }
        }
        text.trim_end().to_owned()
    }

    /// Everything, for `--json`.
    pub(crate) fn document(&self) -> Value {
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|round| round.seen.iter().map(|(name, seen)| ((*name).to_owned(), seen.document())).collect())
            .collect();
        let ratios: serde_json::Map<String, Value> =
            self.peers().map(|peer| (peer.to_owned(), self.ratio_document(peer))).collect();
        json!({
            "load": {
                "kind": if self.load.transactions { "transaction" } else { "send" },
                "producers": self.load.producers,
                "connections": self.load.connections.min(self.load.producers),
                "batch": self.load.batch,
                "body_bytes": self.load.body,
                "topics": self.load.topics.len(),
                "rate": self.load.rate,
                "seconds": self.seconds,
            },
            "rounds": rounds,
            "ratios": ratios,
        })
    }

    /// The ratios to one server, round by round and in the middle.
    fn ratio_document(&self, peer: &str) -> Value {
        let entries = COMPARED.map(|(_, name, quantity)| {
            let ratios = self.ratios(peer, quantity);
            (name.to_owned(), json!({"rounds": ratios, "median": median(&ratios)}))
        });
        Value::Object(entries.into_iter().collect())
    }

    /// The servers that the node is compared with.
    fn peers(&self) -> impl Iterator<Item = &'static str> {
        self.rounds.first().into_iter().flat_map(|round| round.seen.iter().skip(1).map(|(name, _)| *name))
    }

    /// Node to peer in each round, both measured in that round.
    fn ratios(&self, peer: &str, quantity: Quantity) -> Vec<f64> {
        let of_round = |round: &Round| {
            let (_, node) = round.seen.first()?;
            let (_, other) = round.seen.iter().find(|(name, _)| *name == peer)?;
            ratio(quantity(node)?, quantity(other)?)
        };
        self.rounds.iter().filter_map(of_round).collect()
    }
}

/// One line per server.
pub(crate) fn render_round(round: &Round) -> String {
    let lines = round.seen.iter().map(|(name, seen)| {
        let percentile = |percent| short(seen.latencies.percentile(percent));
        let cpu = seen.cpu_us_per_message().map_or("-".to_owned(), |cpu| format!("{cpu:.1}"));
        format!(
            "{:>5}  {name:<6} {:>10.0}  {:>8}  {:>8}  {:>8}  {cpu:>10}  {:>5}",
            round.number,
            seen.rate(),
            percentile(50.0),
            percentile(99.0),
            percentile(99.9),
            seen.failures
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A measurement with failures is not one.
pub(crate) fn complain_about_failures(rounds: &[Round]) -> anyhow::Result<()> {
    for (name, seen) in rounds.iter().flat_map(|round| &round.seen) {
        if let Some(why) = &seen.first_failure {
            bail!("{} requests to {name} failed, the first with: {why}", seen.failures);
        }
        if seen.messages == 0 {
            bail!("{name} answered nothing within the measured time");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load;
    use crate::bench::stats::Latencies;
    use std::time::Duration;

    fn seen(messages: u64, cpu_ms: u64) -> Measured {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_millis(2));
        Measured {
            messages,
            failures: 0,
            first_failure: None,
            elapsed: Duration::from_secs(1),
            latencies,
            server_cpu: Some(Duration::from_millis(cpu_ms)),
        }
    }

    fn report() -> Report {
        let load = Load::of_tests(load::topics("t", 1));
        let mut report = Report::new(load, 3, 1, "/tmp".to_owned());
        for (number, node) in [700, 900, 800].into_iter().enumerate() {
            let seen = vec![("vouch", seen(node, 120)), ("null", seen(2_000, 80)), ("bare", seen(1_000, 100))];
            report.rounds.push(Round { number: number as u32 + 1, seen });
        }
        report
    }

    #[test]
    fn ratios_are_formed_within_a_round_and_the_median_is_told() {
        let document = report().document();
        assert_eq!(document["ratios"]["bare"]["messages_per_second"]["median"], json!(0.8));
        assert_eq!(document["ratios"]["bare"]["messages_per_second"]["rounds"], json!([0.7, 0.9, 0.8]));
        assert_eq!(document["ratios"]["null"]["messages_per_second"]["median"], json!(0.4));
        assert!(
            report().summary().contains("messages/s   median 0.80   rounds 0.70  0.90  0.80"),
            "{}",
            report().summary()
        );
    }

    #[test]
    fn the_report_fits_a_terminal_of_80_columns() {
        let report = report();
        let text = format!("{}\n{}\n{}", report.heading(), render_round(&report.rounds[0]), report.summary());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_measurement_with_failures_fails() {
        let mut report = report();
        assert!(complain_about_failures(&report.rounds).is_ok());
        report.rounds[1].seen[2].1.failures = 3;
        report.rounds[1].seen[2].1.first_failure = Some("no".to_owned());
        let text = complain_about_failures(&report.rounds).unwrap_err().to_string();
        assert_eq!(text, "3 requests to bare failed, the first with: no");
    }

    #[test]
    fn a_server_that_answers_nothing_fails_the_measurement() {
        let mut report = report();
        report.rounds[0].seen[0].1.messages = 0;
        assert!(complain_about_failures(&report.rounds).is_err());
    }
}
