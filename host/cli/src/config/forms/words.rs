//! Values that are words: one of two, names, a token, a level.

use std::fmt;

use super::{Described, Form, FormText, InFile};
use crate::config::log_lines;

/// `true` or `false`; a flag alone is `true`.
#[derive(Debug)]
pub(crate) struct YesOrNo;

impl Described for YesOrNo {
    fn about(&self) -> FormText {
        FormText { in_file: InFile::YesOrNo, ..FormText::text("BOOL", "true or false") }
    }
}

impl Form for YesOrNo {
    type Value = bool;

    fn read(&self, text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

/// One of two words.
#[derive(Debug)]
pub(crate) struct Choice<T: 'static> {
    /// What stands for the word in help texts.
    pub(crate) placeholder: &'static str,
    /// The words with what they become.
    pub(crate) of: [(&'static str, T); 2],
}

impl<T: Copy + PartialEq> Choice<T> {
    /// The word for this.
    pub(crate) fn word(&self, meant: T) -> String {
        let found = self.of.iter().find(|(_, value)| *value == meant);
        found.map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}

impl<T: fmt::Debug + Sync> Described for Choice<T> {
    fn about(&self) -> FormText {
        let [(one, _), (other, _)] = &self.of;
        FormText::text(self.placeholder, format!("\"{one}\" or \"{other}\""))
    }
}

impl<T: Copy + fmt::Debug + Sync> Form for Choice<T> {
    type Value = T;

    fn read(&self, text: &str) -> Result<T, String> {
        let [(one, _), (other, _)] = &self.of;
        let found = self.of.iter().find(|(word, _)| *word == text);
        found.map(|(_, meant)| *meant).ok_or_else(|| format!("`{text}` is neither {one} nor {other}"))
    }
}

/// Names separated by commas, or none.
#[derive(Debug)]
pub(crate) struct NameList;

impl Described for NameList {
    fn about(&self) -> FormText {
        FormText::text("NAMES", "names in quotes, separated by commas, for example \"a.example,b.example\"")
    }
}

impl Form for NameList {
    type Value = Vec<String>;

    fn read(&self, text: &str) -> Result<Vec<String>, String> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.as_slice() {
            [only] if only.is_empty() => Ok(Vec::new()),
            _ if names.iter().any(String::is_empty) => Err(format!("`{text}` has an empty name between its commas")),
            _ => Ok(names),
        }
    }
}

/// A word that lets in whoever knows it. What it may consist of is checked where it is used.
#[derive(Debug)]
pub(crate) struct Token;

impl Described for Token {
    fn about(&self) -> FormText {
        FormText { is_secret: true, ..FormText::text("TOKEN", "the token in quotes") }
    }
}

impl Form for Token {
    type Value = String;

    fn read(&self, text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

/// Which lines of the log are written. Kept as text: [`log_lines::filter`] makes a filter of it wherever one is needed.
#[derive(Debug)]
pub(crate) struct Level;

impl Described for Level {
    fn about(&self) -> FormText {
        FormText::text("LEVEL", "a level in quotes, for example \"info\" or \"info,vouch_node=debug\"")
    }
}

impl Form for Level {
    type Value = String;

    fn read(&self, text: &str) -> Result<String, String> {
        log_lines::filter(text).map(|_| text.to_owned())
    }
}
