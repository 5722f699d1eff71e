//! What a producer may say about the checks of its own half message (ruling 3).

use std::time::Duration;

use crate::config::{CHECK_STEP_MAX, MAX_CHECKS_MAX};
use crate::{CheckPolicy, NewMessage, Refusal};

/// Property: seconds from the half message to its first check.
pub const PROPERTY_FIRST: &str = "vouch-check-first";
/// Property: seconds between two checks.
pub const PROPERTY_INTERVAL: &str = "vouch-check-interval";
/// Property: counted answers *unknown* that park the transaction.
pub const PROPERTY_MAX: &str = "vouch-check-max";

/// A half message's own check settings; what is absent comes from the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOverrides {
    /// From the half to the first check, in milliseconds.
    pub first_ms: Option<u32>,
    /// Between two checks, in milliseconds.
    pub interval_ms: Option<u32>,
    /// Counted answers *unknown* that park it; 0 = never ask.
    pub max: Option<u16>,
}

impl CheckOverrides {
    /// Reads the settings of a half message from its properties and its recovery duration.
    pub fn of(message: &NewMessage) -> Result<Self, Refusal> {
        let property = |name: &str| message.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let seconds = |name: &str, min: u64| -> Result<Option<u32>, Refusal> {
            let max = CHECK_STEP_MAX.as_secs();
            let Some(text) = property(name) else { return Ok(None) };
            match text.parse::<u64>() {
                Ok(seconds) if (min..=max).contains(&seconds) => Ok(Some((seconds * 1000) as u32)),
                _ => Err(Refusal::Invalid(format!(
                    "property {name} is {text:?}; it must be a whole number of seconds from {min} to {max}"
                ))),
            }
        };
        let max = match property(PROPERTY_MAX).map(|text| (text, text.parse::<u32>())) {
            None => None,
            Some((_, Ok(count))) if count <= MAX_CHECKS_MAX => Some(count as u16),
            Some((text, _)) => {
                return Err(Refusal::Invalid(format!(
                    "property {PROPERTY_MAX} is {text:?}; it must be 0 (never ask) to {MAX_CHECKS_MAX}"
                )));
            }
        };
        let recovery = message.recovery_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX - 1));
        Ok(Self {
            first_ms: seconds(PROPERTY_FIRST, 0)?.or(recovery),
            interval_ms: seconds(PROPERTY_INTERVAL, 1)?,
            max,
        })
    }

    /// Milliseconds from the half to its first check under this policy.
    pub fn immunity_ms(&self, policy: &CheckPolicy) -> u64 {
        self.first_ms.map_or_else(|| ms(policy.immunity), u64::from)
    }

    /// Milliseconds after ask number `n` (from 1) under this policy.
    pub fn step_ms(&self, policy: &CheckPolicy, n: u32) -> u64 {
        self.interval_ms.map_or_else(|| ms(policy.step(n)), u64::from)
    }

    /// Counted answers *unknown* that park it.
    pub fn max_checks(&self, policy: &CheckPolicy) -> u32 {
        self.max.map_or(policy.max_checks, u32::from)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message;

    fn with(properties: &[(&str, &str)]) -> Result<CheckOverrides, Refusal> {
        let mut message = message("m1");
        message.properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        CheckOverrides::of(&message)
    }

    #[test]
    fn properties_override_the_topic_within_bounds() {
        let overrides = with(&[(PROPERTY_FIRST, "0"), (PROPERTY_INTERVAL, "60"), (PROPERTY_MAX, "10")]).unwrap();
        let policy = CheckPolicy::default();
        assert_eq!(overrides.immunity_ms(&policy), 0);
        assert_eq!(overrides.step_ms(&policy, 3), 60_000);
        assert_eq!(overrides.max_checks(&policy), 10);
        assert_eq!(with(&[]).unwrap().immunity_ms(&policy), 6_000);
    }

    #[test]
    fn a_value_outside_its_bounds_is_refused_with_the_bounds() {
        for (name, bad) in
            [(PROPERTY_FIRST, "86401"), (PROPERTY_INTERVAL, "0"), (PROPERTY_MAX, "1001"), (PROPERTY_MAX, "x")]
        {
            assert!(with(&[(name, bad)]).is_err_and(|r| r.to_string().contains(name)), "{name}={bad}");
        }
        assert!(with(&[(PROPERTY_FIRST, "86400")]).is_ok() && with(&[(PROPERTY_MAX, "1000")]).is_ok());
    }
}
