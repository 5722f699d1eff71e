//! What SIGHUP does: files and settings are read anew, and what can change while the node serves does.

use vouch_gateway::{Gateway, Reloaded};

use super::logging::Log;
use super::settings::Settings;
use crate::config::{Resolved, SettingArgs};
use crate::failure;

/// Settings that hold from a reload on. The others hold from the next start on.
const RELOADED: [&str; 9] = [
    "tls_certificate",
    "tls_key",
    "http_token",
    "http_token_file",
    "http_hosts",
    "insecure",
    "insecure_http",
    "insecure_grpc",
    "log_level",
];

/// Where settings come from, and what they were.
pub(super) struct Reloading {
    pub(super) args: SettingArgs,
    /// With these the node started.
    pub(super) started: Resolved,
    /// Files that may be open.
    pub(super) descriptors: u64,
    pub(super) log: Log,
    /// As it holds now.
    pub(super) log_level: Option<String>,
}

impl Reloading {
    /// Reads all anew. Either all of it holds from now on, or nothing; one line of the log says which.
    pub(super) fn reload(&mut self, gateway: &Gateway) {
        match self.try_reload(gateway) {
            Ok(Changed { now, with_the_next_start }) => tracing::info!(
                changed = now,
                with_the_next_start,
                "reloaded certificate and key, HTTP token and names, log level"
            ),
            Err(error) => tracing::error!(
                "nothing is reloaded, and what was read before goes on: {}; mend that, try it with vouch config check, and \
                 send SIGHUP again",
                failure::sentence(&error)
            ),
        }
    }

    fn try_reload(&mut self, gateway: &Gateway) -> anyhow::Result<Changed> {
        let resolved = self.args.resolve()?;
        let settings = Settings::read(&resolved, self.descriptors)?;
        let Reloaded { certificate, door } = gateway.reload(&settings.gateway)?;
        self.log.set(settings.log_filter)?;
        let log_level = resolved.optional("log_level")?;
        let level = std::mem::replace(&mut self.log_level, log_level.clone()) != log_level;
        let all = [(certificate, "certificate"), (door, "HTTP token or names"), (level, "log level")];
        let now = names(all.into_iter().filter_map(|(changed, name)| changed.then_some(name)));
        let others = resolved.differing(&self.started).filter(|key| !RELOADED.contains(key));
        Ok(Changed { now, with_the_next_start: names(others) })
    }
}

/// What differs from before, for the log.
struct Changed {
    now: String,
    with_the_next_start: String,
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn what_is_reloaded_are_settings() {
        for key in RELOADED {
            assert!(SETTINGS.iter().any(|known| known.key == key), "{key}");
        }
    }
}
