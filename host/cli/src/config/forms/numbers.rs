//! Sizes, lengths of time, and how many there are of something.

use std::time::Duration;

use super::{Described, Form, FormBounds, FormText, InFile};
use crate::text;

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
pub(crate) struct Size(pub(crate) FormBounds<u64>);

impl Described for Size {
    fn about(&self) -> FormText {
        const EXPECTED: &str = "a size in quotes, for example \"64KiB\", \"256MiB\" or \"1GiB\", or a number of bytes";
        FormText { in_file: InFile::Number, bounds: self.0.shown(size), ..FormText::text("SIZE", EXPECTED) }
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
pub(crate) struct Time(pub(crate) FormBounds<Duration>);

impl Described for Time {
    fn about(&self) -> FormText {
        const EXPECTED: &str = "a length of time in quotes, for example \"500ms\", \"10s\" or \"1m 30s\"";
        FormText { bounds: self.0.shown(time), ..FormText::text("TIME", EXPECTED) }
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
pub(crate) struct Count(pub(crate) FormBounds<usize>);

impl Described for Count {
    fn about(&self) -> FormText {
        let bounds = self.0.shown(|count| count.to_string());
        FormText { in_file: InFile::Number, bounds, ..FormText::text("N", "a whole number above 0") }
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

    /// What is to be written.
    fn expected() -> String {
        format!("a whole number from {} to {}", Self::LEAST, Self::MOST)
    }
}

impl Described for Percent {
    fn about(&self) -> FormText {
        let bounds = [Self::LEAST, Self::MOST].map(|bound| Some(bound.to_string()));
        FormText { in_file: InFile::Number, bounds, ..FormText::text("PERCENT", Self::expected()) }
    }
}

impl Form for Percent {
    type Value = u8;

    fn read(&self, text: &str) -> Result<u8, String> {
        let percent = text.parse().ok().filter(|percent| (Self::LEAST..=Self::MOST).contains(percent));
        percent.ok_or_else(|| format!("`{text}` is not a percentage; write {}", Self::expected()))
    }
}
