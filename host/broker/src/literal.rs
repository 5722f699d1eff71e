//! Sentences and words of the program itself, where another node says them: each is kept once, for good.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Deserializer};

/// A sentence, or a word, that stands in the program.
pub(crate) type Literal = &'static str;

/// Different ones that are kept; the program has fewer.
const KEPT_MAX: usize = 4096;
/// The most bytes of one.
const BYTES_MAX: usize = 512;
/// What stands for one that finds no room: then another program speaks.
const UNKNOWN: Literal = "(of another version)";

/// Reads one.
///
/// # Errors
/// It is no text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Literal, D::Error> {
    Ok(kept(String::deserialize(deserializer)?))
}

fn kept(text: String) -> Literal {
    static KEPT: Mutex<Option<HashSet<Literal>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    match kept.get(text.as_str()) {
        Some(known) => known,
        None if kept.len() >= KEPT_MAX || text.len() > BYTES_MAX => UNKNOWN,
        None => {
            let text: Literal = Box::leak(text.into_boxed_str());
            kept.insert(text);
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_once_and_what_the_program_never_says_is_not() {
        let (one, again) = (kept("a sentence".to_owned()), kept("a sentence".to_owned()));
        assert_eq!(one, "a sentence");
        assert!(std::ptr::eq(one, again));
        assert_eq!(kept("x".repeat(BYTES_MAX + 1)), UNKNOWN);
        let read = serde_json::from_str::<NotBuiltWord>(r#"{"word":"b"}"#).unwrap();
        assert_eq!(read.word, "b");
    }

    #[derive(Deserialize)]
    struct NotBuiltWord {
        #[serde(deserialize_with = "deserialize")]
        word: Literal,
    }
}
