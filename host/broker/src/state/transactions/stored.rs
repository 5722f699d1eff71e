//! Transactions in a snapshot: those that are open, where carried halves lie, and the outcomes that are remembered.

use super::*;

fn write_open(w: &mut Writer<'_>, transaction: HalfPosition, open: &OpenTransaction) {
    let OpenTransaction {
        topic,
        identity,
        tag,
        opened_at,
        overrides: CheckOverrides { first_ms, interval_ms, max },
        checks,
        next_due,
        parked,
        last_answer,
        failure,
    } = open;
    w.u64(transaction.0);
    w.u32(topic.0);
    w.u64(identity.0);
    w.u64(tag.0);
    w.u64(opened_at.0);
    w.option(*first_ms, |w, ms| w.u32(ms));
    w.option(*interval_ms, |w, ms| w.u32(ms));
    w.option(*max, |w, max| w.u16(max));
    w.u32(*checks);
    w.u64(next_due.0);
    w.option(parked.as_deref(), |w, Parked { reason, until_bound }| {
        w.text(reason);
        w.u8((*until_bound).into());
    });
    w.option(last_answer.as_deref(), |w, LastAnswer { by, reason, at }| {
        w.text(by);
        w.text(reason);
        w.u64(at.0);
    });
    w.option(failure.as_deref(), |w, Failure { by, failures, error, trace, at }| {
        w.text(by);
        w.u32(*failures);
        w.text(error);
        w.text(trace);
        w.u64(at.0);
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

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { open, outcomes, carried, by_place: _ } = self;
        w.varint(open.len() as u64);
        for (transaction, open) in open.iter(None) {
            write_open(w, transaction, open);
        }
        w.varint(carried.len() as u64);
        for (transaction, place) in carried {
            w.u64(transaction.0);
            w.u64(place.0);
        }
        outcomes.0.write(w);
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
