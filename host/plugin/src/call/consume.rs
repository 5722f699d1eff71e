//! A component is handed a message.

use wasmtime::{Store, component::Instance};

use super::{
    GuestQuestion,
    reading::{AnswerReader, not_exported},
};
use crate::{
    bindings::consumer,
    guest::CallState,
    guest_code::GuestCode,
    outcome::{ConsumerVerdict, GuestTexts, NoAnswer},
    question::ConsumerDelivery,
};

impl GuestQuestion for ConsumerDelivery {
    type Came = ConsumerVerdict;

    fn about(&self) -> String {
        self.delivery_key.clone()
    }

    fn asked_at_ms(&self) -> u64 {
        self.delivered_at_ms
    }

    fn stages(&self, _: &GuestCode) -> bool {
        true
    }

    async fn put(
        self,
        guest: &GuestCode,
        (store, instance): (&mut Store<CallState>, &Instance),
        reader: &AnswerReader,
    ) -> wasmtime::Result<Result<ConsumerVerdict, NoAnswer>> {
        let Some(consumer) = guest.consumer() else { return Ok(Err(not_exported("consumer"))) };
        let guest = consumer.load(&mut *store, instance)?;
        let answer = guest.call_consume(&mut *store, &to_wit(self, reader)).await?;
        Ok(match answer {
            Ok(outcome) => verdict(outcome, reader),
            Err(text) => Err(reader.guest_error(text)),
        })
    }

    fn keeps(came: &ConsumerVerdict) -> bool {
        !matches!(came, ConsumerVerdict::Retry { .. })
    }

    fn each_text(came: &mut ConsumerVerdict, each: &mut impl FnMut(&mut String)) {
        came.each_text(each);
    }
}

fn verdict(outcome: consumer::Outcome, reader: &AnswerReader) -> Result<ConsumerVerdict, NoAnswer> {
    Ok(match outcome {
        consumer::Outcome::Ack => ConsumerVerdict::Ack,
        consumer::Outcome::Retry(postponement) => {
            let (reason, retry_after) = reader.postponement(postponement)?;
            ConsumerVerdict::Retry { reason, retry_after }
        }
        consumer::Outcome::Reject(reason) => ConsumerVerdict::Reject(reader.text(reason)?),
    })
}

/// The delivery in the words of the WIT world.
fn to_wit(delivery: ConsumerDelivery, reader: &AnswerReader) -> consumer::Delivery {
    let ConsumerDelivery { delivery_key, message, group, delivered_at_ms, attempt, attempts_left } = delivery;
    let message = reader.message(message);
    consumer::Delivery { delivery_key, message, group, delivered_at: delivered_at_ms, attempt, attempts_left }
}
