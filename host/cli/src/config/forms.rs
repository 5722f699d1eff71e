//! How values of settings are written, and what they become.
//!
//! A form is named in the row of its setting. It says what stands for the value in help texts, what the file may hold for
//! it, between which bounds it lies, and how its text is read: whoever asks gets a value of the right type, and whoever
//! wrote it wrong a sentence that says what to write instead.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::log_lines;
use crate::text;

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
pub(crate) trait Written: fmt::Debug + Sync {
    /// What stands for the value in a help text: `SIZE`.
    fn placeholder(&self) -> &'static str;

    /// What is to be written in the file, to follow the word *write*: `true or false`.
    fn expected(&self) -> String;

    /// What the file may hold.
    fn in_file(&self) -> InFile {
        InFile::Text
    }

    /// Least and most, as people write them.
    fn bounds(&self) -> [Option<String>; 2] {
        [None, None]
    }

    /// Whether the value is kept from whoever looks: it is neither shown nor repeated in a refusal.
    fn is_secret(&self) -> bool {
        false
    }
}

/// A form with the type of what it reads.
pub(crate) trait Form: Written {
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

/// One end of the values that are taken.
#[derive(Clone, Copy, Debug)]
struct Bound<T> {
    at: T,
    /// What the bound is, to follow its value. None where whoever takes the value refuses what is beyond the bound, in
    /// words of its own.
    why: Option<&'static str>,
}

/// Between what values lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<T> {
    least: Option<Bound<T>>,
    most: Option<Bound<T>>,
}

impl<T: Copy> Bounds<T> {
    /// None.
    pub(crate) const NONE: Self = Self { least: None, most: None };

    /// No less than this; `why` says what it is the least of.
    pub(crate) const fn at_least(at: T, why: &'static str) -> Self {
        Self { least: Some(Bound { at, why: Some(why) }), most: None }
    }

    /// Between these two, each with what it is.
    pub(crate) const fn between((least, shortest): (T, &'static str), (most, longest): (T, &'static str)) -> Self {
        let least = Bound { at: least, why: Some(shortest) };
        let most = Bound { at: most, why: Some(longest) };
        Self { least: Some(least), most: Some(most) }
    }

    /// Between these two, which are told here and held to by whoever takes the value.
    pub(crate) const fn told(least: T, most: T) -> Self {
        Self { least: Some(Bound { at: least, why: None }), most: Some(Bound { at: most, why: None }) }
    }
}

impl<T: Copy + PartialOrd> Bounds<T> {
    /// The value, if it is within the bounds that are held to here.
    fn hold(&self, value: T, text: &str, shown: fn(T) -> String) -> Result<T, String> {
        let beyond = |bound: Option<Bound<T>>, is_beyond: fn(&T, &T) -> bool| {
            let Bound { at, why } = bound?;
            why.filter(|_| is_beyond(&value, &at)).map(|why| format!("{}, {why}", shown(at)))
        };
        if let Some(least) = beyond(self.least, T::lt) {
            return Err(format!("`{text}` is less than {least}"));
        }
        if let Some(most) = beyond(self.most, T::gt) {
            return Err(format!("`{text}` is more than {most}"));
        }
        Ok(value)
    }

    fn shown(&self, shown: fn(T) -> String) -> [Option<String>; 2] {
        [self.least, self.most].map(|bound| bound.map(|bound| shown(bound.at)))
    }
}

/// Bytes as people write them, in the largest unit that leaves nothing over: `64MiB`. [`text::bytes`] reads it back.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (bytes, "B");
    for larger in UNITS {
        if count == 0 || !count.is_multiple_of(1 << 10) {
            break;
        }
        (count, unit) = (count >> 10, larger);
    }
    format!("{count}{unit}")
}

/// A length of time as people write it: `10s`. [`text::length`] reads it back.
pub(crate) fn time(length: Duration) -> String {
    humantime::format_duration(length).to_string()
}

