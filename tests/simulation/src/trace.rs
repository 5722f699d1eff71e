//! What happened, one line each: the last of them are told when a run fails.

use std::collections::VecDeque;

/// So many lines are kept, unless `VOUCH_SIMULATION_TRACE` says how many.
const KEPT: usize = 40;

/// The lines of a run.
pub(crate) struct Trace {
    lines: VecDeque<String>,
    /// As many of them as are kept.
    kept: usize,
    /// Of all lines so far: equal for equal runs.
    digest: u64,
    pub(crate) now: u64,
    wrong: Option<String>,
    /// How often a machine held what it had at a named position against what its leader told.
    pub(crate) compared: u64,
}

impl Default for Trace {
    fn default() -> Self {
        let told = std::env::var("VOUCH_SIMULATION_TRACE").ok();
        let kept = told.map_or(KEPT, |text| text.parse().expect("a number of lines"));
        Self { lines: VecDeque::new(), kept, digest: 0, now: 0, wrong: None, compared: 0 }
    }
}

impl Trace {
    pub(crate) fn line(&mut self, line: String) {
        for byte in line.bytes().chain(self.now.to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() >= self.kept {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>8} {line}", self.now));
    }

    /// Something does not hold. The first such thing ends the run.
    pub(crate) fn wrong(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    /// Whether all holds so far.
    pub(crate) fn holds(&mut self) -> Result<(), String> {
        self.wrong.take().map_or(Ok(()), Err)
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn told(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}
