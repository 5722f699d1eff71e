//! Texts of errors, cut to a size that fits into a record and a screen.

/// Most bytes kept of an error's text.
pub(crate) const MAX_ERROR_TEXT: usize = 2048;

/// The error and its causes on one line, cut to [`MAX_ERROR_TEXT`].
pub(crate) fn describe(error: &wasmtime::Error) -> String {
    let mut text = format!("{error:#}");
    cut(&mut text, MAX_ERROR_TEXT);
    text
}

/// Shortens `text` to at most `most` bytes, on a character's edge, and marks the cut.
pub(crate) fn cut(text: &mut String, most: usize) {
    const MARK: &str = "…";
    if text.len() <= most {
        return;
    }
    let mut end = most.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(MARK);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_on_a_characters_edge_and_only_if_too_long() {
        for (given, most, expected) in [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc…"), ("ééé", 5, "é…")] {
            let mut text = given.to_owned();
            cut(&mut text, most);
            assert_eq!(text, expected);
        }
    }
}
