//! Lines of the node's log: their form, which never changes while it runs, and which of them are written, which may.

use std::io::IsTerminal;

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
    if resolved.optional("log_level")?.is_some() {
        return resolved.get("log_level", |text| builder().parse(text).map_err(|error| format!("{error}; {EXAMPLE}")));
    }
    builder().from_env().map_err(|error| Usage::error(format!("RUST_LOG: {error}; {EXAMPLE}")))
}

/// The running log.
pub(super) struct Log {
    set_filter: Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>>,
}

impl Log {
    /// Starts writing to standard error.
    pub(super) fn start(format: LogFormat, filter: EnvFilter) -> Self {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match format {
            LogFormat::Json => {
                let lines = lines.json().with_filter_reloading();
                let handle = lines.reload_handle();
                lines.init();
                Self { set_filter: Box::new(move |filter| handle.reload(filter)) }
            }
            LogFormat::Text => {
                let ansi = std::io::stderr().is_terminal();
                let lines = lines.fmt_fields(escape::log_fields()).with_ansi(ansi).with_filter_reloading();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_one_of_two() {
        assert_eq!((LogFormat::parse("text"), LogFormat::parse("json")), (Ok(LogFormat::Text), Ok(LogFormat::Json)));
        assert!(LogFormat::parse("xml").is_err());
    }
}
