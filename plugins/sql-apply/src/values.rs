//! From a message to the parameters of a statement.
//!
//! | a parameter | becomes |
//! |---|---|
//! | `{json./POINTER}` alone | the value there: a string as text, a number as a number, `true`, `false`; an object or array as JSON text; `null`, or nothing at that place, as null |
//! | anything else | text, with all that is filled in |
//!
//! A whole number of 64 bits is an integer; any other of up to 15 digits a double, which has room for them all; a longer one is text
//! as it is written, for the database to read. What a message lacks is refused, since it will lack it whenever it is delivered.

use plugin_config::{Facts, MessageFacts, Template, json};

/// The names that may stand in braces: those of every consumer, and what is in the body.
pub const NAMES: &[&str] = &["key", "id", "topic", "tag", "delivery", "property.*", BODY, "json.*"];
/// The name that stands for the whole body.
const BODY: &str = "body";
/// Digits that every double keeps.
const EXACT_DIGITS: usize = 15;

/// The value of a parameter, in this crate's own words.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number, as exactly as it was written.
    Real(f64),
    /// Everything else; the database reads it as the type that it wants in its place.
    Text(String),
}

/// A message, as statements want it.
pub struct Message<'a> {
    /// All but its body.
    pub facts: MessageFacts<'a>,
    /// Its body.
    pub body: &'a [u8],
}

/// The pointer in a name that stands for a place in the body.
pub fn pointer(name: &str) -> Option<&str> {
    name.strip_prefix("json.")
}

/// Whether something in a parameter comes out of the body.
pub fn wants_body(param: &Template) -> bool {
    param.names().any(is_of_body)
}

fn is_of_body(name: &str) -> bool {
    name == BODY || pointer(name).is_some()
}

/// The value of a parameter for one message.
///
/// # Errors
/// What the message lacks, or what is wrong with its body.
pub fn value(param: &Template, message: &Message<'_>) -> Result<Value, String> {
    if let Some(pointer) = param.sole().and_then(pointer) {
        return json::find(message.text()?, pointer)?.map_or(Ok(Value::Null), typed);
    }
    let named = param.names().filter(|name| is_of_body(name));
    let of_body = named.map(|name| Ok((name, message.part(name, param.setting())?)));
    let facts = WithBody { facts: &message.facts, of_body: of_body.collect::<Result<_, String>>()? };
    let filled = param.fill(&facts, |_, value, filled| {
        filled.push_str(value);
        Ok(())
    });
    filled.map(Value::Text)
}

impl Message<'_> {
    fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(self.body).map_err(|error| format!("the body is no text in UTF-8: {error}"))
    }

    /// What of the body a name stands for, as text among other text.
    fn part(&self, name: &str, setting: &str) -> Result<String, String> {
        let Some(pointer) = pointer(name) else { return self.text().map(str::to_owned) };
        match json::find(self.text()?, pointer)? {
            None | Some("null") => Err(format!("the body has nothing at {pointer}, which `{setting}` wants")),
            Some(written) => Ok(json::string(written)?.unwrap_or_else(|| written.to_owned())),
        }
    }
}

/// What a message says besides its body, and what was read of that.
struct WithBody<'a> {
    facts: &'a MessageFacts<'a>,
    of_body: Vec<(&'a str, String)>,
}

impl Facts for WithBody<'_> {
    fn subject(&self) -> &'static str {
        self.facts.subject()
    }

    fn fact(&self, name: &str) -> Option<&str> {
        let read = self.of_body.iter().find(|(known, _)| *known == name);
        read.map(|(_, text)| text.as_str()).or_else(|| self.facts.fact(name))
    }
}

/// A plain JSON value as what it is, any other as its text.
fn typed(written: &str) -> Result<Value, String> {
    if let Some(text) = json::string(written)? {
        return Ok(Value::Text(text));
    }
    Ok(match written {
        "null" => Value::Null,
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        text if text.starts_with(['{', '[']) => Value::Text(text.to_owned()),
        number => number_of(number),
    })
}

