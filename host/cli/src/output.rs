//! What commands print: lines, tables and JSON, on standard output. Whatever it is and whoever wrote it, nothing that is
//! printed here acts on a terminal (see [`escape`]); a body that goes into a file or a pipe is as it was sent.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::escape;

/// Prints one line, or several of this program's making: texts of others that are in them must have gone through
/// [`escape::line`].
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", escape::lines(&text.to_string()))
}

/// Prints a note for the person at the terminal; scripts that read standard output do not see it.
pub(crate) fn note(text: impl Display) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{}", escape::lines(&text.to_string()))
}

/// Prints a JSON document, indented.
pub(crate) fn json(document: &Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", escape::json(&format!("{document:#}")))
}

/// Prints a JSON document on one line.
pub(crate) fn json_line(document: &Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", escape::json(&document.to_string()))
}

/// Prints the body of a message behind what is said of it: escaped on a terminal, byte for byte into a file or a pipe.
pub(crate) fn body(head: &str, body: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let line = body_line(head, body, output.is_terminal());
    output.write_all(&line)
}

/// What [`body`] prints. The head is escaped in any case: it has ids and keys that others chose.
fn body_line(head: &str, body: &[u8], terminal: bool) -> Vec<u8> {
    let head = escape::line(head);
    let shown = String::from_utf8_lossy(body);
    let body = if terminal { escape::line(&shown).into_owned().into_bytes() } else { body.to_vec() };
    [head.as_bytes(), &body, b"\n"].concat()
}

/// Rows under headings, as wide as their longest cell. An empty table prints its headings, so that it is never silent.
pub(crate) struct TextTable {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    numbers: Vec<bool>,
}

impl TextTable {
    /// A table with these headings. A heading that starts with `>` makes its column right-aligned (numbers).
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            headings: headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect(),
            rows: Vec::new(),
            numbers: headings.iter().map(|heading| heading.starts_with('>')).collect(),
        }
    }

    /// Adds a row; cells beyond the headings are left out, missing ones are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| escape::line(&cell).into_owned());
        let mut row: Vec<String> = cells.take(self.headings.len()).collect();
        row.resize(self.headings.len(), String::new());
        self.rows.push(row);
    }

    /// The table as text, without a line break at the end.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let lines = std::iter::once(&self.headings).chain(&self.rows).map(|cells| self.render_row(cells, &widths));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Prints the table.
    pub(crate) fn print(&self) -> io::Result<()> {
        line(self.render())
    }

    /// Letters of the longest cell of a column.
    fn width(&self, column: usize) -> usize {
        let cells = std::iter::once(&self.headings).chain(&self.rows);
        cells.map(|cells| cells[column].chars().count()).max().unwrap_or(0)
    }

    /// One row, its cells filled up to the widths of their columns.
    fn render_row(&self, cells: &[String], widths: &[usize]) -> String {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if self.numbers[column] { (padding.as_str(), "") } else { ("", padding.as_str()) };
            text.push_str(before);
            text.push_str(cell);
            text.push_str(after);
            text.push_str("  ");
        }
        text.trim_end().to_owned()
    }
}

/// A member of a JSON object as a cell: text without quotes, nothing for null, lists joined by commas.
pub(crate) fn cell(object: &Value, name: &str) -> String {
    plain(object.get(name).unwrap_or(&Value::Null))
}

/// A JSON value as a person would write it in a cell.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape::line(text).into_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The beginning of a text for a cell of a table: at most so many letters, the last one an ellipsis where some are left out.
pub(crate) fn beginning(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(letters.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Members that have lines of their own: where in a component something happened.
const OF_LINES: [&str; 1] = ["trace"];

/// An object as `name: value` lines, nested objects indented: what `show` prints. Names and values are escaped.
pub(crate) fn describe(object: &Value) -> String {
    let mut text = String::new();
    describe_into(&mut text, object, 0);
    text.trim_end().to_owned()
}

/// Adds the members of an object, `depth` levels down. What is no object has none.
fn describe_into(text: &mut String, object: &Value, depth: usize) {
    let Some(members) = object.as_object() else {
        return;
    };
    let width = members.keys().map(|name| name.chars().count() + 1).max().unwrap_or(0);
    for (name, value) in members {
        let indent = "  ".repeat(depth);
        let lines = value.as_str().filter(|lines| OF_LINES.contains(&name.as_str()) && lines.contains('\n'));
        let name = format!("{}:", escape::line(name));
        if value.as_object().is_some_and(|inner| !inner.is_empty()) {
            text.push_str(&format!("{indent}{name}\n"));
            describe_into(text, value, depth + 1);
        } else if let Some(lines) = lines {
            text.push_str(&format!("{indent}{name}\n"));
            lines.split('\n').for_each(|line| text.push_str(&format!("{indent}  {}\n", escape::line(line))));
        } else {
            text.push_str(&format!("{indent}{name:width$} {}\n", escape::line(&plain(value))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up_and_lines_carry_no_trailing_blanks() {
        let mut table = TextTable::new(&["NAME", ">QUEUES", "TYPE"]);
        table.row(["orders".to_owned(), "8".to_owned(), "transaction".to_owned()]);
        table.row(["a".to_owned(), "16".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME    QUEUES  TYPE\norders       8  transaction\na           16");
    }

    #[test]
    fn an_empty_table_still_shows_its_headings() {
        assert_eq!(TextTable::new(&["NAME", "TYPE"]).render(), "NAME  TYPE");
    }

    #[test]
    fn cells_are_written_as_a_person_would() {
        let object = json!({"a": "x", "b": null, "c": ["10s", "1m"], "d": 7, "e": true});
        let cells: Vec<String> = ["a", "b", "c", "d", "e", "f"].iter().map(|name| cell(&object, name)).collect();
        assert_eq!(cells, ["x", "-", "10s,1m", "7", "true", "-"]);
    }

    #[test]
    fn the_beginning_of_a_text_is_told_from_all_of_it() {
        assert_eq!((beginning("abc", 3).as_str(), beginning("abcd", 3).as_str()), ("abc", "ab…"));
        assert_eq!(beginning("üöä€", 3), "üö…");
    }

    #[test]
    fn what_others_wrote_stays_in_its_cell_and_in_its_line() {
        let mut table = TextTable::new(&["KEYS", "TAG"]);
        table.row(["a\nb".to_owned(), "\u{1b}[2J".to_owned()]);
        assert_eq!(table.render(), "KEYS  TAG\na\\nb  \\u{1b}[2J");
        let text = describe(&json!({"reason\n": "x\nstate: committed", "last_error": {"trace": "0: f\n1: g\u{202e}"}}));
        assert_eq!(text, "last_error:\n  trace:\n    0: f\n    1: g\\u{202e}\nreason\\n:   x\\nstate: committed");
    }

    #[test]
    fn a_body_is_escaped_on_a_terminal_and_as_it_was_sent_in_a_pipe() {
        let body = b"one\n\x1b[2J\xff";
        assert_eq!(body_line("id\x1b: ", body, false), [b"id\\u{1b}: ", &body[..], b"\n"].concat());
        let shown = body_line("id: ", body, true);
        assert_eq!(String::from_utf8(shown).unwrap(), "id: one\\n\\u{1b}[2J\u{fffd}\n");
    }

    #[test]
    fn show_indents_what_is_nested() {
        let text = describe(&json!({"name": "orders", "transaction": {"immunity": "6s"}}));
        assert_eq!(text, "name:        orders\ntransaction:\n  immunity: 6s");
    }
}
