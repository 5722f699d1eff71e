//! What is done about a message: goods are put on the shelf, payments noted, orders served.

use crate::{
    bodies::{self, Item, Order, Payment, Shortage},
    broker::{Broker, Draft},
    payment,
    settings::Settings,
};

/// A message, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// What becomes of the message.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, with all that was written and published.
    Ack,
    /// It says nothing that can be done, for this reason.
    Reject(String),
}

/// Does what a message asks for.
///
/// # Errors
/// The broker does not keep or take what is to be: the delivery failed.
pub fn consume(settings: &Settings, broker: &mut impl Broker, message: Received<'_>) -> Result<Outcome, String> {
    let Received { topic, id, body } = message;
    let done = if topic == settings.goods {
        bodies::read("item", body).map(|item| put(broker, &item))
    } else if topic == settings.payments {
        bodies::read("payment", body).map(|payment| note(settings, broker, &payment, id))
    } else {
        bodies::read("order", body).map(|order| serve(settings, broker, &order))
    };
    match done {
        Ok(done) => done.map(|()| Outcome::Ack),
        Err(why) => Ok(Outcome::Reject(why)),
    }
}

/// The key under which the number of an item is kept.
fn key(sku: &str) -> String {
    format!("stock:{sku}")
}

fn put(broker: &mut impl Broker, item: &Item) -> Result<(), String> {
    broker.add(&key(&item.sku), i64::from(item.quantity)).map(|_| ())
}

/// Notes a payment, with the message that told of it.
fn note(settings: &Settings, broker: &mut impl Broker, payment: &Payment, id: &str) -> Result<(), String> {
    broker.set(&payment::key(&payment.order), id.as_bytes(), settings.keep_payments_ms)
}

