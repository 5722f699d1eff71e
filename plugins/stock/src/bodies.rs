//! What messages say.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Items of an order at most: each may change one key, of which one call writes 64.
pub const MAX_ITEMS: usize = 32;
/// Bytes of an order's or an item's name at most; a key of `state` has 512.
pub const MAX_NAME: usize = 255;

/// Goods that come, or so many of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub sku: String,
    /// How many; at least one.
    pub quantity: u32,
}

/// An order, and what is reserved for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub order: String,
    /// What is wanted; one at least.
    pub items: Vec<Item>,
}

/// A payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Number of the order that was paid for.
    pub order: String,
}

/// What an order waits for in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// Number of the order.
    pub order: String,
    /// What is missing.
    pub missing: Vec<Item>,
}

/// What a body has to be besides JSON of its shape.
pub trait Checked {
    /// # Errors
    /// What is wrong with it.
    fn check(&self) -> Result<(), String>;
}

impl Checked for Item {
    fn check(&self) -> Result<(), String> {
        name("sku", &self.sku)?;
        if self.quantity == 0 { Err(format!("`quantity` of {} is 0", self.sku)) } else { Ok(()) }
    }
}

impl Checked for Order {
    fn check(&self) -> Result<(), String> {
        name("order", &self.order)?;
        if !(1..=MAX_ITEMS).contains(&self.items.len()) {
            return Err(format!("it has {} `items`; it must have 1 to {MAX_ITEMS}", self.items.len()));
        }
        self.items.iter().try_for_each(Item::check)
    }
}

impl Checked for Payment {
    fn check(&self) -> Result<(), String> {
        name("order", &self.order)
    }
}

fn name(what: &str, name: &str) -> Result<(), String> {
    if (1..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("`{what}` has {} bytes; it must have 1 to {MAX_NAME}", name.len()))
}

/// Reads a body.
///
/// # Errors
/// Why it is none of `what`: nothing that a later delivery could change.
pub fn read<T: DeserializeOwned + Checked>(what: &str, body: &[u8]) -> Result<T, String> {
    let told = |why: String| format!("the body is no {what}: {why}");
    let body: T = serde_json::from_slice(body).map_err(|error| told(error.to_string()))?;
    body.check().map_err(told)?;
    Ok(body)
}

/// Writes a body.
pub fn write(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("names and numbers can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_and_written() {
        let text = r#"{"order":"1001","items":[{"sku":"teapot","quantity":2}]}"#;
        let order: Order = read("order", text.as_bytes()).unwrap();
        assert_eq!(order.items, [Item { sku: "teapot".to_owned(), quantity: 2 }]);
        assert_eq!(write(&order), text.as_bytes());
        // What else a shop says of its orders is no concern of this component.
        let more = r#"{"customer":7,"items":[{"quantity":1,"sku":"cup","price":3}],"order":"1002"}"#;
        assert_eq!(read::<Order>("order", more.as_bytes()).unwrap().order, "1002");
    }

    #[test]
    fn what_is_no_order_is_refused_with_the_reason() {
        let many = |items: usize| {
            let items = vec![r#"{"sku":"cup","quantity":1}"#; items].join(",");
            format!(r#"{{"order":"1","items":[{items}]}}"#)
        };
        let long = format!(r#"{{"order":"{}","items":[]}}"#, "x".repeat(MAX_NAME + 1));
        assert!(read::<Order>("order", many(MAX_ITEMS).as_bytes()).is_ok());
        for (text, word) in [
            ("teapot", "the body is no order: expected"),
            (r#"{"order":"1001"}"#, "items"),
            (r#"{"order":1001,"items":[]}"#, "string"),
            (r#"{"order":"","items":[]}"#, "`order` has 0 bytes"),
            (long.as_str(), "`order` has 256 bytes"),
            (many(0).as_str(), "0 `items`"),
            (many(MAX_ITEMS + 1).as_str(), "33 `items`"),
            (r#"{"order":"1","items":[{"sku":"cup","quantity":0}]}"#, "`quantity` of cup is 0"),
            (r#"{"order":"1","items":[{"sku":"cup","quantity":-1}]}"#, "-1"),
            (r#"{"order":"1","items":[{"sku":"","quantity":1}]}"#, "`sku`"),
        ] {
            let error = read::<Order>("order", text.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn payments_and_goods_are_held_to_the_same() {
        assert_eq!(read::<Payment>("payment", br#"{"order":"1001"}"#).unwrap().order, "1001");
        assert!(read::<Payment>("payment", br#"{"order":""}"#).unwrap_err().contains("no payment"));
        assert!(read::<Item>("item", br#"{"sku":"cup","quantity":0}"#).unwrap_err().contains("is 0"));
    }
}
