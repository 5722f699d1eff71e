//! How the demo reads in a terminal: 80 columns, who did what and when, colour only where it is wanted.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Widest line.
pub(crate) const COLUMNS: usize = 80;
/// Columns before what a chapter is about.
const CHAPTER_INDENT: usize = 3;
/// Columns before the text of a step: margin, time, actor.
const STEP_INDENT: usize = 25;

/// Prints the story.
pub(crate) struct Screen {
    colour: bool,
    chapter_began: Instant,
}

/// How a word is set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A heading.
    Strong,
    /// Good news.
    Good,
    /// Bad news.
    Bad,
    /// Aside.
    Faint,
}

impl Screen {
    /// Colour if standard output is a terminal and `NO_COLOR` is not set.
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal(), chapter_began: Instant::now() }
    }

    /// A heading and what it is about; times of what follows count from here.
    pub(crate) fn chapter(&mut self, title: &str, about: &str) -> io::Result<()> {
        self.chapter_began = Instant::now();
        let about = wrap(about, CHAPTER_INDENT);
        self.print(&format!("\n{}\n{}\n", self.styled(title, Style::Strong), self.styled(&about, Style::Faint)))
    }

    /// A paragraph.
    pub(crate) fn paragraph(&self, text: &str) -> io::Result<()> {
        self.print(&wrap(text, 0))
    }

    /// A line as it is.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.print(text)
    }

    /// Somebody did something.
    pub(crate) fn step(&self, who: &str, text: &str) -> io::Result<()> {
        self.step_in(who, text, None)
    }

    /// The same, set off.
    pub(crate) fn strong_step(&self, who: &str, text: &str, style: Style) -> io::Result<()> {
        self.step_in(who, text, Some(style))
    }

    /// A line that a command printed, below the step that tells of the command.
    pub(crate) fn output(&self, text: &str) -> io::Result<()> {
        self.print(&format!("{}{text}", " ".repeat(STEP_INDENT)))
    }

    /// When since the chapter began, who, what.
    fn step_in(&self, who: &str, text: &str, style: Option<Style>) -> io::Result<()> {
        let at = self.chapter_began.elapsed().as_secs_f64();
        let wrapped = wrap(text, STEP_INDENT);
        let text = wrapped.trim_start();
        let text = style.map_or_else(|| text.to_owned(), |style| self.styled(text, style));
        let time = self.styled(&format!("{at:>7.2} s"), Style::Faint);
        self.print(&format!("  {time}  {who:<12}{text}"))
    }

    /// The text in its style, or as it is where there is no colour.
    pub(crate) fn styled(&self, text: &str, style: Style) -> String {
        let code = match style {
            Style::Strong => "1",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Faint => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Prints at once: a story that comes in blocks is none.
    fn print(&self, text: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        writeln!(output, "{text}")?;
        output.flush()
    }
}

/// Breaks a text between words so that every line, with `indent` blanks before it, fits the screen.
fn wrap(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    let mut used = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > indent && used + 1 + length > COLUMNS {
            lines.push(String::new());
            used = indent;
        }
        let Some(line) = lines.last_mut() else { break };
        if used > indent {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    let margin = " ".repeat(indent);
    lines.iter().map(|line| format!("{margin}{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_fit_the_screen() {
        let text = "word ".repeat(60);
        for indent in [0, STEP_INDENT] {
            let wrapped = wrap(&text, indent);
            assert!(wrapped.lines().count() > 1);
            assert!(
                wrapped.lines().all(|line| line.chars().count() <= COLUMNS && line.starts_with(&" ".repeat(indent)))
            );
            assert_eq!(wrapped.split_whitespace().count(), 60);
        }
    }

    #[test]
    fn a_word_longer_than_the_screen_stays_whole() {
        let word = "x".repeat(COLUMNS + 5);
        assert_eq!(wrap(&format!("a {word} b"), 0), format!("a\n{word}\nb"));
    }

    #[test]
    fn without_colour_a_style_changes_nothing() {
        let screen = Screen { colour: false, chapter_began: Instant::now() };
        assert_eq!(screen.styled("x", Style::Bad), "x");
        let screen = Screen { colour: true, chapter_began: Instant::now() };
        assert_eq!(screen.styled("x", Style::Bad), "\x1b[1;31mx\x1b[0m");
    }
}
