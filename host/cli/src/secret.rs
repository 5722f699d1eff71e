//! `vouch secret`: values that bindings name and that nobody is shown again.
//!
//! A value comes from standard input or a file, never from the command line, where other users of the machine could read it.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vouch_node::SECRET_VALUE_MAX;

use crate::failure::WrongUsage;
use crate::http::{HttpArgs, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};

/// What can be done with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret: its value is read from standard input, and a binding names it (--config-secret).
    #[command(after_help = "\
Examples:
  vouch secret set orders-db < password.txt
  vouch secret set api-token --file token.txt")]
    Set {
        name: String,
        #[command(flatten)]
        value: ValueArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the secrets: their names, which bindings name them, and whether the node can open them.
    #[command(after_help = "Example:\n  vouch secret list")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Delete a secret; refused while a binding names it.
    #[command(after_help = "Example:\n  vouch secret delete orders-db")]
    Delete {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Draw another key, give it to all nodes, and seal all secrets with it; whoever uses them notices nothing.
    #[command(after_help = "\
Examples:
  vouch secret rotate-key
  vouch secret rotate-key --forget-old")]
    RotateKey {
        /// Remove the keys of before from all nodes: backups of before can be restored, but their secrets open no more.
        #[arg(long)]
        forget_old: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
}

/// Where a value comes from.
#[derive(Debug, Args)]
pub(crate) struct ValueArgs {
    /// Read the value from this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep a line end at the end of the value; otherwise one is left out.
    #[arg(long)]
    exact: bool,
    /// Make another key, where no node has the key file any more: what was sealed before opens no more.
    #[arg(long)]
    new_key: bool,
}

impl SecretCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Set { http, .. }
            | Self::List { http, .. }
            | Self::Delete { http, .. }
            | Self::RotateKey { http, .. } => http.json,
        }
    }
}

impl ValueArgs {
    /// The value, every byte of it.
    ///
    /// # Errors
    /// It cannot be read. [`WrongUsage`]: it is empty or too long, or somebody would have to type it where all can see it.
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        let mut value = Vec::new();
        // One byte more than fits tells that something does not, with a line end to leave out.
        let most = SECRET_VALUE_MAX as u64 + 3;
        match &self.file {
            Some(file) => {
                let what = || format!("cannot read {}", file.display());
                std::fs::File::open(file).with_context(what)?.take(most).read_to_end(&mut value).with_context(what)?;
            }
            None if std::io::stdin().is_terminal() => {
                return Err(WrongUsage::error(
                    "the value is read from standard input, and that is a terminal, which would show it: use --file FILE, or \
                     send it through a pipe",
                ));
            }
            None => {
                std::io::stdin().lock().take(most).read_to_end(&mut value).context("cannot read standard input")?;
            }
        }
        if !self.exact && value.ends_with(b"\n") {
            value.pop();
            if value.ends_with(b"\r") {
                value.pop();
            }
        }
        match value.len() {
            0 => Err(WrongUsage::error("the value is empty: send it on standard input, or name a file with --file")),
            len if len > SECRET_VALUE_MAX => Err(WrongUsage::error(format!(
                "the value is longer than {SECRET_VALUE_MAX} bytes, the most that is kept"
            ))),
            _ => Ok(value),
        }
    }
}

/// Runs `vouch secret`.
pub(crate) fn run(command: SecretCommand) -> anyhow::Result<()> {
    match command {
        SecretCommand::Set { name, value, http } => set(&name, &value, &http),
        SecretCommand::List { page, http } => list(&page, &http),
        SecretCommand::Delete { name, http } => resource::delete(&http, "secret", &path(&name), &name),
        SecretCommand::RotateKey { forget_old, http } => rotate_key(forget_old, &http),
    }
}

/// The path of a secret in the HTTP API.
fn path(name: &str) -> String {
    format!("/v1/secrets/{}", segment(name))
}

fn set(name: &str, value: &ValueArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let headers = [("content-type", "application/octet-stream")];
    let query = if value.new_key { "?new_key=true" } else { "" };
    let answer = http.client()?.put_bytes(&format!("{}{query}", path(name)), value.read()?, &headers)?;
    resource::warnings(http, &answer.body)?;
    let verb = if answer.created { "set" } else { "replaced: what names it uses the new value from the next call on" };
    resource::report(http, &answer.body, format!("secret {name} {verb}"))
}

fn list(page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/secrets{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["NAME", "BINDINGS", "KEY", "OPENS HERE"]);
    for secret in resource::items(&answer.body) {
        let opens = if secret["opens_here"] == true { "yes" } else { "no: the key is missing" };
        table.row([cell(secret, "name"), cell(secret, "bindings"), cell(secret, "key"), opens.to_owned()]);
    }
    table.print()?;
    page.more(&answer.body)
}

fn rotate_key(forget_old: bool, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.post_patiently("/v1/secret-key/rotate", &json!({ "forget_old": forget_old }))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    output::note("copy the key file anew to where you keep a copy of it: the old one does not open secrets any more")?;
    let count = |member: &str| answer.body[member].as_array().map_or(0, Vec::len);
    output::line(format_args!(
        "key {} seals now; {} secrets were sealed with it, {} keys of before are kept and {} were removed",
        cell(&answer.body, "key"),
        cell(&answer.body, "resealed"),
        count("kept"),
        cell(&answer.body, "forgotten"),
    ))?;
    for (member, told) in [
        ("nodes_without", "get the key when they are reached"),
        ("nodes_with_old", "may still have keys of before: run this again when they are reached"),
    ] {
        let nodes: Vec<String> = answer.body[member].as_array().into_iter().flatten().map(Value::to_string).collect();
        if !nodes.is_empty() {
            output::note(format_args!("nodes {} {told}", nodes.join(", ")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(content: &[u8], exact: bool) -> anyhow::Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        ValueArgs { file: Some(file.path().to_owned()), exact, new_key: false }.read()
    }

    #[test]
    fn one_line_end_at_the_end_is_none_of_the_value_unless_every_byte_is_asked_for() {
        for (content, read) in [("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), ("pw", "pw"), (" p w ", " p w ")]
        {
            assert_eq!(value(content.as_bytes(), false).unwrap(), read.as_bytes());
            assert_eq!(value(content.as_bytes(), true).unwrap(), content.as_bytes());
        }
    }

    #[test]
    fn what_is_empty_or_too_long_is_wrong_usage() {
        let longest = [&vec![7; SECRET_VALUE_MAX][..], b"\r\n"].concat();
        assert_eq!(value(&longest, false).unwrap().len(), SECRET_VALUE_MAX);
        for wrong in [&b""[..], b"\n", &[7; SECRET_VALUE_MAX + 1], &[b'\n'; SECRET_VALUE_MAX + 9]] {
            assert!(value(wrong, false).unwrap_err().is::<WrongUsage>());
        }
    }
}
