//! What is known of payments: noted by the consumer, asked for by the checkback.

use crate::bodies::{self, Order};
use crate::broker::Broker;

/// What a half message's transaction is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The order is paid for.
    Commit,
    /// It is not, for all that is known.
    Unknown(String),
}

/// The key under which a payment is noted.
pub fn key(order: &str) -> String {
    format!("paid:{order}")
}

/// Whether the order in a half message is paid for. Never a rollback: a payment may still come, and when nobody waits any longer is
/// for the topic's checks to say, after the last of which the transaction is parked for an operator.
///
/// # Errors
/// The broker cannot tell: no answer.
pub fn check(broker: &impl Broker, half: &[u8]) -> Result<Decision, String> {
    let order = match bodies::read::<Order>("order", half) {
        Ok(order) => order.order,
        Err(why) => return Ok(Decision::Unknown(why)),
    };
    Ok(match broker.get(&key(&order))? {
        Some(_) => Decision::Commit,
        None => Decision::Unknown(format!("order {order} is not paid for")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::testing::InMemory;

    const HALF: &[u8] = br#"{"order":"1001","items":[{"sku":"teapot","quantity":1}]}"#;

    #[test]
    fn an_order_that_is_paid_for_commits() {
        assert_eq!(check(&InMemory::with(&[("paid:1001", "01AB")]), HALF), Ok(Decision::Commit));
    }

    #[test]
    fn one_that_is_not_waits() {
        let broker = InMemory::with(&[("paid:1002", "01AB"), ("stock:1001", "1")]);
        assert_eq!(check(&broker, HALF), Ok(Decision::Unknown("order 1001 is not paid for".to_owned())));
    }

    #[test]
    fn a_half_message_that_is_no_order_waits_for_an_operator() {
        let Ok(Decision::Unknown(why)) = check(&InMemory::default(), b"teapot") else { panic!("nobody paid for it") };
        assert!(why.contains("no order"), "{why}");
    }

    #[test]
    fn without_the_brokers_word_there_is_no_answer() {
        let away = InMemory { is_away: true, ..InMemory::with(&[("paid:1001", "01AB")]) };
        assert_eq!(check(&away, HALF), Err("unavailable: no leader".to_owned()));
    }
}
