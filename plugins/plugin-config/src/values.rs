//! Lists, times and headers.

/// Values between commas; blanks around them and empty ones do not count. Without a text there are none.
pub fn list(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

/// `500ms`, `30s`, `10m`, `2h` or `1d` in milliseconds.
///
/// # Errors
/// It is no such time.
pub fn duration_ms(setting: &str, text: &str) -> Result<u64, String> {
    let wrong = || format!("config `{setting}` is `{text}`: write a whole number and ms, s, m, h or d, such as 10m");
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).ok_or_else(wrong)
}

/// The value of a header. An empty one would be sent as one, and nobody means that.
///
/// # Errors
/// It is empty, or has a control character.
pub fn header_value(setting: &str, value: String) -> Result<String, String> {
    if value.trim().is_empty() {
        return Err(format!("config `{setting}` is empty: write its value, or leave it out"));
    }
    if value.chars().any(|letter| letter.is_ascii_control() && letter != '\t') {
        return Err(format!("config `{setting}` has a line end or another control character: take it out"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_a_value_in_one_line() {
        for value in ["Bearer x", "a\tb", "ü"] {
            assert_eq!(header_value("authorization", value.to_owned()), Ok(value.to_owned()));
        }
        for (value, word) in [("", "is empty"), (" ", "is empty"), ("Bearer x\n", "line end"), ("a\u{7f}", "control")] {
            let refused = header_value("authorization", value.to_owned()).unwrap_err();
            assert!(refused.contains("`authorization`") && refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn values_stand_between_commas() {
        assert_eq!(list(Some(" paid,, shipped ,".to_owned())), ["paid", "shipped"]);
        assert_eq!(list(None), Vec::<String>::new());
    }

    #[test]
    fn times_are_read_with_their_units() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("30 s", 30_000), ("2h", 7_200_000), ("1d", 86_400_000)] {
            assert_eq!(duration_ms("after", text), Ok(ms), "{text}");
        }
        for text in ["", "10", "m", "-1s", "1.5h", "10min", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration_ms("after", text).unwrap_err().contains("`after`"), "{text}");
        }
    }
}