/// Reserves all that an order wants, or nothing.
///
/// All is taken first, and put back where something is missing: nobody sees the shelf in between, for what a call writes happens at
/// once when it answers. One that took from the same shelf meanwhile makes the broker run this call again.
fn serve(settings: &Settings, broker: &mut impl Broker, order: &Order) -> Result<(), String> {
    let mut missing = Vec::new();
    for item in &order.items {
        let left = broker.add(&key(&item.sku), -i64::from(item.quantity))?;
        let lacking = u32::try_from(-left).unwrap_or(0).min(item.quantity);
        if lacking > 0 {
            missing.push(Item { sku: item.sku.clone(), quantity: lacking });
        }
    }
    let (topic, body) = if missing.is_empty() {
        (&settings.reservations, bodies::write(order))
    } else {
        order.items.iter().try_for_each(|item| put(broker, item))?;
        (&settings.short, bodies::write(&Shortage { order: order.order.clone(), missing }))
    };
    broker.publish(Draft { topic: topic.clone(), key: order.order.clone(), body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::testing::InMemory;

    fn settings() -> Settings {
        Settings::read(|_| None).unwrap()
    }

    fn receive(broker: &mut InMemory, topic: &str, body: &str) -> Result<Outcome, String> {
        consume(&settings(), broker, Received { topic, id: "01AB", body: body.as_bytes() })
    }

    /// What was published, as topic, key and text.
    fn published(broker: &InMemory) -> Vec<(&str, &str, &str)> {
        broker
            .published
            .iter()
            .map(|each| (each.topic.as_str(), each.key.as_str(), std::str::from_utf8(&each.body).unwrap()))
            .collect()
    }

    #[test]
    fn goods_are_added_up() {
        let mut broker = InMemory::default();
        for quantity in [3, 4] {
            let body = format!(r#"{{"sku":"teapot","quantity":{quantity}}}"#);
            assert_eq!(receive(&mut broker, "goods", &body), Ok(Outcome::Ack));
        }
        assert_eq!(broker.all(), [("stock:teapot", "7")]);
        assert!(broker.published.is_empty());
    }

    #[test]
    fn a_payment_is_noted_for_a_week() {
        let mut broker = InMemory::default();
        assert_eq!(receive(&mut broker, "payments", r#"{"order":"1001"}"#), Ok(Outcome::Ack));
        assert_eq!(broker.all(), [("paid:1001", "01AB for 604800000 ms")]);
    }

    #[test]
    fn an_order_takes_from_the_shelf_and_is_announced() {
        let mut broker = InMemory::with(&[("stock:cup", "9"), ("stock:teapot", "2")]);
        let order = r#"{"order":"1001","items":[{"sku":"teapot","quantity":2},{"sku":"cup","quantity":4}]}"#;
        assert_eq!(receive(&mut broker, "orders", order), Ok(Outcome::Ack));
        assert_eq!(broker.all(), [("stock:cup", "5"), ("stock:teapot", "0")]);
        assert_eq!(published(&broker), [("reservations", "1001", order)]);
    }

    #[test]
    fn an_order_that_cannot_be_served_takes_nothing_and_says_what_is_missing() {
        let mut broker = InMemory::with(&[("stock:cup", "9"), ("stock:teapot", "2")]);
        let order = r#"{"order":"1002","items":[{"sku":"cup","quantity":4},{"sku":"teapot","quantity":5},{"sku":"tray","quantity":1}]}"#;
        assert_eq!(receive(&mut broker, "orders", order), Ok(Outcome::Ack));
        assert_eq!(broker.all(), [("stock:cup", "9"), ("stock:teapot", "2"), ("stock:tray", "0")]);
        let missing = r#"{"order":"1002","missing":[{"sku":"teapot","quantity":3},{"sku":"tray","quantity":1}]}"#;
        assert_eq!(published(&broker), [("stock-short", "1002", missing)]);
    }

    #[test]
    fn an_item_that_is_named_twice_is_taken_twice() {
        let order = r#"{"order":"1","items":[{"sku":"cup","quantity":3},{"sku":"cup","quantity":2}]}"#;
        let mut enough = InMemory::with(&[("stock:cup", "5")]);
        receive(&mut enough, "orders", order).unwrap();
        assert_eq!((enough.all(), published(&enough)[0].0), (vec![("stock:cup", "0")], "reservations"));
        let mut short = InMemory::with(&[("stock:cup", "2")]);
        receive(&mut short, "orders", order).unwrap();
        assert_eq!(short.all(), [("stock:cup", "2")]);
        let missing = r#"{"order":"1","missing":[{"sku":"cup","quantity":1},{"sku":"cup","quantity":2}]}"#;
        assert_eq!(published(&short)[0].2, missing);
    }

    #[test]
    fn topics_are_called_as_the_binding_says() {
        let settings = Settings::read(|name| Some(format!("eu/{name}")).filter(|_| name != "keep-payments")).unwrap();
        let mut broker = InMemory::default();
        let mut receive = |topic: &str, body: &str| {
            let received = Received { topic, id: "01AB", body: body.as_bytes() };
            assert_eq!(consume(&settings, &mut broker, received), Ok(Outcome::Ack), "{topic}");
        };
        receive("eu/goods", r#"{"sku":"cup","quantity":1}"#);
        receive("eu/payments", r#"{"order":"1"}"#);
        // Whatever is no other topic has orders.
        receive("goods", r#"{"order":"1","items":[{"sku":"cup","quantity":1}]}"#);
        receive("eu/orders", r#"{"order":"2","items":[{"sku":"cup","quantity":1}]}"#);
        assert_eq!(broker.all(), [("paid:1", "01AB for 604800000 ms"), ("stock:cup", "0")]);
        let topics: Vec<&str> = published(&broker).iter().map(|(topic, ..)| *topic).collect();
        assert_eq!(topics, ["eu/reservations", "eu/short"]);
    }

    #[test]
    fn what_says_nothing_that_can_be_done_is_rejected_and_changes_nothing() {
        for (topic, word) in
            [("goods", "no item"), ("payments", "no payment"), ("orders", "no order"), ("else", "no order")]
        {
            let mut broker = InMemory::default();
            match receive(&mut broker, topic, r#"{"quantity":1}"#) {
                Ok(Outcome::Reject(why)) => assert!(why.contains(word), "{topic}: {why}"),
                other => panic!("{topic}: {other:?}"),
            }
            assert!(broker.all().is_empty() && broker.published.is_empty());
        }
    }

    #[test]
    fn without_the_broker_the_delivery_fails() {
        let order = r#"{"order":"1","items":[{"sku":"cup","quantity":3}]}"#;
        for (topic, body) in [("goods", r#"{"sku":"cup","quantity":1}"#), ("payments", order), ("orders", order)] {
            let mut away = InMemory { is_away: true, ..InMemory::default() };
            assert_eq!(receive(&mut away, topic, body), Err("unavailable: no leader".to_owned()), "{topic}");
        }
    }
}
