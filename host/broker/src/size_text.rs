//! Sizes as people write them (`"10GiB"`, `"512MiB"`, or a number of bytes), for `#[serde(with = "…")]`.

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

fn parse(text: &str) -> Result<u64, String> {
    let (digits, shift) = UNITS
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), *shift)))
        .unwrap_or((text, 0));
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = digits.parse::<u64>().ok().filter(|_| whole).and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("{text:?} is not a size such as \"512MiB\", \"10GiB\" or \"1TiB\""))
}

fn write(bytes: u64) -> String {
    let fits = |shift: u32| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift);
    let (unit, shift) = UNITS.into_iter().find(|(_, shift)| fits(*shift)).unwrap_or(("B", 0));
    format!("{}{unit}", bytes >> shift)
}

/// For a limit that may be absent.
pub(crate) mod limit {
    use super::{Deserialize, Deserializer, Error, IgnoredAny, Serializer};
    use crate::duration_text::NO_LIMIT;

    pub(crate) fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.collect_str(&super::write(*bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
            Other(IgnoredAny),
        }
        let read = match Option::<Written>::deserialize(deserializer)? {
            None => return Ok(None),
            Some(Written::Number(bytes)) => Ok(bytes),
            Some(Written::Text(text)) => super::parse(text.trim()),
            Some(Written::Other(_)) => Err("a size is a text such as \"10GiB\", or a number of bytes".to_owned()),
        };
        read.map(Some).map_err(|wrong| D::Error::custom(format!("{wrong}; {NO_LIMIT}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_with_their_largest_whole_unit() {
        for (text, bytes) in
            [("0B", 0), ("100B", 100), ("1KiB", 1024), ("1025B", 1025), ("10GiB", 10 << 30), ("2TiB", 2 << 40)]
        {
            assert_eq!((parse(text), write(bytes).as_str()), (Ok(bytes), text));
        }
        assert_eq!((parse("7"), parse("64 MiB")), (Ok(7), Ok(64 << 20)));
        for text in ["", "GiB", "-1", "1.5GiB", "10GB", "99999999999999999999", "16777216TiB"] {
            assert!(parse(text).is_err_and(|error| error.contains("10GiB")), "{text}");
        }
    }
}
