//! The header `retry-after` (RFC 9110, 10.2.3): how long a service wants to be left alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest that the broker waits because somebody asks for it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads whole seconds, or a date. Seconds of none and a date that is over say nothing: the broker's own schedule is more patient
/// than that, and each attempt counts.
pub fn wait_ms(value: &[u8], now_ms: u64) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean longer than the longest.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(at(now_ms)?).ok()?
    };
    let wait_ms = u32::try_from(wait.min(LONGEST).as_millis()).expect("a day has fewer milliseconds");
    (wait_ms > 0).then_some(wait_ms)
}

fn at(now_ms: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-31T10:00:00.500Z
    const NOW_MS: u64 = 1_769_853_600_500;

    fn wait(text: &str) -> Option<u32> {
        wait_ms(text.as_bytes(), NOW_MS)
    }

    #[test]
    fn seconds_are_read_and_bounded_by_a_day() {
        for (text, ms) in [("1", 1000), (" 120 ", 120_000), ("086400", 86_400_000), ("86401", 86_400_000)] {
            assert_eq!(wait(text), Some(ms), "{text}");
        }
        assert_eq!(wait("99999999999999999999999"), Some(86_400_000));
    }

    #[test]
    fn dates_are_read_in_all_their_forms() {
        for text in ["Sat, 31 Jan 2026 10:01:00 GMT", "Saturday, 31-Jan-26 10:01:00 GMT", "Sat Jan 31 10:01:00 2026"] {
            assert_eq!(wait(text), Some(59_500), "{text}");
        }
        assert_eq!(wait("Sun, 31 Jan 2027 10:00:00 GMT"), Some(86_400_000));
    }

    #[test]
    fn what_asks_for_no_time_or_cannot_be_read_says_nothing() {
        for text in ["0", "", " ", "-1", "1.5", "soon", "1s", "Sat, 31 Jan 2026 10:00:00 GMT", "Sat, 31 Jan 2026"] {
            assert_eq!(wait(text), None, "{text}");
        }
        assert_eq!(wait_ms(b"\xff", NOW_MS), None);
    }
}
