//! A component is asked about a transaction, or about many where it takes them.

use std::collections::HashMap;

use wasmtime::{Store, component::Instance};

use super::{
    GuestQuestion,
    reading::{AnswerReader, not_exported},
};
use crate::{
    bindings::{checkback, checkback_batch, host::Level},
    error_text::cut,
    guest::CallState,
    guest_code::GuestCode,
    handed::takes,
    log::LogSource,
    outcome::{Checked, GuestTexts, NoAnswer, Verdict},
    question::Pending,
};

/// Bytes of a transaction's id that is shown though nobody asked about it.
const ID_SHOWN_BYTES: usize = 64;

/// What comes of it is in the order of asking.
impl GuestQuestion for Vec<Pending> {
    type Came = Vec<Checked>;

    fn about(&self) -> String {
        match self.as_slice() {
            [] => String::new(),
            [one] => one.transaction_id.clone(),
            [first, more @ ..] => format!("{} and {} more", first.transaction_id, more.len()),
        }
    }

    fn asked_at_ms(&self) -> u64 {
        self.iter().map(|each| each.asked_at_ms).max().unwrap_or(0)
    }

    fn stages(&self, guest: &GuestCode) -> bool {
        batch(self, guest).is_none()
    }

    async fn put(
        mut self,
        guest: &GuestCode,
        (store, instance): (&mut Store<CallState>, &Instance),
        reader: &AnswerReader,
    ) -> wasmtime::Result<Result<Vec<Checked>, NoAnswer>> {
        if let Some(many) = batch(&self, guest) {
            let asked = self.into_iter().map(|each| (each.transaction_id.clone(), to_wit(each, reader)));
            let (ids, asked): (Vec<_>, Vec<_>) = asked.unzip();
            let guest = many.load(&mut *store, instance)?;
            return match guest.call_check_many(&mut *store, &asked).await? {
                Ok(answers) => read_many(answers, &ids, reader).map(Ok),
                Err(text) => Ok(Err(reader.guest_error(text))),
            };
        }
        let Some(single) = guest.single() else { return Ok(Err(not_exported("checkback"))) };
        let Some(one) = self.pop() else { return Ok(Ok(Vec::new())) };
        let guest = single.load(&mut *store, instance)?;
        let answer = guest.call_check(&mut *store, &to_wit(one, reader)).await?;
        Ok(match answer {
            Ok(answer) => verdict(answer, reader).map(|verdict| vec![Checked::Answer(verdict)]),
            Err(text) => Err(reader.guest_error(text)),
        })
    }

    fn keeps(came: &Vec<Checked>) -> bool {
        matches!(came.as_slice(), [Checked::Answer(_)])
    }

    fn each_text(came: &mut Vec<Checked>, each: &mut impl FnMut(&mut String)) {
        came.iter_mut().for_each(|checked| checked.each_text(each));
    }
}

/// How these are asked about in one call; `None` where one is asked about alone.
fn batch<'a>(asked: &[Pending], guest: &'a GuestCode) -> Option<&'a checkback_batch::GuestIndices> {
    guest.batch().filter(|_| asked.len() > 1 || guest.single().is_none())
}

/// The answers of a batch, in the order of asking. One that is left out has none; what nobody asked about, and what was answered
/// already, is said in the log and means nothing.
///
/// # Errors
/// The answers together are more than a guest hands over at once.
fn read_many(
    answers: Vec<checkback_batch::Answer>,
    ids: &[String],
    reader: &AnswerReader,
) -> wasmtime::Result<Vec<Checked>> {
    takes(answers.iter().map(weight).sum())?;
    let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
    let mut checked: Vec<Option<Checked>> = vec![None; ids.len()];
    for checkback_batch::Answer { transaction_id, verdict: answer } in answers {
        let free =
            places.get(transaction_id.as_str()).and_then(|place| checked.get_mut(*place)).filter(|at| at.is_none());
        let Some(free) = free else {
            let mut id = transaction_id;
            cut(&mut id, ID_SHOWN_BYTES);
            let text = format!("an answer about {id:?} is ignored: nobody asked about it, or it came twice");
            reader.log.write(Level::Warn, LogSource::Host, text);
            continue;
        };
        *free = Some(verdict(answer, reader).map_or_else(Checked::NoAnswer, Checked::Answer));
    }
    Ok(checked.into_iter().map(|each| each.unwrap_or(Checked::NoAnswer(NoAnswer::LeftOut))).collect())
}

/// Bytes of text in an answer of a batch.
fn weight(answer: &checkback_batch::Answer) -> usize {
    let text = match &answer.verdict {
        checkback::Verdict::Commit => 0,
        checkback::Verdict::Rollback(reason) => reason.len(),
        checkback::Verdict::Unknown(postponement) => postponement.reason.len(),
    };
    answer.transaction_id.len() + text
}

fn verdict(verdict: checkback::Verdict, reader: &AnswerReader) -> Result<Verdict, NoAnswer> {
    Ok(match verdict {
        checkback::Verdict::Commit => Verdict::Commit,
        checkback::Verdict::Rollback(reason) => Verdict::Rollback(reader.text(reason)?),
        checkback::Verdict::Unknown(postponement) => {
            let (reason, retry_after) = reader.postponement(postponement)?;
            Verdict::Unknown { reason, retry_after }
        }
    })
}

/// The question in the words of the WIT world.
fn to_wit(pending: Pending, reader: &AnswerReader) -> checkback::Pending {
    let Pending { transaction_id, half, producer, opened_at_ms, asked_at_ms, check_number, checks_left } = pending;
    checkback::Pending {
        transaction_id,
        half: reader.message(half),
        producer,
        opened_at: opened_at_ms,
        asked_at: asked_at_ms,
        check_number,
        checks_left,
    }
}
