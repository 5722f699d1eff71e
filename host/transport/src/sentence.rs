//! Why something is refused, in one sentence for the operator, bounded.

/// The most bytes of one.
pub const SENTENCE_MAX_BYTES: usize = 512;

/// The text, cut at the bound between two characters.
pub(crate) fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SENTENCE_MAX_BYTES));
    text
}

/// What the other said, made fit for one line of a log: it may be anybody.
pub(crate) fn heard(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SENTENCE_MAX_BYTES)]);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_cut_between_characters_and_stays_on_its_line() {
        assert_eq!(bounded("x".repeat(SENTENCE_MAX_BYTES)).len(), SENTENCE_MAX_BYTES);
        assert_eq!(bounded("x".repeat(SENTENCE_MAX_BYTES + 1)).len(), SENTENCE_MAX_BYTES);
        assert_eq!(bounded("ü".repeat(300)).len(), SENTENCE_MAX_BYTES);
        assert_eq!(bounded(format!("x{}", "ü".repeat(300))).len(), SENTENCE_MAX_BYTES - 1);
        assert_eq!(heard(b"two\nlines \x1b[31m \xff"), "two lines  [31m \u{fffd}");
        assert_eq!(heard(&[b'x'; 4000]).len(), SENTENCE_MAX_BYTES);
    }
}
