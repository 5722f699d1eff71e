//! The command line as a whole.

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::backup::{BackupArgs, RestoreArgs};
use crate::bench::{BenchCommand, PeerArgs};
use crate::binding::BindingCommand;
use crate::cluster::ClusterCommand;
use crate::demo::{DemoArgs, OrdersApiArgs, ServiceArgs, ShippingArgs};
use crate::group::GroupCommand;
use crate::log::LogCommand;
use crate::message::MessageCommand;
use crate::plugin::PluginCommand;
use crate::secret::SecretCommand;
use crate::serve::{COMPILE_COMPONENT, ConfigCommand, ServeArgs};
use crate::sql::SqlCommand;
use crate::topic::TopicCommand;
use crate::transaction::TransactionCommand;

/// A message broker that settles open transactions by itself. Official RocketMQ 5 clients talk to it unchanged.
#[derive(Debug, Parser)]
#[command(
    name = "vouch",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Start here:
  vouch demo     see an order survive the death of the service that took it
  vouch serve    run a node: gRPC on 127.0.0.1:8081, HTTP on 127.0.0.1:8080

Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: VouchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VouchCommand {
    /// Run a node.
    #[command(after_help = "\
Examples:
  vouch serve
  vouch serve --data-dir /var/lib/vouch --grpc-addr 0.0.0.0:8081 --insecure-grpc
  vouch serve --config vouch.toml

The addresses in use are written to endpoints.json in the data folder when the node is ready. Until then /healthz \
and /readyz answer on the HTTP port.

SIGTERM or SIGINT stops the node: what is in flight is finished first, within 10 seconds. SIGHUP reads certificate, \
key, HTTP token and names, and the log level anew; the log says what changed.")]
    Serve(Box<ServeArgs>),
    /// See what Vouch is for: a service, then the broker itself, dies at the worst moment, and the ledger adds up.
    #[command(after_help = "\
Examples:
  vouch demo --fast
  vouch demo --nodes 3

Needs nothing but this program; everything happens in a temporary folder. Exits with 1 if the ledger at the end does \
not add up. With 3 nodes the broker is a cluster, and the node that leads is killed, once between a half message and \
its commit: another one leads, and what was open is settled there.")]
    Demo(DemoArgs),
    /// Topics: create, list, show, update, delete.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Consumer groups: create, list, show, update, delete.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Components: push, list, show, tag, logs, delete.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Which component settles which topic or consumes for which group: set, list, show, test, pause, resume, state, delete.
    #[command(subcommand)]
    Binding(Box<BindingCommand>),
    /// Values that bindings name and nobody is shown: set, list, delete, rotate-key.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Fences in services' databases: fence-table, fence-clean.
    #[command(subcommand)]
    Sql(SqlCommand),
    /// Open, parked and ended transactions: list, show, commit, rollback, resume.
    #[command(subcommand)]
    Transaction(TransactionCommand),
    /// Single messages: send, receive, show, list.
    #[command(subcommand)]
    Message(MessageCommand),
    /// The log of a data folder: inspect, verify, dump; and of a running node: damage.
    #[command(subcommand)]
    Log(LogCommand),
    /// The nodes of a cluster: status, add, remove, replace, transfer-leader, finish-upgrade, certificates, recover.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Copy the data folder of a stopped or a running node.
    #[command(after_help = "\
Examples:
  vouch backup /mnt/backups/monday --data-dir /var/lib/vouch
  vouch backup /mnt/backups/monday --json

The node is neither stopped nor asked. In the backup is everything that was acknowledged more than 100 ms before the \
command; the log itself says what was durable. It is verified before the command ends, and is a backup only when \
backup.json is in it.

Keys of TLS certificates and the node's addresses are not in it. Keep it as safe as the node: it holds the messages.")]
    Backup(BackupArgs),
    /// Make a data folder of a backup, or verify one.
    #[command(after_help = "\
Examples:
  vouch restore /mnt/backups/monday --data-dir /var/lib/vouch
  vouch restore /mnt/backups/monday --check

Every file is compared with its digest, every entry of the log is verified, and the snapshot is read, before \
anything appears in the data folder. What is restored is a cluster of one in another life: nothing that it answers is taken for an answer of the original.")]
    Restore(RestoreArgs),
    /// Measure a node, beside servers that show what this machine can do: send, transaction, log.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Settings of a node: check.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The order service of the demo.
    #[command(hide = true)]
    DemoService(ServiceArgs),
    /// The orders API of the demo.
    #[command(hide = true)]
    DemoOrdersApi(OrdersApiArgs),
    /// The consumer of the demo.
    #[command(hide = true)]
    DemoShipping(ShippingArgs),
    /// Serves for measurements: answers at once, stores nothing.
    #[command(hide = true)]
    BenchNull(PeerArgs),
    /// Serves for measurements: one file, group commit, nothing else.
    #[command(hide = true)]
    BenchBare(PeerArgs),
    /// Compiles the component that a node hands over, within limits.
    #[command(name = COMPILE_COMPONENT, hide = true)]
    CompileComponent,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  vouch completions bash > /etc/bash_completion.d/vouch")]
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
}

