//! Cuts a statement into words, marks and what is between quotes, as far as the gate needs it.
//!
//! Where the three databases read a text differently, each is read by its own rule: a text that one calls a comment may be
//! a statement to another. Quoting rules that a server can change (`standard_conforming_strings`, `NO_BACKSLASH_ESCAPES`)
//! are set by every connection of this crate to what is assumed here.

use crate::dialect::Dialect;

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lexeme<'a> {
    /// A keyword or a name without quotes.
    Word(&'a str),
    /// A comment, with its marks.
    Comment(&'a str),
    /// A string, or a name in quotes.
    Quoted,
    /// `;`
    Semicolon,
    /// `(`
    Opening,
    /// `)`
    Closing,
    /// Anything else: a mark, a digit, a placeholder.
    Other,
    /// A quote or a comment that does not end.
    Unfinished,
}

/// Walks through a statement.
pub(super) struct Lexer<'a> {
    dialect: Dialect,
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    /// At the beginning of a text, read by the rules of this database.
    pub(super) fn new(dialect: Dialect, text: &'a str) -> Self {
        Self { dialect, rest: text }
    }

    /// Takes so many bytes off the front.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// A comment of this length; without one it does not end.
    fn comment(&mut self, length: Option<usize>) -> Lexeme<'a> {
        match length {
            Some(length) => Lexeme::Comment(self.take(length)),
            None => self.unfinished(),
        }
    }

    /// Something in quotes of this length; without one it does not end.
    fn quoted(&mut self, length: Option<usize>) -> Lexeme<'a> {
        match length {
            Some(length) => {
                self.take(length);
                Lexeme::Quoted
            }
            None => self.unfinished(),
        }
    }

    /// Nothing that follows can be told apart.
    fn unfinished(&mut self) -> Lexeme<'a> {
        self.rest = "";
        Lexeme::Unfinished
    }

    /// Whether a comment to the end of the line begins here. MySQL wants a space behind the dashes: `1--1` is 2 there.
    fn is_line_comment(&self) -> bool {
        if self.dialect.is_mysql() {
            self.rest.starts_with('#')
                || self.rest.strip_prefix("--").is_some_and(|behind| {
                    behind.chars().next().is_none_or(|next| next.is_ascii_whitespace() || next.is_ascii_control())
                })
        } else {
            self.rest.starts_with("--")
        }
    }

    /// The length of the `/*` comment at the front. PostgreSQL nests them, the others do not.
    fn block_comment(&self) -> Option<usize> {
        let mut depth = 0_usize;
        let mut at = 0;
        while at < self.rest.len() {
            let here = &self.rest.as_bytes()[at..];
            if here.starts_with(b"/*") && (depth == 0 || self.dialect == Dialect::Postgres) {
                (depth, at) = (depth + 1, at + 2);
            } else if here.starts_with(b"*/") {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return Some(at);
                }
            } else {
                at += 1;
            }
        }
        None
    }

    /// The length of what stands between quotes at the front; a doubled quote stands for one.
    fn between(&self, begin: usize, quote: u8, escapes: bool) -> Option<usize> {
        let bytes = self.rest.as_bytes();
        let mut at = begin;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if escapes => at += 2,
                each if each == quote && bytes.get(at + 1) == Some(&quote) && quote != b']' => at += 2,
                each if each == quote => return Some(at + 1),
                _ => at += 1,
            }
        }
        None
    }

    /// The length of `$tag$…$tag$` at the front; `None` inside for one that does not end, outside if there is none.
    fn dollar_quoted(&self) -> Option<Option<usize>> {
        let inner = self.rest.strip_prefix('$')?;
        let length = inner.find('$')?;
        let tag = &inner[..length];
        let is_tag = !tag.starts_with(|first: char| first.is_ascii_digit()) && tag.chars().all(is_of_word_but_dollar);
        let mark = &self.rest[..length + 2];
        is_tag.then(|| self.rest[mark.len()..].find(mark).map(|at| at + 2 * mark.len()))
    }

    /// The length of the word at the front; 0 if there is none.
    fn word(&self) -> usize {
        let begins = self.rest.starts_with(|first: char| is_of_word_but_dollar(first) && !first.is_ascii_digit());
        if begins { self.rest.find(|each| !is_of_word(each)).unwrap_or(self.rest.len()) } else { 0 }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Lexeme<'a>;

    fn next(&mut self) -> Option<Lexeme<'a>> {
        self.rest = self.rest.trim_start_matches(|each: char| each.is_ascii_whitespace() || each == '\x0b');
        let first = self.rest.chars().next()?;
        if self.is_line_comment() {
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            return Some(self.comment(Some(length)));
        }
        if self.rest.starts_with("/*") {
            return Some(self.comment(self.block_comment()));
        }
        let word = self.word();
        let is_escaping = self.dialect == Dialect::Postgres
            && word == 1
            && first.eq_ignore_ascii_case(&'e')
            && self.rest[1..].starts_with('\'');
        if is_escaping {
            return Some(self.quoted(self.between(2, b'\'', true)));
        }
        if word > 0 {
            return Some(Lexeme::Word(self.take(word)));
        }
        let mysql = self.dialect.is_mysql();
        let lexeme = match first {
            '\'' => return Some(self.quoted(self.between(1, b'\'', mysql))),
            '"' => return Some(self.quoted(self.between(1, b'"', mysql))),
            '`' if self.dialect != Dialect::Postgres => return Some(self.quoted(self.between(1, b'`', false))),
            '[' if self.dialect == Dialect::Sqlite => return Some(self.quoted(self.between(1, b']', false))),
            '$' if self.dialect == Dialect::Postgres => match self.dollar_quoted() {
                Some(length) => return Some(self.quoted(length)),
                None => Lexeme::Other,
            },
            ';' => Lexeme::Semicolon,
            '(' => Lexeme::Opening,
            ')' => Lexeme::Closing,
            digit if digit.is_ascii_digit() => {
                // With the letters that stick to it: `1e5` and `0x1f` hold no words.
                let length = self.rest.find(|each| !is_of_word(each)).unwrap_or(self.rest.len());
                self.take(length);
                return Some(Lexeme::Other);
            }
            _ => Lexeme::Other,
        };
        self.take(first.len_utf8());
        Some(lexeme)
    }
}

/// Letters, digits and what counts among them. All databases take anything beyond ASCII for a letter.
fn is_of_word(each: char) -> bool {
    is_of_word_but_dollar(each) || each == '$'
}

/// The same without `$`, which begins no word and ends the tag of a quote.
fn is_of_word_but_dollar(each: char) -> bool {
    each.is_ascii_alphanumeric() || each == '_' || !each.is_ascii()
}