fn number_of(written: &str) -> Value {
    if let Ok(whole) = written.parse() {
        return Value::Integer(whole);
    }
    let mantissa = written.split(['e', 'E']).next().unwrap_or_default();
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').collect();
    match written.parse::<f64>() {
        // Neither too large for a double nor so small that it became 0.
        Ok(real) if digits.len() <= EXACT_DIGITS && real.is_finite() && (real == 0.0) == digits.is_empty() => {
            Value::Real(real)
        }
        _ => Value::Text(written.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(param: &str, body: &str) -> Result<Value, String> {
        of_bytes(param, body.as_bytes())
    }

    fn of_bytes(param: &str, body: &[u8]) -> Result<Value, String> {
        let (keys, properties) =
            (["1001".to_owned()], [("region".to_owned(), "eu".to_owned()), ("note".to_owned(), String::new())]);
        let facts = MessageFacts {
            delivery_key: "d-7",
            keys: &keys,
            id: "01AB",
            topic: "orders",
            tag: None,
            properties: &properties,
        };
        value(&Template::parse("params", param, NAMES).unwrap(), &Message { facts, body })
    }

    fn text(text: &str) -> Result<Value, String> {
        Ok(Value::Text(text.to_owned()))
    }

    #[test]
    fn what_a_message_says_is_text() {
        for (param, expected) in [
            ("{key}", "1001"),
            ("{id}", "01AB"),
            ("{topic}", "orders"),
            ("{delivery}", "d-7"),
            ("{property.region}", "eu"),
            ("{property.note}", ""),
            ("NEW", "NEW"),
            ("", ""),
            ("o-{key}/{property.region}", "o-1001/eu"),
            ("{body}", r#"{"item":"teapot"}"#),
            ("got {body}", r#"got {"item":"teapot"}"#),
        ] {
            assert_eq!(of(param, r#"{"item":"teapot"}"#), text(expected), "{param}");
        }
        assert_eq!(of("{body}", "no JSON: 'x'; --"), text("no JSON: 'x'; --"));
    }

    #[test]
    fn a_place_in_the_body_keeps_its_type() {
        let body = r#"{"s":"tea \"x\" \u00e4","n":7,"t":true,"f":false,"z":null,"o":{"a": [1,2.50]},"l":["x",{"y":-3}],"a/b":1}"#;
        for (param, expected) in [
            ("{json./s}", Value::Text("tea \"x\" ä".to_owned())),
            ("{json./n}", Value::Integer(7)),
            ("{json./t}", Value::Boolean(true)),
            ("{json./f}", Value::Boolean(false)),
            ("{json./z}", Value::Null),
            ("{json./missing}", Value::Null),
            ("{json./n/deeper}", Value::Null),
            ("{json./o}", Value::Text(r#"{"a": [1,2.50]}"#.to_owned())),
            ("{json./l}", Value::Text(r#"["x",{"y":-3}]"#.to_owned())),
            ("{json./o/a/1}", Value::Real(2.5)),
            ("{json./l/1/y}", Value::Integer(-3)),
            ("{json./a~1b}", Value::Integer(1)),
        ] {
            assert_eq!(of(param, body), Ok(expected), "{param}");
        }
    }

    #[test]
    fn no_digit_of_a_number_is_lost() {
        for (written, expected) in [
            ("9223372036854775807", Value::Integer(i64::MAX)),
            ("-9223372036854775808", Value::Integer(i64::MIN)),
            ("9223372036854775808", Value::Text("9223372036854775808".to_owned())),
            ("-0", Value::Integer(0)),
            ("19.99", Value::Real(19.99)),
            ("1e3", Value::Real(1000.0)),
            ("0.0", Value::Real(0.0)),
            ("0.000000000000000000123456789012345", Value::Real(1.234_567_890_123_45e-19)),
            ("123456789012.345", Value::Real(123_456_789_012.345)),
            ("1234567890123.4567", Value::Text("1234567890123.4567".to_owned())),
            ("0.10000000000000000001", Value::Text("0.10000000000000000001".to_owned())),
            ("1e999", Value::Text("1e999".to_owned())),
            ("1e-999", Value::Text("1e-999".to_owned())),
        ] {
            assert_eq!(of("{json./n}", &format!(r#"{{"n":{written}}}"#)), Ok(expected), "{written}");
        }
    }

    #[test]
    fn among_other_text_a_place_in_the_body_is_text() {
        let body = r#"{"s":"tea","n":7.50,"z":null,"o":{"a":1}}"#;
        assert_eq!(of("{key}-{json./s}-{json./n}-{json./o}-{json./s}", body), text(r#"1001-tea-7.50-{"a":1}-tea"#));
        for place in ["/z", "/missing"] {
            let refused = of(&format!("a{{json.{place}}}"), body).unwrap_err();
            assert_eq!(refused, format!("the body has nothing at {place}, which `params` wants"));
        }
    }

    #[test]
    fn what_a_message_lacks_or_has_wrong_is_named() {
        assert_eq!(of("{tag}", "{}"), Err("the message has no tag, which `params` wants".to_owned()));
        assert_eq!(of("{property.Region}", "{}"), Err("the message has no Region, which `params` wants".to_owned()));
        for param in ["{json./a}", "x{json./a}"] {
            assert!(of(param, "<html>").unwrap_err().contains("not JSON"));
            assert!(of(param, r#"{"a":1,"a":2}"#).unwrap_err().contains("twice"));
            assert!(of_bytes(param, b"\xff").unwrap_err().contains("UTF-8"));
        }
        assert!(of_bytes("{body}", b"\xff").unwrap_err().contains("UTF-8"));
        assert_eq!(of_bytes("{key}", b"\xff"), text("1001"), "it is not read");
    }

    #[test]
    fn whether_the_body_is_wanted_is_known_before_it_is_read() {
        let wants = |param: &str| wants_body(&Template::parse("params", param, NAMES).unwrap());
        assert!(wants("{body}") && wants("a{json./b}{id}"));
        assert!(!wants("{key}") && !wants("body") && !wants("{property.body}"));
    }
}
