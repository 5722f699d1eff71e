//! What guests say, kept for the operator.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    bindings::host::Level,
    error_text::{MAX_PANIC_TEXT, cut},
    secrets::BindingSecrets,
};

/// Most bytes kept of one line.
pub(crate) const MAX_LINE: usize = 4096;
/// Most lines kept of one call.
pub(crate) const MAX_LINES_PER_CALL: usize = 64;
/// Lines that a binding remembers.
pub(crate) const RING_LINES: usize = 256;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSource {
    /// The component, through `host.log`.
    Guest,
    /// The component's standard output or error.
    Stdio,
    /// The host, about the component: a refused request, say.
    Host,
}

/// One line of a binding's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Counts the lines of this binding from 1, so that a reader sees what it missed.
    pub number: u64,
    /// When it was written, in ms since 1970 by the node's clock.
    pub at_ms: u64,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// Who wrote it.
    pub source: LogSource,
    /// The transaction that was asked about, or the key of what was delivered.
    pub transaction_id: String,
    /// The text, at most 4 KiB.
    pub text: String,
}

/// The last lines of one binding.
pub(crate) struct LogRing {
    binding: String,
    digest: String,
    lines: Mutex<Lines>,
}

/// The last lines, and how many there ever were: numbers go on over what is forgotten, so that a reader who comes back
/// sees that he missed some.
#[derive(Default)]
struct Lines {
    written: u64,
    last: VecDeque<LogLine>,
}

impl LogRing {
    /// A log without lines. A binding that is set anew begins another one.
    pub(crate) fn new(binding: &str, digest: &str) -> Arc<Self> {
        Arc::new(Self { binding: binding.to_owned(), digest: digest.to_owned(), lines: Mutex::default() })
    }

    /// The remembered lines after line `number`, oldest first.
    pub(crate) fn after(&self, number: u64) -> Vec<LogLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last.iter().filter(|line| line.number > number).cloned().collect()
    }

    /// Adds a line and forgets the oldest beyond [`RING_LINES`]. The text has no secrets any more and is cut.
    fn write(&self, level: Level, source: LogSource, transaction_id: &str, text: String) {
        self.trace(level, source, transaction_id, &text);
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.written += 1;
        if lines.last.len() == RING_LINES {
            lines.last.pop_front();
        }
        let (number, level) = (lines.written, name_of(level));
        let transaction_id = transaction_id.to_owned();
        lines.last.push_back(LogLine { number, at_ms, level, source, transaction_id, text });
    }

    /// What the host says of a call is in the binding's log, and whoever asked says in the node's that there was no answer:
    /// once a minute in an outage, and not once a request.
    fn trace(&self, level: Level, source: LogSource, transaction: &str, text: &str) {
        let (binding, digest) = (self.binding.as_str(), self.digest.as_str());
        let level = if source == LogSource::Host { Level::Debug } else { level };
        match level {
            Level::Trace => tracing::trace!(target: "vouch::guest", binding, digest, transaction, "{text}"),
            Level::Debug => tracing::debug!(target: "vouch::guest", binding, digest, transaction, "{text}"),
            Level::Info => tracing::info!(target: "vouch::guest", binding, digest, transaction, "{text}"),
            Level::Warn => tracing::warn!(target: "vouch::guest", binding, digest, transaction, "{text}"),
            Level::Error => tracing::error!(target: "vouch::guest", binding, digest, transaction, "{text}"),
        }
    }
}

