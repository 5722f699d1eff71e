//! Texts of errors, cut to a size that fits into a record and a screen.

use std::fmt;

use wasmtime::{FrameInfo, WasmBacktrace};

/// Most bytes kept of an error's text.
pub(crate) const MAX_ERROR_TEXT: usize = 2048;

/// Most bytes kept of what a guest wrote to standard error before it trapped: the text of a panic.
pub(crate) const MAX_PANIC_TEXT: usize = 16 << 10;
/// Most bytes of a trace.
const MAX_TRACE: usize = MAX_FRAMES * (MAX_FRAME_NAME + 8);
/// What the engine's text of a backtrace begins with.
const BACKTRACE: &str = "error while executing at wasm backtrace:";
/// Most functions named of a backtrace, and most bytes of each name.
const MAX_FRAMES: usize = 32;
/// Most functions named where all is told on one line.
const TOLD_FRAMES: usize = 16;
/// Most bytes of the name of one function in a trace: names of generic code run to kilobytes.
const MAX_FRAME_NAME: usize = 128;

/// The error and its causes on one line, with the place in the guest, cut to [`MAX_ERROR_TEXT`].
///
/// A backtrace is told in our own words. The engine's would undo the mangling of the guest's names as several languages write
/// them, and a name of a hundred bytes can stand for more text than there is memory.
pub(crate) fn describe(error: &wasmtime::Error) -> String {
    let mut text = without_trace(error);
    let frames = frames(error);
    if !frames.is_empty() {
        text.push_str(&format!(" (in {})", frames[..frames.len().min(TOLD_FRAMES)].join(", called by ")));
    }
    cut(&mut text, MAX_ERROR_TEXT);
    text
}

/// The error's causes without the place in the guest, which [`trace`] gives; cut as [`describe`] does.
pub(crate) fn without_trace(error: &wasmtime::Error) -> String {
    let causes = error.chain().filter(|cause| start_of(cause, BACKTRACE.len()) != BACKTRACE);
    let mut text = causes.map(|cause| start_of(cause, MAX_ERROR_TEXT + 1)).collect::<Vec<_>>().join(": ");
    cut(&mut text, MAX_ERROR_TEXT);
    text
}

/// Where in the guest an error happened, one frame a line, innermost first.
pub(crate) fn trace(error: &wasmtime::Error) -> String {
    let frames = frames(error);
    let mut text = frames.iter().enumerate().map(|(n, name)| format!("{n}: {name}")).collect::<Vec<_>>().join("\n");
    cut(&mut text, MAX_TRACE);
    text
}

/// The names of the functions that an error happened in, innermost first.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    backtrace.map(|backtrace| backtrace.frames().iter().take(MAX_FRAMES).map(frame).collect()).unwrap_or_default()
}

fn frame(frame: &FrameInfo) -> String {
    let mut name = match frame.func_name() {
        // The older way of the Rust compiler: the one whose undoing never makes a name longer.
        Some(name) if name.starts_with("_ZN") => format!("{:#}", rustc_demangle::demangle(name)),
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    };
    cut(&mut name, MAX_FRAME_NAME);
    name
}

/// The first bytes of a text; the rest is not even made.
fn start_of(text: &(impl fmt::Display + ?Sized), most: usize) -> String {
    use fmt::Write;
    let mut start = Start { text: String::new(), most };
    // An error says that it is full.
    let _ = write!(start, "{text}");
    start.text
}

/// Keeps the beginning of a text that is written, and drops the rest: an error may print megabytes.
struct Start {
    text: String,
    most: usize,
}

impl fmt::Write for Start {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.most - self.text.len();
        let fits = part.floor_char_boundary(room);
        self.text.push_str(&part[..fits]);
        if fits == part.len() { Ok(()) } else { Err(fmt::Error) }
    }
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
    // What is kept may be kept for long: without the room that the rest took.
    text.shrink_to_fit();
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

    #[test]
    fn what_is_cut_off_takes_no_room_any_more() {
        let mut text = "x".repeat(1 << 20);
        cut(&mut text, 4096);
        assert!(text.capacity() < 2 * 4096, "{}", text.capacity());
    }
}
