//! After a restart: calls whose answer was lost are made again. Whatever had happened, the answers must fit together.

use anyhow::{bail, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use vouch_protocol::wire::{Code, TransactionResolution};
use vouch_tests::client::{Client, Outcome};

use crate::ledger::{Fate, Ledger, Line, NORMAL};
use crate::load::PRODUCER;

/// Ended transactions that are ended again each round, to see that a restart forgot no outcome.
const REPEATED_PER_ROUND: usize = 20;

/// Makes calls again, in a random choice of ways, and records what is now known.
pub(crate) async fn settle(address: &str, ledger: &Ledger, random: &mut StdRng) -> anyhow::Result<()> {
    let client = Client::new(address, PRODUCER)?;
    let all = ledger.all();
    for (id, line) in &all {
        match line.fate {
            Fate::SendUnknown if random.random_bool(0.5) => resend(&client, ledger, id, line).await?,
            Fate::RaceUnknown => race_again(&client, ledger, id, line).await?,
            Fate::CommitUnknown | Fate::RollbackUnknown => end_again(&client, ledger, id, line, random).await?,
            Fate::Open if random.random_bool(0.3) => end_open(&client, ledger, id, line, random).await?,
            _ => {}
        }
    }
    let ended: Vec<_> =
        all.iter().filter(|(_, line)| matches!(line.fate, Fate::Committed | Fate::RolledBack)).collect();
    for _ in 0..REPEATED_PER_ROUND.min(ended.len()) {
        let (id, line) = ended[random.random_range(0..ended.len())];
        end_twice(&client, id, line).await?;
    }
    Ok(())
}

/// The same message from the same client: stored once, whether the first one arrived or not (ruling 14).
async fn resend(client: &Client, ledger: &Ledger, id: &str, line: &Line) -> anyhow::Result<()> {
    match client.send(ledger.message(NORMAL, line.serial)).await {
        Outcome::Done(_) => ledger.record(id, Fate::Sent),
        other => bail!("sending {id} again: {other:?}"),
    }
    Ok(())
}

/// An end without an answer, made again: the same must be fine, the opposite tells which one the log has.
async fn end_again(client: &Client, ledger: &Ledger, id: &str, line: &Line, random: &mut StdRng) -> anyhow::Result<()> {
    let first = if line.fate == Fate::CommitUnknown { Fate::Committed } else { Fate::RolledBack };
    if random.random_bool(0.5) {
        ensure!(end(client, id, line, first).await? == Answer::Ended, "{id}: the same end again is a conflict");
        ledger.record(id, first);
    } else {
        match end(client, id, line, opposite(first)).await? {
            Answer::Ended => ledger.record(id, opposite(first)),
            Answer::Conflict => ledger.record(id, first),
        }
    }
    Ok(())
}

/// A rollback without an answer, made again: it won, or the component had.
async fn race_again(client: &Client, ledger: &Ledger, id: &str, line: &Line) -> anyhow::Result<()> {
    match end(client, id, line, Fate::RolledBack).await? {
        Answer::Ended => ledger.record(id, Fate::RolledBack),
        Answer::Conflict => ledger.record(id, Fate::Committed),
    }
    Ok(())
}

/// A half message whose acknowledgement came can be ended after any number of restarts.
async fn end_open(client: &Client, ledger: &Ledger, id: &str, line: &Line, random: &mut StdRng) -> anyhow::Result<()> {
    let fate = if random.random_bool(0.5) { Fate::Committed } else { Fate::RolledBack };
    ensure!(end(client, id, line, fate).await? == Answer::Ended, "{id}: the first end of an open one is a conflict");
    ledger.record(id, fate);
    Ok(())
}

/// The recorded outcome again is fine, the opposite a conflict (ruling 6).
async fn end_twice(client: &Client, id: &str, line: &Line) -> anyhow::Result<()> {
    ensure!(end(client, id, line, line.fate).await? == Answer::Ended, "{id}: a repeat of {:?} is refused", line.fate);
    let other = opposite(line.fate);
    ensure!(end(client, id, line, other).await? == Answer::Conflict, "{id} is {:?}, then {other:?}", line.fate);
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Ended,
    Conflict,
}

async fn end(client: &Client, id: &str, line: &Line, fate: Fate) -> anyhow::Result<Answer> {
    let resolution =
        if fate == Fate::Committed { TransactionResolution::Commit } else { TransactionResolution::Rollback };
    match client.end(line.topic, id, &line.transaction_id, resolution).await {
        Outcome::Done(()) => Ok(Answer::Ended),
        Outcome::Refused(Code::PreconditionFailed, _) => Ok(Answer::Conflict),
        other => bail!("ending {id} ({:?}) as {fate:?}: {other:?}", line.fate),
    }
}

fn opposite(fate: Fate) -> Fate {
    if fate == Fate::Committed { Fate::RolledBack } else { Fate::Committed }
}
