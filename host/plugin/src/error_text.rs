//! Texts of errors, cut to a size that fits into a record and a screen.

use wasmtime::WasmBacktrace;

/// Most bytes kept of an error's text.
pub(crate) const MAX_ERROR_TEXT: usize = 2048;

/// The error and its causes on one line, cut to [`MAX_ERROR_TEXT`].
pub(crate) fn describe(error: &wasmtime::Error) -> String {
    let mut text = format!("{error:#}");
    cut(&mut text, MAX_ERROR_TEXT);
    text
}

/// The error's causes without the place in the guest, which [`trace`] gives; cut as [`describe`] does.
pub(crate) fn without_trace(error: &wasmtime::Error) -> String {
    let trace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string);
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let causes = causes.iter().filter(|cause| trace.as_ref().is_none_or(|trace| !cause.contains(trace.as_str())));
    let mut text = causes.map(String::as_str).collect::<Vec<_>>().join(": ");
    if text.is_empty() {
        text = error.to_string();
    }
    cut(&mut text, MAX_ERROR_TEXT);
    text
}

/// Where in the guest an error happened, one frame a line, innermost first; cut as [`describe`] does.
pub(crate) fn trace(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let text = trace.to_string();
    // Around the frames stand a heading and at times a hint for developers of the engine.
    let frames = text.lines().skip(1).take_while(|line| !line.starts_with("note:")).map(str::trim_end);
    let mut text = frames.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
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
