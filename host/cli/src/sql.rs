//! `vouch sql`: the tables that a fence needs in a service's own database, and their upkeep.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use vouch_node::{Dialect, fence_tables};

use crate::http::{HttpArgs, segment};
use crate::output::{self, cell};
use crate::text;

/// What can be done for fences.
#[derive(Debug, Subcommand)]
pub(crate) enum SqlCommand {
    /// Print the statements that create the fence tables, to be run in the service's database by who owns it.
    #[command(after_help = "\
Examples:
  vouch sql fence-table --database postgres | psql shop
  vouch sql fence-table --database sqlite | sqlite3 shop.db")]
    FenceTable {
        /// Which database it is.
        #[arg(long, value_enum)]
        database: DatabaseKind,
        /// Leave out the trigger that makes rows final: where a server forbids triggers to its users.
        #[arg(long)]
        without_trigger: bool,
    },
    /// Delete rows of a binding's fence tables that nobody needs any more.
    #[command(after_help = "\
Examples:
  vouch sql fence-clean --binding orders --dry-run
  vouch sql fence-clean --binding orders --older-than 30d")]
    FenceClean {
        #[command(flatten)]
        clean: FenceClean,
        #[command(flatten)]
        http: HttpArgs,
    },
}

/// What is cleaned. The command itself makes a group of the same name.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct FenceClean {
    /// The binding whose databases are meant.
    #[arg(long, value_name = "NAME")]
    binding: String,
    /// Rows that were noted less long ago stay, and all that may still be asked about.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = text::duration)]
    older_than: String,
    /// Only say how many rows would go.
    #[arg(long)]
    dry_run: bool,
}

/// A kind of database, as users call it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DatabaseKind {
    /// PostgreSQL 13 or later.
    Postgres,
    /// MySQL 8 or later.
    Mysql,
    /// MariaDB 10.6 or later.
    Mariadb,
    /// SQLite.
    Sqlite,
}

impl SqlCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::FenceTable { .. } => false,
            Self::FenceClean { http, .. } => http.json,
        }
    }
}

/// Runs `vouch sql`.
pub(crate) fn run(command: SqlCommand) -> anyhow::Result<()> {
    match command {
        SqlCommand::FenceTable { database, without_trigger } => {
            let dialect = match database {
                DatabaseKind::Postgres => Dialect::Postgres,
                DatabaseKind::Mysql => Dialect::MySql,
                DatabaseKind::Mariadb => Dialect::MariaDb,
                DatabaseKind::Sqlite => Dialect::Sqlite,
            };
            Ok(output::line(fence_tables(dialect, without_trigger).trim_end())?)
        }
        SqlCommand::FenceClean { clean, http } => fence_clean(&clean, &http),
    }
}

/// Says of each database what went. Fails if one of them failed, when all have been asked.
fn fence_clean(clean: &FenceClean, http: &HttpArgs) -> anyhow::Result<()> {
    let FenceClean { binding, older_than, dry_run } = clean;
    let path = format!("/v1/bindings/{}/fence-clean", segment(binding));
    let answer = http.client()?.post_patiently(&path, &json!({"older_than": older_than, "dry_run": dry_run}))?.body;
    let databases = answer["databases"].as_array().map_or(&[][..], Vec::as_slice);
    if http.json {
        output::json(&answer)?;
    } else {
        let before = cell(&answer, "noted_before");
        for database in databases {
            let (name, rows) = (cell(database, "name"), cell(database, "rows"));
            let verb = if *dry_run { "would go" } else { "went" };
            let more = if database["more"] == true { "; there are more, run it again" } else { "" };
            match database["error"].as_str() {
                Some(error) => output::note(format_args!("{name}: {}", output::plain(&Value::from(error))))?,
                None => output::line(format_args!("{name}: {rows} rows noted before {before} {verb}{more}"))?,
            }
        }
    }
    if databases.iter().any(|database| database["error"].is_string()) {
        anyhow::bail!("not all databases were cleaned; what went is gone, and the rest is for the next time");
    }
    Ok(())
}
