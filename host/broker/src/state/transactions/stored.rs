//! Transactions in a snapshot: those that are open, where carried halves lie, and the outcomes that are remembered.

use super::*;

fn write_open(w: &mut Writer<'_>, transaction: HalfPosition, open: &OpenTransaction) {
    w.u64(transaction.0);
    w.u32(open.topic.0);
    w.u64(open.identity.0);
    w.u64(open.tag.0);
    w.u64(open.opened_at.0);
    w.option(open.overrides.first_ms, |w, ms| w.u32(ms));
    w.option(open.overrides.interval_ms, |w, ms| w.u32(ms));
    w.option(open.overrides.max, |w, max| w.u16(max));
    w.u32(open.checks);
    w.u64(open.next_due.0);
    w.option(open.parked.as_deref(), |w, parked| {
        w.text(&parked.reason);
        w.u8(parked.until_bound.into());
    });
    w.option(open.last_answer.as_deref(), |w, answer| {
        w.text(&answer.by);
        w.text(&answer.reason);
        w.u64(answer.at.0);
    });
    w.option(open.failure.as_deref(), |w, failure| {
        w.text(&failure.by);
        w.u32(failure.failures);
        w.text(&failure.error);
        w.text(&failure.trace);
        w.u64(failure.at.0);
    });
}

fn read_open(r: &mut Reader<'_>, version: u8) -> Result<(HalfPosition, OpenTransaction), DecodeError> {
    let transaction = HalfPosition(r.u64("transaction")?);
    let open = OpenTransaction {
        topic: TopicId(r.u32("topic")?),
        identity: Identity(r.u64("identity")?),
        tag: TagHash(r.u64("tag")?),
        opened_at: Millis(r.u64("opened at")?),
        overrides: CheckOverrides {
            first_ms: r.option("first check", |r| r.u32("first check"))?,
            interval_ms: r.option("interval", |r| r.u32("interval"))?,
            max: r.option("maximum of checks", |r| r.u16("maximum of checks"))?,
        },
        checks: r.u32("checks")?,
        next_due: Millis(r.u64("next due")?),
        parked: r.option("parked", |r| {
            let reason = r.text("parked")?.into();
            let until_bound = version >= 4 && r.flag("until bound")?;
            Ok(Box::new(Parked { reason, until_bound }))
        })?,
        last_answer: r.option("last answer", |r| {
            Ok(Box::new(LastAnswer {
                by: r.string("answered by")?,
                reason: r.string("reason")?,
                at: Millis(r.u64("answered at")?),
            }))
        })?,
        failure: match version {
            ..4 => None,
            _ => r.option("failure", |r| {
                Ok(Box::new(Failure {
                    by: r.string("failed by")?,
                    failures: r.u32("failures")?,
                    error: r.string("error")?,
                    trace: r.string("trace")?,
                    at: Millis(r.u64("failed at")?),
                }))
            })?,
        },
    };
    Ok((transaction, open))
}

impl Snapshot for TransactionTables {
    const SECTION: u16 = 4;
    const VERSION: u8 = 4;

    fn write(&self, w: &mut Writer<'_>) {
        w.varint(self.open.len() as u64);
        for (transaction, open) in self.open.iter(None) {
            write_open(w, transaction, open);
        }
        w.varint(self.carried.len() as u64);
        for (transaction, place) in &self.carried {
            w.u64(transaction.0);
            w.u64(place.0);
        }
        self.outcomes.0.write(w);
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let open =
            Box::new(MemoryTransactions::restore(r.list("open transactions", |r| read_open(r, source.version))?)?);
        let mut read = Self { open, ..Self::default() };
        if source.version >= 3 {
            for (transaction, place) in r.list("carried halves", |r| {
                Ok((HalfPosition(r.u64("transaction")?), RecordPosition(r.u64("place")?)))
            })? {
                if read.open.get(transaction).is_none() || place <= transaction.first_place() {
                    return Err(DecodeError::Value { field: "carried half", value: transaction.0 }.into());
                }
                read.carry(transaction, place);
            }
        }
        let outcomes = &mut read.outcomes;
        if source.version == 1 {
            let ended = r.list("outcomes", read_ended_v1)?;
            outcomes.0.restore(ended.len(), ended.into_iter().map(Ok::<_, DecodeError>))?;
        } else {
            outcomes.0.read(r, source)?;
        }
        Ok(read)
    }
}

/// An ended one as version 1 of the section had it.
fn read_ended_v1(r: &mut Reader<'_>) -> Result<(u64, Ended), DecodeError> {
    let (transaction, outcome) = (r.u64("transaction")?, outcome(r.u8("outcome")?.into())?);
    let (at, topic) = (Millis(r.u64("ended at")?), TopicId(r.u32("topic")?));
    Ok((
        transaction,
        Ended { outcome, at, topic, record: RecordPosition(r.u64("end record")?), checks: r.u32("checks")? },
    ))
}