/// Bytes.
#[derive(Debug)]
pub(crate) struct Size(pub(crate) Bounds<u64>);

impl Written for Size {
    fn placeholder(&self) -> &'static str {
        "SIZE"
    }

    fn expected(&self) -> String {
        "a size in quotes, for example \"64KiB\", \"256MiB\" or \"1GiB\", or a number of bytes".to_owned()
    }

    fn in_file(&self) -> InFile {
        InFile::Number
    }

    fn bounds(&self) -> [Option<String>; 2] {
        self.0.shown(size)
    }
}

impl Form for Size {
    type Value = u64;

    fn read(&self, text: &str) -> Result<u64, String> {
        self.0.hold(text::bytes(text)?, text, size)
    }
}

/// A length of time.
#[derive(Debug)]
pub(crate) struct Time(pub(crate) Bounds<Duration>);

impl Written for Time {
    fn placeholder(&self) -> &'static str {
        "TIME"
    }

    fn expected(&self) -> String {
        "a length of time in quotes, for example \"500ms\", \"10s\" or \"1m 30s\"".to_owned()
    }

    fn bounds(&self) -> [Option<String>; 2] {
        self.0.shown(time)
    }
}

impl Form for Time {
    type Value = Duration;

    fn read(&self, text: &str) -> Result<Duration, String> {
        self.0.hold(text::length(text)?, text, time)
    }
}

/// How many there are; never none.
#[derive(Debug)]
pub(crate) struct Count(pub(crate) Bounds<usize>);

impl Written for Count {
    fn placeholder(&self) -> &'static str {
        "N"
    }

    fn expected(&self) -> String {
        "a whole number above 0".to_owned()
    }

    fn in_file(&self) -> InFile {
        InFile::Number
    }

    fn bounds(&self) -> [Option<String>; 2] {
        self.0.shown(|count| count.to_string())
    }
}

impl Form for Count {
    type Value = usize;

    fn read(&self, text: &str) -> Result<usize, String> {
        let count = text.parse().ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| format!("`{text}` is not a whole number above 0"))?;
        self.0.hold(count, text, |count| count.to_string())
    }
}

/// So many of a hundred; neither none nor all.
#[derive(Debug)]
pub(crate) struct Percent;

impl Percent {
    const LEAST: u8 = 1;
    const MOST: u8 = 99;
}

impl Written for Percent {
    fn placeholder(&self) -> &'static str {
        "PERCENT"
    }

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", Self::LEAST, Self::MOST)
    }

    fn in_file(&self) -> InFile {
        InFile::Number
    }

    fn bounds(&self) -> [Option<String>; 2] {
        [Self::LEAST, Self::MOST].map(|bound| Some(bound.to_string()))
    }
}

impl Form for Percent {
    type Value = u8;

    fn read(&self, text: &str) -> Result<u8, String> {
        let percent = text.parse().ok().filter(|percent| (Self::LEAST..=Self::MOST).contains(percent));
        percent.ok_or_else(|| format!("`{text}` is not a percentage; write {}", self.expected()))
    }
}

/// `true` or `false`; a flag alone is `true`.
#[derive(Debug)]
pub(crate) struct YesOrNo;

impl Written for YesOrNo {
    fn placeholder(&self) -> &'static str {
        "BOOL"
    }

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn in_file(&self) -> InFile {
        InFile::YesOrNo
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

impl<T: fmt::Debug + Sync> Written for Choice<T> {
    fn placeholder(&self) -> &'static str {
        self.placeholder
    }

    fn expected(&self) -> String {
        let [(one, _), (other, _)] = &self.of;
        format!("\"{one}\" or \"{other}\"")
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

/// A folder, which has a name.
#[derive(Debug)]
pub(crate) struct Folder;

impl Written for Folder {
    fn placeholder(&self) -> &'static str {
        "DIR"
    }

    fn expected(&self) -> String {
        "the path of a folder in quotes, for example \"/var/lib/vouch\"".to_owned()
    }
}

impl Form for Folder {
    type Value = PathBuf;

    fn read(&self, text: &str) -> Result<PathBuf, String> {
        if text.is_empty() { Err("a folder is needed".to_owned()) } else { Ok(PathBuf::from(text)) }
    }
}

/// A file, which is read later, by whoever needs what is in it.
#[derive(Debug)]
pub(crate) struct File;

impl Written for File {
    fn placeholder(&self) -> &'static str {
        "FILE"
    }

    fn expected(&self) -> String {
        "the path of a file in quotes, for example \"/etc/vouch/key.pem\"".to_owned()
    }
}

