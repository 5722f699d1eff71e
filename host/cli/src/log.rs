//! `vouch log`: the log of a data folder, of a stopped or a running node, looked at without a change.
//!
//! The folder is read without a lock, so that a running node can be looked at; what it writes meanwhile may be seen
//! half written, and is then told as a tail, never as damage.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use vouch_broker::ShardId;
use vouch_broker::record::{Frame, Record, Settled, decode_stored};
use vouch_commitlog::{DumpError, Entry, EntryKind, LogFolder, LogPosition, Verification};
use vouch_storage::{Known, ShardFolder, StoredCopies, newest_bound, verify_snapshots};

use crate::config::DATA_DIR;
use crate::damage;
use crate::escape;
use crate::failure::ProblemAnswer;
use crate::http::HttpArgs;
use crate::log_damage::Looked;
use crate::log_pieces::{describe, file_name, hex, range_json, segment_json};
use crate::output::{self, TextTable};

/// A record's text is cut here: a piece of a component has megabytes.
const TEXT_MAX: usize = 400;

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// List the segments: what they hold, by the headers of their entries.
    #[command(after_help = "Example:\n  vouch log inspect --data-dir /var/lib/vouch")]
    Inspect(FolderArgs),
    /// Read and verify every byte, of the snapshots too, and tell damage from a torn tail as a start would.
    #[command(after_help = "\
Examples:
  vouch log verify
  vouch log verify --data-dir /var/lib/vouch --json

That messages are missing which are not past their retention, because the log's first segments were removed, is damage, too. \
Snapshots and their parts lie in the folder twice: a copy that is damaged is repairable where the other one is \
whole, or where an older snapshot and the log say the same, and lost otherwise. A start repairs copies, and the \
scrubber of a running node.

Nothing is changed here. Exits with 1 if anything is damaged. On the folder of a running node the tail is what is \
being written, and a copy that seems damaged is looked at again for some seconds: the node may be making it again.")]
    Verify(FolderArgs),
    /// Print entries and their records.
    #[command(after_help = "\
Examples:
  vouch log dump --limit 20
  vouch log dump --from 4096 --to 65536 --json | jq .

Secrets that are written into bindings are shown as ***; in the log itself they are readable.")]
    Dump(DumpArgs),
    /// Show what a running node knows to be damaged in its log, and which messages were in it.
    #[command(after_help = "\
Examples:
  vouch log damage
  vouch log damage --http 127.0.0.1:8080 --json | jq .damage

A node that serves a damaged log read-only knows all of it (vouch serve --on-damage read-only), any other what its \
scrubber has found since it started. Exits with 1 if anything is damaged.")]
    Damage(HttpArgs),
}

/// Which data folder is read.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// Data folder of the node.
    #[arg(long, env = "VOUCH_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which entries are printed. Positions are bytes since the log began, as `vouch log inspect` shows them.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Begin with the entry that lies at this position or ends behind it.
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    from: u64,
    /// Stop before the first entry that begins at this position or behind it.
    #[arg(long, value_name = "POSITION", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Stop after so many entries.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Print message bodies too.
    #[arg(long)]
    bodies: bool,
}

impl LogCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Inspect(folder) | Self::Verify(folder) => folder.json,
            Self::Dump(dump) => dump.folder.json,
            Self::Damage(http) => http.json,
        }
    }
}

/// Runs `vouch log`.
pub(crate) fn run(command: LogCommand) -> anyhow::Result<()> {
    match command {
        LogCommand::Inspect(args) => inspect(&args),
        LogCommand::Verify(args) => verify(&args),
        LogCommand::Dump(args) => dump(&args),
        LogCommand::Damage(http) => damage::show(&http),
    }
}

/// The log in a data folder.
///
/// # Errors
/// There is none, or its first segment cannot be read.
fn open(args: &FolderArgs) -> anyhow::Result<LogFolder> {
    let folder = ShardFolder::of(&args.data_dir, ShardId::FIRST).log();
    if !folder.is_dir() {
        return Err(ProblemAnswer::local(
            "no-log",
            &format!("there is no log in {}", args.data_dir.display()),
            "name the data folder of a node with --data-dir".to_owned(),
        ));
    }
    LogFolder::open(&folder).with_context(|| format!("the log in {} cannot be read", folder.display()))
}

