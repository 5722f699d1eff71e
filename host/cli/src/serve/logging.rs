//! Lines of the node's log: their form, which never changes while it runs, and which of them are written, which may.
//!
//! Lines go to standard error; standard output is for what commands print. Text is escaped field by field
//! ([`escape::log_fields`]), JSON as a whole: nothing that a client or a component wrote starts a line of its own or
//! acts on a terminal.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{self, LogFormat, Resolved};
use crate::escape;
use crate::failure::WrongUsage;

/// Which lines are written: what `log_level` says, or `RUST_LOG` where nobody set it, or `info`.
///
/// # Errors
/// [`WrongUsage`]: what is set is no level; the text names where it stands.
pub(super) fn filter(resolved: &Resolved) -> anyhow::Result<EnvFilter> {
    if let Some(level) = resolved.log_level()? {
        return config::filter(&level).map_err(WrongUsage::error);
    }
    let text = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    config::filter(&text).map_err(|error| WrongUsage::error(format!("RUST_LOG: {error}")))
}

/// The running log.
pub(super) struct NodeLog {
    set_filter: Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>>,
}

impl NodeLog {
    /// Starts writing to standard error.
    pub(super) fn start(format: LogFormat, filter: EnvFilter) -> Self {
        let lines = tracing_subscriber::fmt().with_env_filter(filter);
        match format {
            LogFormat::Json => {
                let lines = lines.json().with_writer(|| Harmless(io::stderr())).with_filter_reloading();
                let handle = lines.reload_handle();
                lines.init();
                Self { set_filter: Box::new(move |filter| handle.reload(filter)) }
            }
            LogFormat::Text => {
                let ansi = io::stderr().is_terminal();
                let lines = lines.fmt_fields(escape::log_fields()).with_ansi(ansi).with_writer(io::stderr);
                let lines = lines.with_filter_reloading();
                let handle = lines.reload_handle();
                lines.init();
                Self { set_filter: Box::new(move |filter| handle.reload(filter)) }
            }
        }
    }

    /// From now on these lines are written.
    pub(super) fn set(&self, filter: EnvFilter) -> anyhow::Result<()> {
        (self.set_filter)(filter).context("the log level cannot be set")
    }
}

/// Writes documents in which nothing acts on a terminal: JSON itself escapes less. Each comes in one piece, and is written in
/// one.
struct Harmless<W>(W);

impl<W: io::Write> io::Write for Harmless<W> {
    fn write(&mut self, document: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(document);
        self.0.write_all(escape::json(&text).as_bytes())?;
        Ok(document.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, piece by piece.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<Vec<u8>>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_document_of_the_log_is_the_same_and_acts_on_no_terminal() {
        const HOSTILE: &str = "a\nb\u{1b}[2J\u{7f}c\u{9b}31m\u{202e}\u{2028}\u{feff}\u{e0041}é";
        let written = Written::default();
        let to = written.clone();
        let lines = tracing_subscriber::fmt().json().with_writer(move || Harmless(to.clone())).finish();
        tracing::subscriber::with_default(lines, || {
            tracing::warn!(text = HOSTILE, "{HOSTILE}");
            tracing::info!("é");
        });
        let written = written.0.lock().unwrap();
        assert_eq!(written.len(), 2, "one piece each");
        let text = String::from_utf8(written[0].clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert_eq!(escape::line(line), line);
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(document["fields"]["message"], HOSTILE);
        assert_eq!(document["fields"]["text"], HOSTILE);
    }
}