impl Form for File {
    type Value = PathBuf;

    fn read(&self, text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }
}

/// Where a port listens: an address of this machine and the number of the port.
#[derive(Debug)]
pub(crate) struct Address;

impl Written for Address {
    fn placeholder(&self) -> &'static str {
        "ADDR"
    }

    fn expected(&self) -> String {
        format!("IP:PORT in quotes, for example \"{}\"", super::GRPC_ADDR)
    }
}

impl Form for Address {
    type Value = SocketAddr;

    fn read(&self, text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| format!("`{text}` is not an address; write IP:PORT, for example {}", super::GRPC_ADDR))
    }
}

/// Names separated by commas, or none.
#[derive(Debug)]
pub(crate) struct Names;

impl Written for Names {
    fn placeholder(&self) -> &'static str {
        "NAMES"
    }

    fn expected(&self) -> String {
        "names in quotes, separated by commas, for example \"a.example,b.example\"".to_owned()
    }
}

impl Form for Names {
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

impl Written for Token {
    fn placeholder(&self) -> &'static str {
        "TOKEN"
    }

    fn expected(&self) -> String {
        "the token in quotes".to_owned()
    }

    fn is_secret(&self) -> bool {
        true
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

impl Written for Level {
    fn placeholder(&self) -> &'static str {
        "LEVEL"
    }

    fn expected(&self) -> String {
        "a level in quotes, for example \"info\" or \"info,vouch_node=debug\"".to_owned()
    }
}

impl Form for Level {
    type Value = String;

    fn read(&self, text: &str) -> Result<String, String> {
        log_lines::filter(text).map(|_| text.to_owned())
    }
}

/// A form in which nothing at all can be written, too: that is no value.
#[derive(Debug)]
pub(crate) struct OrNone<F>(pub(crate) F);

/// A form of which only what somebody wrote is a value: where nobody did, the default is somebody else's to know.
#[derive(Debug)]
pub(crate) struct IfGiven<F>(pub(crate) F);

impl<F: Form> Form for OrNone<F> {
    type Value = Option<F::Value>;

    fn read(&self, text: &str) -> Result<Option<F::Value>, String> {
        if text.is_empty() { Ok(None) } else { self.0.read(text).map(Some) }
    }
}

impl<F: Form> Form for IfGiven<F> {
    type Value = Option<F::Value>;

    fn read(&self, text: &str) -> Result<Option<F::Value>, String> {
        self.0.read(text).map(Some)
    }

    fn take(&self, text: &str, given: bool) -> Result<Option<F::Value>, String> {
        if given { self.read(text) } else { Ok(None) }
    }
}

/// Both are written like the form within.
macro_rules! written_like_what_is_within {
    ($($around:ident),*) => {$(
        impl<F: Written> Written for $around<F> {
            fn placeholder(&self) -> &'static str {
                self.0.placeholder()
            }

            fn expected(&self) -> String {
                self.0.expected()
            }

            fn in_file(&self) -> InFile {
                self.0.in_file()
            }

            fn bounds(&self) -> [Option<String>; 2] {
                self.0.bounds()
            }

            fn is_secret(&self) -> bool {
                self.0.is_secret()
            }
        }
    )*};
}

written_like_what_is_within!(OrNone, IfGiven);

#[cfg(test)]
#[path = "forms_tests.rs"]
mod tests;
