//! Lines of the node's log: their form, which never changes while it runs, and which of them are written, which may.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::Resolved;
use crate::escape;
use crate::failure::Usage;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One document a line.
    Json,
}

impl LogFormat {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is neither text nor json")),
        }
    }
}

/// Which lines are written: what `log_level` says, or `RUST_LOG` where nobody set it, or `info`.
pub(super) fn filter(resolved: &Resolved) -> anyhow::Result<EnvFilter> {
    const EXAMPLE: &str = "write for example info,vouch_node=debug";
    let builder = || EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
    let read = |text: &str| {
        check_directives(text).map_err(|error| format!("{error}; {EXAMPLE}"))?;
        builder().parse(text).map_err(|error| format!("{error}; {EXAMPLE}"))
    };
    if resolved.optional("log_level")?.is_some() {
        return resolved.get("log_level", read);
    }
    let text = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    read(&text).map_err(|error| Usage::error(format!("RUST_LOG: {error}")))
}

/// Refuses what the library takes for the name of a module whose lines alone are written: a misspelt level would silence the
/// node, errors included.
fn check_directives(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const OURS: [&str; 8] = [
        "vouch",
        "vouch_broker",
        "vouch_commitlog",
        "vouch_gateway",
        "vouch_node",
        "vouch_plugin",
        "vouch_protocol",
        "vouch_registry",
    ];
    for directive in
        text.split(',').map(str::trim).filter(|directive| !directive.is_empty() && !directive.contains('['))
    {
        let Some((module, _)) = directive.split_once('=') else {
            if LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive)) {
                continue;
            }
            return Err(format!("`{directive}` is no level; the levels are {}", LEVELS.join(", ")));
        };
        let first = module.split("::").next().unwrap_or_default();
        if first.starts_with("vouch") && !OURS.contains(&first) {
            return Err(format!("`{module}` is no part of the program; its parts are {}", OURS.join(", ")));
        }
    }
    Ok(())
}

/// The running log.
pub(super) struct Log {
    set_filter: Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>>,
}

impl Log {
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

    #[test]
    fn a_level_that_does_not_exist_is_refused_and_silences_nothing() {
        for right in
            ["", "info", "WARN", "info,vouch_node=debug", "off, h2=trace", "vouch_node::checks=trace", "[span]=debug"]
        {
            assert_eq!(check_directives(right), Ok(()), "{right}");
        }
        for wrong in ["inf", "warning", "info;debug", "vouch_nod=debug", "info,vouch_node"] {
            assert!(check_directives(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_format_is_one_of_two() {
        assert_eq!((LogFormat::parse("text"), LogFormat::parse("json")), (Ok(LogFormat::Text), Ok(LogFormat::Json)));
        assert!(LogFormat::parse("xml").is_err());
    }
}
