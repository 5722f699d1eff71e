//! Text of others (components, clients, files), made harmless for a terminal, a log line or a JSON document.
//!
//! What moves the cursor, starts a line of its own, clears the screen, or shows letters in another order than they stand in is
//! written as an escape sequence of Rust: `\n`, `\u{1b}`, `\u{202e}`.

use std::borrow::Cow;
use std::fmt::Write;

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

/// Control characters of both sets, separators of lines, marks and overrides of direction, invisible tags, the mark of a
/// byte order.
fn acts_on_the_screen(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with letters of one kind written in another way; borrowed where it has none.
fn replaced(text: &str, is_replaced: impl Fn(char) -> bool, mut write: impl FnMut(&mut String, char)) -> Cow<'_, str> {
    if !text.chars().any(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_replaced(letter) { write(&mut safe, letter) } else { safe.push(letter) }
    }
    Cow::Owned(safe)
}

/// One letter as Rust writes it in a text.
fn escape(to: &mut String, letter: char) {
    match letter {
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        other => to.extend(other.escape_unicode()),
    }
}

/// A text of others in a line, or in a cell of a table: it stays in it.
/// Whatever is a line of its own, or a part of one, goes through this.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    replaced(text, acts_on_the_screen, escape)
}

/// Lines of this program's own making. Texts of others in them went through [`line()`] before; what did not starts new lines at
/// most.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |letter| letter != '\n' && acts_on_the_screen(letter), escape)
}

/// A JSON document as text: the same document, in which nothing acts on the screen.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let in_json = |to: &mut String, letter: char| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(to, "\\u{unit:04x}");
        }
    };
    // Control characters of the first set are escaped in JSON's texts already: here they are its layout.
    replaced(text, |letter| letter >= '\u{7f}' && acts_on_the_screen(letter), in_json)
}

/// The fields of an event in the node's log, each on the event's line.
pub(crate) fn log_fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|to, field, value| {
        let text = format!("{value:?}");
        let text = line(&text);
        match field.name() {
            "message" => to.write_str(&text),
            name => write!(to, "{}={text}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a hostile sender would write, as far as this program knows.
    const HOSTILE: &str = "a\0b\nc\rd\x1b[2Je\u{9b}31mf\u{7f}g\u{202e}h\u{2066}i\u{2028}j\u{feff}k\u{e0041}l\tm";

    #[test]
    fn a_line_holds_nothing_that_acts_on_the_screen_and_stays_one() {
        let safe = line(HOSTILE);
        assert_eq!(
            safe,
            "a\\u{0}b\\nc\\rd\\u{1b}[2Je\\u{9b}31mf\\u{7f}g\\u{202e}h\\u{2066}i\\u{2028}j\\u{feff}k\\u{e0041}l\\tm"
        );
        assert_eq!(line(&safe), safe, "what is escaped is left alone");
        for ordinary in ["", "ключ=значение", "日本語", "👩\u{200d}💻", "C:\\new", "é\u{301}"] {
            assert!(matches!(line(ordinary), Cow::Borrowed(text) if text == ordinary));
        }
    }

    #[test]
    fn lines_keep_their_ends_and_nothing_else() {
        assert_eq!(lines("a\nb\x1bc\r"), "a\nb\\u{1b}c\\r");
    }

    #[test]
    fn json_stays_the_same_document() {
        let document = serde_json::json!({"k\u{202e}": [HOSTILE, "é"], "n": 1});
        for text in [document.to_string(), format!("{document:#}")] {
            let safe = json(&text);
            assert!(!safe.chars().any(|letter| letter != '\n' && acts_on_the_screen(letter)), "{safe}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), document);
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_of_the_nodes_log_is_one_line_whatever_is_in_it() {
        let written = Written::default();
        let to = written.clone();
        let lines = tracing_subscriber::fmt().fmt_fields(log_fields()).with_ansi(false).with_writer(move || to.clone());
        tracing::subscriber::with_default(lines.finish(), || {
            tracing::warn!(text = HOSTILE, shown = %HOSTILE, why = ?HOSTILE, "{HOSTILE}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(acts_on_the_screen), "{line:?}");
        assert!(line.contains(&format!(": {} text=", super::line(HOSTILE))), "{line}");
        assert!(line.contains(&format!(" shown={} why=", super::line(HOSTILE))), "{line}");
    }
}
