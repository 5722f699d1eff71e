//! What is said about the cost of background work.

use anyhow::bail;
use serde_json::{Value, json};

use super::super::load::Load;
use super::super::report::{Report, Round, complain_about_failures, render_round};
use super::super::stats::{Measured, median, ratio};
use super::nodes::Done;
use super::plain::PerSecond;

/// One round.
pub(super) struct BackgroundRound {
    /// From 1.
    pub(super) number: u32,
    /// The node without background work.
    pub(super) vouch: Measured,
    /// The node with it.
    pub(super) vouch_beside: Measured,
    /// The bare server alone.
    pub(super) bare: Measured,
    /// The bare server beside plain reads and writes.
    pub(super) bare_beside: Measured,
    /// What the node did beside the sends.
    pub(super) done: Done,
    /// How much it read and wrote for that; the bare server had as much beside it.
    pub(super) plain: PerSecond,
}

/// How much of the messages per second is left beside the background work.
type Kept = fn(&BackgroundRound) -> Option<f64>;

/// Name for people, name for scripts, how it is formed.
const KEPT: [(&str, &str, Kept); 3] = [
    ("vouch+ / vouch", "vouch", BackgroundRound::vouch_keeps),
    ("bare+ / bare", "bare", BackgroundRound::bare_keeps),
    ("the one / the other", "vouch_to_bare", |round| ratio(round.vouch_keeps()?, round.bare_keeps()?)),
];

impl BackgroundRound {
    /// Of the node.
    fn vouch_keeps(&self) -> Option<f64> {
        ratio(self.vouch_beside.rate(), self.vouch.rate())
    }

    /// Of the bare server.
    fn bare_keeps(&self) -> Option<f64> {
        ratio(self.bare_beside.rate(), self.bare.rate())
    }

    /// The four as servers of one round.
    fn as_round(&self) -> Round {
        let named = [
            ("vouch", &self.vouch),
            ("vouch+", &self.vouch_beside),
            ("bare", &self.bare),
            ("bare+", &self.bare_beside),
        ];
        Round { number: self.number, seen: named.map(|(name, seen)| (name, seen.clone())).into() }
    }

    /// A line for each of the four, and what happened beside.
    pub(super) fn render(&self) -> String {
        let Done { lookup_files, segments, pages, .. } = self.done;
        let PerSecond { read, written } = self.plain;
        format!(
            "{}\n       beside: {lookup_files} lookup files, {segments} segments, {pages} pages; {:.0} MB/s read, {:.0} \
             written",
            render_round(&self.as_round()),
            read / 1e6,
            written / 1e6
        )
    }

    /// The round for `--json`; rates are bytes a second.
    fn document(&self) -> Value {
        let seen: serde_json::Map<String, Value> =
            self.as_round().seen.iter().map(|(name, seen)| ((*name).to_owned(), seen.document())).collect();
        json!({
            "servers": seen,
            "lookup_files": self.done.lookup_files,
            "segments_released": self.done.segments,
            "pages_read": self.done.pages,
            "background_read_bytes_per_second": self.plain.read,
            "background_written_bytes_per_second": self.plain.written,
        })
    }
}

/// All rounds.
pub(super) struct BackgroundReport {
    load: Load,
    rounds_wanted: u32,
    seconds: u32,
    disk: String,
    pub(super) rounds: Vec<BackgroundRound>,
}

impl BackgroundReport {
    /// Nothing measured yet.
    pub(super) fn new(load: Load, rounds_wanted: u32, seconds: u32, disk: String) -> Self {
        Self { load, rounds_wanted, seconds, disk, rounds: Vec::new() }
    }

    /// What is measured, and the headings of the rounds.
    pub(super) fn heading(&self) -> String {
        let report = Report::new(self.load.clone(), self.rounds_wanted, self.seconds, self.disk.clone());
        format!("With a +: beside background work; bare beside as many plain reads and writes.\n{}", report.heading())
    }

