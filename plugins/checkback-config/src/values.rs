//! Lists and times.

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

#[cfg(test)]
mod tests {
    use super::*;

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