/// As `GET` of the log tells the level.
fn name_of(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// The voice of one call: shares the binding's ring, and is bounded per call.
#[derive(Clone)]
pub(crate) struct CallLog(Arc<Call>);

/// Who speaks, and how much was said so far.
struct Call {
    ring: Arc<LogRing>,
    secrets: Arc<BindingSecrets>,
    transaction_id: String,
    counts: Mutex<Counts>,
    /// The last that was written to standard error, up to [`MAX_PANIC_TEXT`].
    panic: Mutex<String>,
}

/// Lines of one call. Those that were dropped are told once, at its end.
#[derive(Default)]
struct Counts {
    kept: usize,
    dropped: usize,
}

impl CallLog {
    /// The voice of a call about this transaction or delivery. All that goes through it is cleaned of these secrets.
    pub(crate) fn new(ring: Arc<LogRing>, secrets: Arc<BindingSecrets>, transaction_id: String) -> Self {
        Self(Arc::new(Call { ring, secrets, transaction_id, counts: Mutex::default(), panic: Mutex::default() }))
    }

    /// Takes the binding's secrets out of a text.
    pub(crate) fn hide_secrets(&self, text: &mut String) {
        self.0.secrets.hide(text);
    }

    /// Adds a line of the guest, or of the host about it. Beyond [`MAX_LINES_PER_CALL`] it is only counted: a guest
    /// that writes in a loop costs neither memory nor the lines of others.
    pub(crate) fn write(&self, level: Level, source: LogSource, mut text: String) {
        {
            let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
            if counts.kept == MAX_LINES_PER_CALL {
                counts.dropped += 1;
                return;
            }
            counts.kept += 1;
        }
        // Before the cut, which could leave the half of one.
        self.hide_secrets(&mut text);
        cut(&mut text, MAX_LINE);
        self.0.ring.write(level, source, &self.0.transaction_id, text);
    }

    /// A line that the guest wrote to standard error: what a panic says.
    pub(crate) fn write_panic(&self, mut text: String) {
        // Before anything is cut off, which could leave the half of one.
        self.hide_secrets(&mut text);
        {
            let mut panic = self.0.panic.lock().unwrap_or_else(PoisonError::into_inner);
            if !panic.is_empty() {
                panic.push('\n');
            }
            panic.push_str(&text);
            // The last lines tell; a guest that writes in a loop costs no more memory.
            if panic.len() > MAX_PANIC_TEXT {
                let from = panic.ceil_char_boundary(panic.len() - MAX_PANIC_TEXT);
                panic.drain(..from);
            }
        }
        self.write(Level::Warn, LogSource::Stdio, text);
    }

    /// What the guest wrote to standard error, without secrets, at most [`MAX_PANIC_TEXT`].
    pub(crate) fn take_panic(&self) -> String {
        std::mem::take(&mut *self.0.panic.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says how many lines were dropped, if any. Call once, when the call is over.
    pub(crate) fn finish(&self) {
        let dropped = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).dropped;
        if dropped > 0 {
            let text = format!("{dropped} more lines of this call were dropped: {MAX_LINES_PER_CALL} are kept");
            self.0.ring.write(Level::Warn, LogSource::Host, &self.0.transaction_id, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ring: &LogRing) -> Vec<String> {
        ring.after(0).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_of_one_call_are_bounded_and_the_loss_is_told() {
        for (written, kept) in
            [(MAX_LINES_PER_CALL, MAX_LINES_PER_CALL), (MAX_LINES_PER_CALL + 3, MAX_LINES_PER_CALL + 1)]
        {
            let ring = LogRing::new("b", "d");
            let log = CallLog::new(Arc::clone(&ring), Arc::default(), "t1".to_owned());
            (0..written).for_each(|n| log.write(Level::Info, LogSource::Guest, n.to_string()));
            log.finish();
            assert_eq!(texts(&ring).len(), kept);
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let ring = LogRing::new("b", "d");
        let log = CallLog::new(Arc::clone(&ring), Arc::default(), "t1".to_owned());
        log.write(Level::Info, LogSource::Guest, "x".repeat(MAX_LINE));
        log.write(Level::Info, LogSource::Guest, "x".repeat(MAX_LINE + 1));
        let texts = texts(&ring);
        assert_eq!(texts[0], "x".repeat(MAX_LINE));
        assert!(texts[1].ends_with('…') && texts[1].len() <= MAX_LINE);
    }

    #[test]
    fn the_ring_keeps_the_last_lines_and_numbers_all() {
        let ring = LogRing::new("b", "d");
        for n in 0..=RING_LINES {
            ring.write(Level::Info, LogSource::Host, "t", n.to_string());
        }
        let lines = ring.after(0);
        assert_eq!(lines.len(), RING_LINES);
        assert_eq!((lines[0].number, lines[0].text.as_str()), (2, "1"));
        assert_eq!(ring.after(RING_LINES as u64).len(), 1);
    }
}
