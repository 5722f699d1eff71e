//! One value out of a JSON document.

use plugin_config::json;

/// What a pointer leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A plain value as it would be written in `commit` and `rollback`: a string without its quotes; `true`, `false`,
    /// `null` and a number as the answer writes them, so that `1.0` is not `1` and no digit of a long number is lost.
    Value(String),
    /// An object or an array.
    NotPlain,
    /// There is no such place.
    Nothing,
}

/// Follows a JSON pointer (RFC 6901) that begins with `/` through a whole document.
///
/// # Errors
/// The document is not JSON, or can be read in two ways; see [`json::find`].
pub fn find(document: &str, pointer: &str) -> Result<Found, String> {
    let Some(written) = json::find(document, pointer)? else { return Ok(Found::Nothing) };
    Ok(match json::string(written)? {
        Some(text) => Found::Value(text),
        None if written.starts_with(['{', '[']) => Found::NotPlain,
        None => Found::Value(written.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Found, String> {
        Ok(Found::Value(text.to_owned()))
    }

    #[test]
    fn only_plain_values_have_a_word() {
        let document = r#"{"a":{"b":[10]},"c":"x"}"#;
        assert_eq!(find(document, "/c"), value("x"));
        assert_eq!(find(document, "/a/b/0"), value("10"));
        for pointer in ["/a", "/a/b"] {
            assert_eq!(find(document, pointer), Ok(Found::NotPlain), "{pointer}");
        }
        assert_eq!(find(document, "/b"), Ok(Found::Nothing));
        for wrong in ["<html>", r#"{"c":"\ud800"}"#, r#"{"c":1,"c":1}"#] {
            assert!(find(wrong, "/c").is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_as_the_answer_writes_them() {
        for (written, text) in [
            (r#""paid""#, "paid"),
            (r#""pa\u0069d""#, "paid"),
            (r#""\ud83d\ude00 \" \\ ü""#, "😀 \" \\ ü"),
            (r#""true""#, "true"),
            ("true", "true"),
            ("null", "null"),
            ("1", "1"),
            ("1.0", "1.0"),
            ("1e2", "1e2"),
            ("-0", "-0"),
            ("9007199254740993", "9007199254740993"),
            ("0.10000000000000000001", "0.10000000000000000001"),
            ("1e999", "1e999"),
        ] {
            assert_eq!(find(&format!(r#"{{"s": {written} }}"#), "/s"), value(text), "{written}");
        }
    }
}
