//! What commands print: lines, tables and JSON, on standard output.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::Value;

/// Prints one line.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a note for the person at the terminal; scripts that read standard output do not see it.
pub(crate) fn note(text: impl Display) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{text}")
}

/// Prints a JSON document, indented.
pub(crate) fn json(document: &Value) -> io::Result<()> {
    line(format_args!("{document:#}"))
}

/// Rows under headings, as wide as their longest cell. An empty table prints its headings, so that it is never silent.
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    numbers: Vec<bool>,
}

impl Table {
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
        let mut row: Vec<String> = cells.into_iter().take(self.headings.len()).collect();
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

    fn width(&self, column: usize) -> usize {
        let cells = std::iter::once(&self.headings).chain(&self.rows);
        cells.map(|cells| cells[column].chars().count()).max().unwrap_or(0)
    }

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
        Value::String(text) => printable(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A text that others wrote, fit for a terminal and for one line: control characters are written out, so that it can neither
/// steer the terminal nor look like a line of ours.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// The beginning of a text for a cell of a table: at most so many letters, the last one an ellipsis where some are left out.
pub(crate) fn beginning(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(letters.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// An object as `name: value` lines, nested objects indented: what `show` prints.
pub(crate) fn describe(object: &Value) -> String {
    let mut text = String::new();
    describe_into(&mut text, object, 0);
    text.trim_end().to_owned()
}

fn describe_into(text: &mut String, object: &Value, depth: usize) {
    let Some(members) = object.as_object() else {
        return;
    };
    let width = members.keys().map(|name| name.chars().count() + 1).max().unwrap_or(0);
    for (name, value) in members {
        let indent = "  ".repeat(depth);
        if value.as_object().is_some_and(|inner| !inner.is_empty()) {
            text.push_str(&format!("{indent}{name}:\n"));
            describe_into(text, value, depth + 1);
        } else {
            text.push_str(&format!("{indent}{:width$} {}\n", format!("{name}:"), plain(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up_and_lines_carry_no_trailing_blanks() {
        let mut table = Table::new(&["NAME", ">QUEUES", "TYPE"]);
        table.row(["orders".to_owned(), "8".to_owned(), "transaction".to_owned()]);
        table.row(["a".to_owned(), "16".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME    QUEUES  TYPE\norders       8  transaction\na           16");
    }

    #[test]
    fn an_empty_table_still_shows_its_headings() {
        assert_eq!(Table::new(&["NAME", "TYPE"]).render(), "NAME  TYPE");
    }

    #[test]
    fn cells_are_written_as_a_person_would() {
        let object = json!({"a": "x", "b": null, "c": ["10s", "1m"], "d": 7, "e": true});
        let cells: Vec<String> = ["a", "b", "c", "d", "e", "f"].iter().map(|name| cell(&object, name)).collect();
        assert_eq!(cells, ["x", "-", "10s,1m", "7", "true", "-"]);
    }

    #[test]
    fn texts_of_others_stay_on_their_line_and_in_their_cell() {
        assert_eq!(printable("a\nb\u{1b}[2J\u{7f}ü"), "a\\nb\\u{1b}[2J\\u{7f}ü");
        assert_eq!(plain(&json!("x\ry")), "x\\ry");
        assert_eq!((beginning("abc", 3).as_str(), beginning("abcd", 3).as_str()), ("abc", "ab…"));
        assert_eq!(beginning("üöä€", 3), "üö…");
    }

    #[test]
    fn show_indents_what_is_nested() {
        let text = describe(&json!({"name": "orders", "transaction": {"immunity": "6s"}}));
        assert_eq!(text, "name:        orders\ntransaction:\n  immunity: 6s");
    }
}