/// Lists the segments, by the headers of their entries alone: quick, and no proof that what lies between them is whole.
fn inspect(args: &FolderArgs) -> anyhow::Result<()> {
    let folder = open(args)?;
    let (identity, segments) = (folder.identity(), folder.segments()?);
    if args.json {
        let cluster_id = hex(&identity.cluster_id);
        let segments: Vec<Value> = segments.iter().map(segment_json).collect();
        return Ok(output::json(&json!({
            "cluster_id": cluster_id,
            "shard": identity.shard,
            "segment_size": identity.segment_size,
            "segments": segments,
        }))?);
    }
    output::line(format_args!(
        "cluster {}, shard {}, segments of {} bytes",
        hex(&identity.cluster_id),
        identity.shard,
        identity.segment_size
    ))?;
    let mut table =
        TextTable::new(&["FILE", "HEADER", ">ENTRIES", ">FIRST", ">LAST", ">USED", ">PREPARED", ">DURABLE MARK"]);
    for segment in &segments {
        let index = |index: Option<u64>| index.map_or_else(|| "-".to_owned(), |index| index.to_string());
        table.row([
            file_name(&segment.file),
            if segment.header_sound { "sound" } else { "damaged" }.to_owned(),
            segment.entries.to_string(),
            index(segment.first_index),
            index(segment.last_index),
            segment.used_bytes.to_string(),
            segment.prepared_bytes.to_string(),
            segment.durable_mark.0.to_string(),
        ]);
    }
    Ok(table.print()?)
}