impl VouchCommand {
    /// Whether `--json` was given, so that a failure is printed as a document too.
    pub(crate) fn prints_json(&self) -> bool {
        match self {
            Self::Topic(command) => command.json(),
            Self::Group(command) => command.json(),
            Self::Plugin(command) => command.json(),
            Self::Binding(command) => command.json(),
            Self::Secret(command) => command.json(),
            Self::Sql(command) => command.json(),
            Self::Transaction(command) => command.json(),
            Self::Message(command) => command.json(),
            Self::Log(command) => command.json(),
            Self::Cluster(command) => command.json(),
            Self::Backup(args) => args.json,
            Self::Restore(args) => args.json,
            Self::Bench(command) => command.json(),
            Self::Config(ConfigCommand::Check(args)) => args.json,
            Self::Serve(_) | Self::Demo(_) | Self::Completions { .. } => false,
            Self::BenchNull(_) | Self::BenchBare(_) | Self::CompileComponent => false,
            Self::DemoService(_) | Self::DemoOrdersApi(_) | Self::DemoShipping(_) => false,
        }
    }
}

/// Prints the completion script.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vouch", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Lines of a text that end where the next word would have fit; examples, which are indented, end where they like.
    fn ragged(text: &str, width: usize) -> Vec<&str> {
        let lines: Vec<&str> = text.lines().collect();
        let is_ragged = |pair: &&[&str]| {
            let [line, next] = pair else { return false };
            let of_one_paragraph =
                !line.is_empty() && !line.ends_with(':') && !next.is_empty() && !next.starts_with(' ');
            let word = next.split(' ').next().unwrap_or_default();
            of_one_paragraph && line.chars().count() + 1 + word.chars().count() <= width
        };
        lines.windows(2).filter(is_ragged).map(|pair| pair[0]).collect()
    }

    #[test]
    fn help_fits_its_width_and_breaks_no_line_before_it_is_full() {
        fn walk(command: &clap::Command, width: usize) {
            let name = command.get_name();
            for help in [command.clone().render_help(), command.clone().render_long_help()] {
                let help = help.to_string();
                let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > width).collect();
                assert!(long.is_empty(), "{name} at {width}: {long:#?}");
            }
            // What the text is wrapped to stands at the end of the help.
            let source = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = command.clone().render_help().to_string();
            let closing =
                source.lines().next().map_or("", |first| &help[help.rfind(first).expect("the help ends with it")..]);
            assert_eq!(ragged(closing, width), Vec::<&str>::new(), "{name} at {width}");
            for example in source.lines().filter(|line| line.starts_with(' ')) {
                assert!(closing.lines().any(|line| line == example), "{name} at {width} breaks: {example}");
            }
            command.get_subcommands().filter(|below| !below.is_hide_set()).for_each(|below| walk(below, width));
        }
        for width in [80, 100] {
            let mut cli = Cli::command().term_width(width);
            cli.build();
            walk(&cli, width);
        }
    }

    #[test]
    fn every_visible_command_shows_an_example_or_lists_its_own() {
        fn walk(command: &clap::Command) {
            let leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                !leaf || command.is_hide_set() || help.contains("Example"),
                "{} has no example",
                command.get_name()
            );
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