    /// The shares of all rounds in which both sides were measured.
    fn kept(&self, kept: Kept) -> Vec<f64> {
        self.rounds.iter().filter_map(kept).collect()
    }

    /// How much of the speed is left, in each round and in the middle.
    pub(super) fn summary(&self) -> String {
        let mut text = String::from("\nmessages/s left beside background work\n");
        for (title, _, kept) in KEPT {
            let kept = self.kept(kept);
            let Some(middle) = median(&kept) else { continue };
            let each = kept.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join("  ");
            text.push_str(&format!("  {title:<19} median {middle:.2}   rounds {each}\n"));
        }
        text.trim_end().to_owned()
    }

    /// Everything, for `--json`.
    pub(super) fn document(&self) -> Value {
        let entries = KEPT.map(|(_, name, kept)| {
            let kept = self.kept(kept);
            (name.to_owned(), json!({"rounds": kept, "median": median(&kept)}))
        });
        json!({
            "rounds": self.rounds.iter().map(BackgroundRound::document).collect::<Vec<_>>(),
            "kept": Value::Object(entries.into_iter().collect()),
        })
    }

    /// A measurement with failures is none, nor is one beside work that did not happen.
    pub(super) fn complain(&self) -> anyhow::Result<()> {
        let rounds: Vec<Round> = self.rounds.iter().map(BackgroundRound::as_round).collect();
        complain_about_failures(&rounds)?;
        for round in &self.rounds {
            if let Some(why) = round.done.missing() {
                bail!("{why} beside the sends of round {}; measure for longer with --seconds", round.number);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::load;
    use crate::bench::stats::Latencies;

    fn seen(messages: u64) -> Measured {
        let (elapsed, latencies) = (Duration::from_secs(1), Latencies::new());
        Measured { messages, failures: 0, first_failure: None, elapsed, latencies, server_cpu: None }
    }

    fn report() -> BackgroundReport {
        let load = load::Load::of_tests(load::topics("t", 1));
        let mut report = BackgroundReport::new(load, 2, 5, "/tmp".to_owned());
        for (number, beside) in [(1, 600), (2, 900)] {
            let done = Done { lookup_files: 4, segments: 2, pages: 50, ..Done::default() };
            report.rounds.push(BackgroundRound {
                number,
                vouch: seen(1_000),
                vouch_beside: seen(beside),
                bare: seen(2_000),
                bare_beside: seen(1_500),
                done,
                plain: PerSecond { read: 21e6, written: 9e6 },
            });
        }
        report
    }

    #[test]
    fn what_is_kept_is_compared_within_a_round_and_the_median_is_told() {
        let document = report().document();
        assert_eq!(document["kept"]["vouch"]["rounds"], json!([0.6, 0.9]));
        assert_eq!(document["kept"]["bare"]["median"], json!(0.75));
        assert_eq!(document["kept"]["vouch_to_bare"]["rounds"], json!([0.6 / 0.75, 0.9 / 0.75]));
        assert_eq!(document["rounds"][0]["segments_released"], 2);
        let summary = report().summary();
        assert!(summary.contains("the one / the other median 1.00   rounds 0.80  1.20"), "{summary}");
    }

    #[test]
    fn it_fits_a_terminal_of_80_columns() {
        let report = report();
        let text = format!("{}\n{}\n{}", report.heading(), report.rounds[0].render(), report.summary());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_round_without_background_work_or_with_failures_is_no_measurement() {
        let mut report = report();
        report.complain().unwrap();
        report.rounds[1].done.segments = 0;
        let text = report.complain().unwrap_err().to_string();
        assert_eq!(text, "no segment was released beside the sends of round 2; measure for longer with --seconds");
        report.rounds[0].bare_beside.failures = 1;
        report.rounds[0].bare_beside.first_failure = Some("no".to_owned());
        assert!(report.complain().unwrap_err().to_string().contains("bare+"));
    }
}
