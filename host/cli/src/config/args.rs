//! The settings as flags: one for each row of the table, and `--config` for the file.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::defaults::CONFIG_VARIABLE;
use super::file::SettingsFile;
use super::forms::InFile;
use super::resolved::{Resolved, SettingSource, SettingValue};
use super::setting::SettingRow;
use super::table::SETTINGS;

/// The flag that names the file.
const CONFIG: &str = "config";

/// What the command line and the environment say of settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingArgs {
    /// The file with the others.
    config: Option<PathBuf>,
    given: Vec<Given>,
}

/// A setting that a flag or a variable gives.
#[derive(Clone, Debug)]
struct Given {
    name: &'static str,
    text: String,
    source: SettingSource,
}

impl SettingArgs {
    /// The file, the environment and the flags together. Blocks for ever where the file is a pipe that nobody writes to.
    ///
    /// # Errors
    /// [`WrongUsage`](crate::failure::WrongUsage): the file cannot be read, is no TOML, or has a key or a value that it
    /// cannot have.
    pub(crate) fn resolve(&self) -> anyhow::Result<Resolved> {
        let file = self.config.as_deref().map(SettingsFile::read).transpose()?.unwrap_or_default();
        Ok(self.over(&file))
    }

    /// Each setting as a flag or a variable says, or else the file, or else the default.
    fn over(&self, file: &SettingsFile) -> Resolved {
        let value = |setting: &'static SettingRow| {
            let given = self.given.iter().find(|given| given.name == setting.name);
            let (text, source) = match (given, file.get(setting.name)) {
                (Some(given), _) => (given.text.clone(), given.source),
                (None, Some(text)) => (text.to_owned(), SettingSource::File),
                (None, None) => (setting.default_text(), SettingSource::Default),
            };
            SettingValue::new(setting, text, source)
        };
        Resolved { values: SETTINGS.iter().map(value).collect() }
    }
}

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .env(CONFIG_VARIABLE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file with settings named like these flags: `data_dir = \"…\"`");
        command.arg(config).args(SETTINGS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag of a setting, with its variable.
fn flag(setting: &SettingRow) -> Arg {
    let about = setting.about();
    let flag = Arg::new(setting.name)
        .long(setting.flag_name())
        .env(setting.variable())
        .value_name(about.placeholder)
        .hide_env_values(about.is_secret)
        .help(setting.help());
    match about.in_file {
        // `--insecure` alone, but never `--insecure true`: what follows belongs to the next flag.
        InFile::YesOrNo => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
        InFile::Text | InFile::Number => flag,
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.name)?.clone();
            let from_environment = matches.value_source(setting.name) == Some(ValueSource::EnvVariable);
            let source = if from_environment { SettingSource::Environment } else { SettingSource::Flag };
            Some(Given { name: setting.name, text, source })
        });
        Ok(Self { config: matches.get_one::<PathBuf>(CONFIG).cloned(), given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
