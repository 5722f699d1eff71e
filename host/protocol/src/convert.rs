//! Times and durations between the wire and the broker.

use std::time::Duration;

use prost_types::Timestamp;
use vouch_broker::Millis;

/// 9999-12-31T23:59:59Z, the last second that a timestamp may name.
const LAST_SECOND: i64 = 253_402_300_799;
/// Longest duration that the wire allows, in seconds: about 10 000 years.
const DURATION_MAX_S: i64 = 315_576_000_000;

/// A time of the wire in milliseconds; none if it is malformed or lies before 1970.
pub fn millis(at: &Timestamp) -> Option<Millis> {
    let whole = (0..=LAST_SECOND).contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos);
    whole.then(|| Millis(at.seconds as u64 * 1000 + at.nanos as u64 / 1_000_000))
}

/// A time as the wire writes it; times after the year 9999 are written as its end.
pub fn timestamp(at: Millis) -> Timestamp {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(LAST_SECOND).min(LAST_SECOND);
    Timestamp { seconds, nanos: (at.0 % 1000) as i32 * 1_000_000 }
}

/// A duration of the wire; none if it is malformed or negative.
pub fn duration(wire: &prost_types::Duration) -> Option<Duration> {
    let whole = (0..=DURATION_MAX_S).contains(&wire.seconds) && (0..1_000_000_000).contains(&wire.nanos);
    whole.then(|| Duration::new(wire.seconds as u64, wire.nanos as u32))
}

/// A duration as the wire writes it.
pub fn wire_duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(DURATION_MAX_S).min(DURATION_MAX_S);
    prost_types::Duration { seconds, nanos: duration.subsec_nanos() as i32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_times_and_durations_are_none() {
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (0, 1_000_000_000), (LAST_SECOND + 1, 0), (i64::MAX, 0), (i64::MIN, 0)]
        {
            assert_eq!(millis(&Timestamp { seconds, nanos }), None, "{seconds} s {nanos} ns");
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (DURATION_MAX_S + 1, 0), (i64::MIN, i32::MIN)] {
            assert_eq!(duration(&prost_types::Duration { seconds, nanos }), None, "{seconds} s {nanos} ns");
        }
        assert_eq!(millis(&Timestamp { seconds: LAST_SECOND, nanos: 999_999_999 }), Some(Millis(253_402_300_799_999)));
        assert_eq!(timestamp(Millis::NEVER).seconds, LAST_SECOND);
    }

    proptest! {
        #[test]
        fn times_survive_the_round_trip(ms in 0..253_402_300_799_999u64, seconds in 0..1_000_000_000u64, nanos in 0..1_000_000_000u32) {
            prop_assert_eq!(millis(&timestamp(Millis(ms))), Some(Millis(ms)));
            let time = Duration::new(seconds, nanos);
            prop_assert_eq!(duration(&wire_duration(time)), Some(time));
        }

        #[test]
        fn no_time_makes_the_reader_panic(seconds: i64, nanos: i32) {
            let _ = millis(&Timestamp { seconds, nanos });
            let _ = duration(&prost_types::Duration { seconds, nanos });
        }
    }
}
