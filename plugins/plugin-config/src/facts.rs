//! What is known of a message, by the names that templates give it.

/// Where the values of a template come from.
pub trait Facts {
    /// What they are facts of, as a sentence says it: `half message`.
    fn subject(&self) -> &'static str;

    /// The value that a name in braces stands for; `None`: it has none.
    fn fact(&self, name: &str) -> Option<&str>;
}

/// What a checkback knows: the half message and its transaction.
pub struct HalfFacts<'a> {
    /// Business keys of the message; the first one fills `{key}`.
    pub keys: &'a [String],
    /// Message id.
    pub id: &'a str,
    /// Transaction id.
    pub transaction: &'a str,
    /// Message properties.
    pub properties: &'a [(String, String)],
}

/// What a consumer knows: the message, and which delivery this is.
pub struct MessageFacts<'a> {
    /// Unique for this message and group, and the same for each delivery.
    pub delivery_key: &'a str,
    /// Business keys of the message; the first one fills `{key}`.
    pub keys: &'a [String],
    /// Message id.
    pub id: &'a str,
    /// Name of its topic, with its namespace if it has one.
    pub topic: &'a str,
    /// Its tag.
    pub tag: Option<&'a str>,
    /// Message properties.
    pub properties: &'a [(String, String)],
}

impl HalfFacts<'_> {
    /// The names that they answer to; `property.*` stands for each that begins so.
    pub const NAMES: &'static [&'static str] = &["key", "id", "transaction", "property.*"];
}

impl MessageFacts<'_> {
    /// The names that they answer to; `property.*` stands for each that begins so.
    pub const NAMES: &'static [&'static str] = &["key", "id", "topic", "tag", "delivery", "property.*"];
}

impl Facts for HalfFacts<'_> {
    fn subject(&self) -> &'static str {
        "half message"
    }

    fn fact(&self, name: &str) -> Option<&str> {
        match name {
            "key" => self.keys.first().map(String::as_str),
            "id" => Some(self.id),
            "transaction" => Some(self.transaction),
            _ => property(self.properties, name.strip_prefix("property.")?),
        }
    }
}

impl Facts for MessageFacts<'_> {
    fn subject(&self) -> &'static str {
        "message"
    }

    fn fact(&self, name: &str) -> Option<&str> {
        match name {
            "key" => self.keys.first().map(String::as_str),
            "id" => Some(self.id),
            "topic" => Some(self.topic),
            "tag" => self.tag,
            "delivery" => Some(self.delivery_key),
            _ => property(self.properties, name.strip_prefix("property.")?),
        }
    }
}

fn property<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
    properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name, with the property `region` for all that begin with `property.`.
    fn values<'a>(facts: &'a impl Facts, names: &[&'static str]) -> Vec<Option<&'a str>> {
        names.iter().map(|name| facts.fact(&name.replace('*', "region"))).collect()
    }

    #[test]
    fn all_names_are_answered_to_and_no_other() {
        let (keys, properties) = (["A-1".to_owned(), "A-2".to_owned()], [("region".to_owned(), "eu".to_owned())]);
        let half = HalfFacts { keys: &keys, id: "01AB", transaction: "0:4711", properties: &properties };
        assert_eq!(values(&half, HalfFacts::NAMES), [Some("A-1"), Some("01AB"), Some("0:4711"), Some("eu")]);
        let (topic, tag) = ("tenant/orders", Some("new"));
        let message =
            MessageFacts { delivery_key: "d-7", keys: &keys, id: "01AB", topic, tag, properties: &properties };
        let all = [Some("A-1"), Some("01AB"), Some("tenant/orders"), Some("new"), Some("d-7"), Some("eu")];
        assert_eq!(values(&message, MessageFacts::NAMES), all);
        for unknown in ["", "topic", "region", "property.", "property.Region", "keys"] {
            assert_eq!(half.fact(unknown), None, "{unknown}");
        }
        assert_eq!(message.fact("transaction"), None);
    }

    #[test]
    fn what_a_message_lacks_is_none() {
        let none = MessageFacts { delivery_key: "d", keys: &[], id: "1", topic: "t", tag: None, properties: &[] };
        assert_eq!((none.fact("key"), none.fact("tag"), none.fact("property.a")), (None, None, None));
    }
}
