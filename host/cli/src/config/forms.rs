//! How values of settings are written, and what they become.
//!
//! A form is named in the row of its setting. It says what stands for the value in help texts, what the file may hold for
//! it, between which bounds it lies, and how its text is read: whoever asks gets a value of the right type, and whoever
//! wrote it wrong a sentence that says what to write instead.

mod bounds;
mod numbers;
mod optional;
mod places;
mod words;

use std::fmt;

pub(crate) use bounds::FormBounds;
pub(crate) use numbers::{Count, Percent, Size, Time, size, time};
pub(crate) use optional::{IfGiven, OrNone};
pub(crate) use places::{Address, FilePath, Folder, FolderList, HostPort};
pub(crate) use words::{Choice, Level, NameList, Token, YesOrNo};

/// What a value may be in a TOML file. Text is always taken: a flag and a variable have nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFile {
    /// Text in quotes.
    Text,
    /// Text in quotes, or a whole number.
    Number,
    /// Text in quotes, or `true` and `false`.
    YesOrNo,
}

/// What is known of a form without the type of its values: enough for help texts, the file, and the page for operators.
#[derive(Debug)]
pub(crate) struct FormText {
    /// What stands for the value in a help text: `SIZE`.
    pub(crate) placeholder: &'static str,
    /// What is to be written in the file, to follow the word *write*: `true or false`.
    pub(crate) expected: String,
    /// What the file may hold.
    pub(crate) in_file: InFile,
    /// Least and most, as people write them.
    pub(crate) bounds: [Option<String>; 2],
    /// Whether the value is kept from whoever looks: it is neither shown nor repeated in a refusal.
    pub(crate) is_secret: bool,
}

impl FormText {
    /// Of a form that is text in the file, has no bounds and no secrets.
    fn text(placeholder: &'static str, expected: impl Into<String>) -> Self {
        Self { placeholder, expected: expected.into(), in_file: InFile::Text, bounds: [None, None], is_secret: false }
    }
}

/// A form, whatever it reads: what the rows of the table have in common.
pub(crate) trait Described: fmt::Debug + Sync {
    /// What is known of it.
    fn about(&self) -> FormText;
}

/// A form with the type of what it reads.
pub(crate) trait Form: Described {
    /// What a text becomes.
    type Value;

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead, to follow the place where it stands.
    fn read(&self, text: &str) -> Result<Self::Value, String>;

    /// Reads a text that somebody wrote (`given`), or the default.
    ///
    /// # Errors
    /// As [`Form::read`].
    fn take(&self, text: &str, _given: bool) -> Result<Self::Value, String> {
        self.read(text)
    }
}

#[cfg(test)]
mod tests;