/// Reads every byte of the log and of the snapshots, and says whether a start would serve all of it.
///
/// # Errors
/// Anything is damaged, or missing: [`Looked::failure`]. Or something cannot be read.
fn verify(args: &FolderArgs) -> anyhow::Result<()> {
    let folder = open(args)?;
    let bar = progress_bar();
    let unreadable = || format!("the snapshots in {} cannot be read", args.data_dir.display());
    let known = Known::of_log(&args.data_dir, folder.identity())?;
    let folder = known.look_at(folder);
    let verification = folder.verify(known.durable, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    let verification = verification?;
    let copies = verify_snapshots(&args.data_dir, verification.start, &mut |_| ()).with_context(unreadable)?;
    let newest = newest_bound(&args.data_dir).with_context(unreadable)?;
    let looked = Looked { verification, copies, newest };
    if !looked.is_sound() {
        return Err(looked.failure());
    }
    if args.json {
        return Ok(output::json(&looked.json())?);
    }
    let Looked { verification, copies, .. } = looked;
    let Verification { entries, start, end, durable, tail, .. } = &verification;
    output::line(format_args!("sound: {entries} entries at positions {start} to {end}, durable up to {durable}"))?;
    if let Some(tail) = tail {
        output::line(format_args!(
            "behind the end: {} bytes that were never acknowledged ({}); a start cuts them, a running node is writing them",
            tail.bytes, tail.reason
        ))?;
    }
    let StoredCopies { files, to_be_made, .. } = &copies;
    output::line(format_args!("snapshots: {files} files are as they were written"))?;
    if !to_be_made.is_empty() {
        let count = to_be_made.len();
        output::line(format_args!("{count} of them have no second copy yet: the next start makes it"))?;
    }
    Ok(())
}

/// A bar for the person who waits; nothing where nobody does.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn dump(args: &DumpArgs) -> anyhow::Result<()> {
    let folder = open(&args.folder)?;
    let mut left = args.limit;
    for item in folder.entries(LogPosition(args.from), LogPosition(args.to))? {
        if left == 0 {
            break;
        }
        match item {
            Ok(entry) => {
                left -= 1;
                print_entry(&entry, args)?;
            }
            Err(DumpError::Damaged(range)) if args.folder.json => {
                output::json_line(&json!({"damage": range_json(&range)}))?
            }
            Err(DumpError::Damaged(range)) => output::line(format_args!("DAMAGED {}", describe(&range)))?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn print_entry(entry: &Entry, args: &DumpArgs) -> anyhow::Result<()> {
    let records = records(entry, args.bodies);
    let kind = match entry.kind {
        EntryKind::Records => "records",
        EntryKind::Mark => "mark",
        EntryKind::Members => "members",
    };
    let time = UNIX_EPOCH + Duration::from_millis(entry.leader_time_ms);
    let time = humantime::format_rfc3339_millis(time);
    if args.folder.json {
        let records: Vec<Value> =
            records.into_iter().map(|(position, text)| json!({"position": position, "record": text})).collect();
        return Ok(output::json_line(&json!({
            "position": entry.position.0,
            "end": entry.end.0,
            "index": entry.index,
            "term": entry.term,
            "time": time.to_string(),
            "kind": kind,
            "records": records,
        }))?);
    }
    output::line(format_args!("{} index {} term {} {time} {kind}", entry.position, entry.index, entry.term))?;
    records
        .iter()
        .try_for_each(|(position, text)| output::line(format_args!("  {position} {}", escape::line(text))))?;
    Ok(())
}

/// The records of an entry with their positions, as people read them.
fn records(entry: &Entry, bodies: bool) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < entry.payload.len() {
        let position = entry.payload_position.0 + at as u64;
        let rest = entry.payload.slice(at..);
        match Frame::split(&rest) {
            Ok((frame, _)) => {
                at += frame.record_len() as usize;
                found.push((position, record(&frame, &rest, bodies)));
            }
            Err(error) => {
                found.push((position, format!("unreadable: {error}")));
                break;
            }
        }
    }
    found
}

fn record(frame: &Frame<'_>, bytes: &bytes::Bytes, bodies: bool) -> String {
    let text = match Record::decode(frame) {
        Err(error) => return format!("kind {} version {}: {error}", frame.kind(), frame.version()),
        Ok(Record::Message(_) | Record::Half(_)) => return message(bytes, bodies),
        // The key with which handles are signed is nobody's business.
        Ok(Record::ClusterInit(init)) => format!(
            "ClusterInit {{ cluster_id: {}, segment_size: {}, feature_level: {}, written_by: {:?} }}",
            hex(&init.cluster_id),
            init.segment_size,
            init.feature_level,
            init.written_by
        ),
        Ok(Record::ClusterBegunAnew(anew)) => format!(
            "ClusterBegunAnew {{ incarnation: {}, node: {}, since: {}, written_by: {:?} }}",
            anew.incarnation, anew.node, anew.since.0, anew.written_by
        ),
        // What a binding keeps from others is nobody's business here either.
        Ok(Record::BindingPut(mut put)) => {
            put.spec = without_secrets(&put.spec);
            format!("{put:?}")
        }
        // First what was decided, which a long list of what was staged would push out of the line.
        Ok(Record::Settled(Settled { outbox, head, binding, created, kept })) => format!(
            "Settled {{ binding: {binding:?}, created: {created}, head: {head:?}, kept: {kept:?}, outbox: {outbox:?} }}"
        ),
        Ok(record) => format!("{record:?}"),
    };
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], frame.record_len()),
        None => text,
    }
}

/// A binding's document as it may be shown.
fn without_secrets(spec: &str) -> String {
    match serde_json::from_str(spec) {
        Ok(mut document) => {
            vouch_node::mask_document(&mut document);
            document.to_string()
        }
        Err(_) => format!("({} bytes that are not JSON)", spec.len()),
    }
}

fn message(bytes: &bytes::Bytes, bodies: bool) -> String {
    let (head, stored) = match decode_stored(bytes) {
        Ok(decoded) => decoded,
        Err(error) => return format!("a message that cannot be read: {error}"),
    };
    let message = stored.message;
    let tag = message.tag.map(|tag| format!(" tag {tag}")).unwrap_or_default();
    let keys = if message.keys.is_empty() { String::new() } else { format!(" keys {}", message.keys.join(",")) };
    let body = if bodies { format!(": {}", String::from_utf8_lossy(&message.body)) } else { String::new() };
    format!(
        "{:?} {} topic {} queue {}{tag}{keys} from {} {} bytes{body}",
        message.kind,
        message.message_id,
        head.topic.0,
        head.queue,
        stored.producer,
        message.body.len()
    )
}
