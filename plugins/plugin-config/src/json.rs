//! One place in a JSON document.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Follows a JSON pointer (RFC 6901) that begins with `/` through a whole document, to what is there as it is written: no digit
/// of a long number is lost. `None`: there is no such place.
///
/// # Errors
/// The document is not JSON, or an object on the way has the member twice: which of the two counts differs from reader to
/// reader (RFC 8259), so it says nothing.
pub fn find<'d>(document: &'d str, pointer: &str) -> Result<Option<&'d str>, String> {
    // All of it, so that what is cut off or followed by something else is found out wherever that is.
    let mut at: &RawValue = serde_json::from_str(document).map_err(not_json)?;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let step = Step { token: &token };
        let mut reader = serde_json::Deserializer::from_str(at.get());
        match step.deserialize(&mut reader).map_err(|error| error.to_string())? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at.get()))
}

/// A string as it is written, without its quotes and escapes; `None`: it is something else.
///
/// # Errors
/// It stands for no text: half of a surrogate pair.
pub fn string(written: &str) -> Result<Option<String>, String> {
    if written.starts_with('"') { serde_json::from_str(written).map(Some).map_err(not_json) } else { Ok(None) }
}

/// Whether a text is a JSON pointer to something in a document.
///
/// # Errors
/// A sentence for whoever wrote the binding.
pub fn check_pointer(setting: &str, text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("config `{setting}` is `{text}`: a JSON pointer begins with /, such as /status"));
    }
    if text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])) {
        return Ok(());
    }
    Err(format!("config `{setting}` is `{text}`: in a JSON pointer ~ is written ~0, and a / within a name ~1"))
}

fn not_json(error: serde_json::Error) -> String {
    format!("the body is not JSON: {error}")
}

/// One token of the pointer, taken into an object or an array; anything else has no inside.
struct Step<'t> {
    token: &'t str,
}

impl Step<'_> {
    /// The token as an index: digits without a leading zero.
    fn index(&self) -> Option<usize> {
        let canonical = self.token == "0" || !self.token.starts_with(['0', '+']);
        canonical.then(|| self.token.parse().ok()).flatten()
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<String>()? {
            if name != self.token {
                members.next_value::<IgnoredAny>()?;
            } else if found.replace(members.next_value()?).is_some() {
                return Err(A::Error::custom(format_args!("the member `{name}` is there twice")));
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (index, mut found, mut at) = (self.index(), None, 0);
        while let Some(item) = items.next_element()? {
            if index == Some(at) {
                found = Some(item);
            }
            at += 1;
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_leads_through_objects_and_arrays() {
        let document = r#" {"a":{"b":[10,{"c":"x"}],"d/e":1,"f~g":2,"":3},"0":true} "#;
        for (pointer, written) in
            [("/a/b/0", "10"), ("/a/b/1/c", r#""x""#), ("/a/d~1e", "1"), ("/a/f~0g", "2"), ("/a/", "3"), ("/0", "true")]
        {
            assert_eq!(find(document, pointer), Ok(Some(written)), "{pointer}");
        }
        for pointer in ["/b", "/a/b/2", "/a/b/01", "/a/b/+1", "/a/b/-", "/a/b/c", "/a/b/0/x", "/a/b/1/c/d", "/"] {
            assert_eq!(find(document, pointer), Ok(None), "{pointer}");
        }
        assert_eq!(find(document, "/a/b"), Ok(Some(r#"[10,{"c":"x"}]"#)));
        for scalar in ["1", "-1", "1.5", "true", "null", r#""a""#] {
            assert_eq!(find(scalar, "/a"), Ok(None), "{scalar}");
        }
    }

    #[test]
    fn strings_lose_their_quotes_and_escapes_and_nothing_else_does() {
        for (written, text) in [
            (r#""paid""#, Some("paid")),
            (r#""pa\u0069d""#, Some("paid")),
            (r#""\ud83d\ude00 \" \\ ü""#, Some("😀 \" \\ ü")),
            (r#""true""#, Some("true")),
            ("true", None),
            ("9007199254740993", None),
        ] {
            assert_eq!(string(written), Ok(text.map(str::to_owned)), "{written}");
        }
        assert!(string(r#""\ud800""#).is_err());
    }

    #[test]
    fn a_pointer_begins_with_a_slash_and_escapes_its_tildes() {
        for pointer in ["/", "/a/b", "/a~1b/~0"] {
            assert_eq!(check_pointer("field", pointer), Ok(()));
        }
        for pointer in ["", "a", "/a~b", "/~2", "/a~"] {
            assert!(check_pointer("field", pointer).unwrap_err().contains("`field`"), "{pointer}");
        }
    }

    #[test]
    fn a_member_that_is_there_twice_on_the_way_says_nothing() {
        for document in [
            r#"{"o":{"s":"paid","s":"paid"}}"#,
            r#"{"o":{"s":"paid","x":1,"s":"cancelled"}}"#,
            r#"{"o":{"s":"paid","\u0073":"cancelled"}}"#,
            r#"{"o":{"s":"paid"},"o":{"s":"paid"}}"#,
            r#"{"o":{"s":"paid"},"o":null}"#,
            r#"{"o":1,"o":{"s":"paid"}}"#,
        ] {
            let error = find(document, "/o/s").unwrap_err();
            assert!(error.contains("twice"), "{document}: {error}");
        }
        // Elsewhere it changes nothing, and case tells members apart.
        for document in [r#"{"x":1,"x":2,"o":{"s":"paid"}}"#, r#"{"o":{"s":"paid","S":"cancelled"}}"#] {
            assert_eq!(find(document, "/o/s"), Ok(Some(r#""paid""#)), "{document}");
        }
    }

    #[test]
    fn what_is_not_a_whole_json_document_says_nothing() {
        for document in [
            "",
            " ",
            "<html>",
            r#"{"s":"paid""#,
            r#"{"s":"paid"}}"#,
            r#"{"s":"paid"}{"s":"cancelled"}"#,
            r#"{"s":"paid"} x"#,
            r#"{"s":"paid",}"#,
            r#"{"s":NaN}"#,
            r#"{"s":Infinity}"#,
            r#"{"s":01}"#,
            r#"{"s":+1}"#,
            r#"{"s":.5}"#,
            r#"{"s":paid}"#,
            r#"{'s':'paid'}"#,
            r#"{s:"paid"}"#,
            r#"{"s":"paid"/**/}"#,
            "{\"s\":\"pa\nid\"}",
            r#"{"x":tru,"s":"paid"}"#,
        ] {
            assert!(find(document, "/s").is_err(), "{document}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep =
            |inner: &str| format!(r#"{{"x":{}{}{},"s":"paid"}}"#, "[".repeat(200_000), inner, "]".repeat(200_000));
        assert_eq!(find(&deep(""), "/s"), Ok(Some(r#""paid""#)));
        assert!(find(&deep("{"), "/s").is_err());
    }
}
