//! What the settings `log_format` and `log_level` may be.

use tracing_subscriber::EnvFilter;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One document a line.
    Json,
}

/// The filter that a text means: `info`, `info,vouch_node=debug`. What it leaves open is `info`.
///
/// # Errors
/// What is wrong with the text, and an example of a right one.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    const EXAMPLE: &str = "write for example info,vouch_node=debug";
    check_directives(text).map_err(|error| format!("{error}; {EXAMPLE}"))?;
    let builder = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
    builder.parse(text).map_err(|error| format!("{error}; {EXAMPLE}"))
}

/// Refuses what the library takes for the name of a module whose lines alone are written: a misspelt level would silence the
/// node, errors included.
fn check_directives(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const OURS: [&str; 12] = [
        "vouch",
        "vouch_broker",
        "vouch_commitlog",
        "vouch_files",
        "vouch_gateway",
        "vouch_leader",
        "vouch_node",
        "vouch_plugin",
        "vouch_protocol",
        "vouch_registry",
        "vouch_shard",
        "vouch_storage",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_exist_is_refused_and_silences_nothing() {
        for right in [
            "",
            "info",
            "WARN",
            "info,vouch_node=debug",
            "off, h2=trace",
            "vouch_node::checks=trace",
            "vouch_shard=debug",
            "[span]=debug",
        ] {
            assert_eq!(check_directives(right), Ok(()), "{right}");
        }
        for wrong in ["inf", "warning", "info;debug", "vouch_nod=debug", "info,vouch_node"] {
            assert!(check_directives(wrong).is_err(), "{wrong}");
        }
    }
}
