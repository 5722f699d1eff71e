//! The bindings' `config`. Both read the same, and neither needs any.

use plugin_config::duration_ms;

/// How long a payment is known, where nobody says otherwise: longer than a transaction waits for its checks.
const KEEP_PAYMENTS_MS: u32 = 7 * 24 * 60 * 60 * 1000;

/// What the binding says, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Topic of goods that come.
    pub goods: String,
    /// Topic of payments.
    pub payments: String,
    /// Topic that is told what was reserved.
    pub reservations: String,
    /// Topic that is told what is missing.
    pub short: String,
    /// How long a payment is known.
    pub keep_payments_ms: u32,
}

impl Settings {
    /// Reads the settings through `config`, which answers for one name.
    ///
    /// # Errors
    /// A sentence that names the setting and what to do about it.
    pub fn read(config: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let topic = |name: &str, default: &str| {
            config(name).filter(|topic| !topic.trim().is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let keep_payments_ms = match config("keep-payments") {
            None => KEEP_PAYMENTS_MS,
            Some(text) => u32::try_from(duration_ms("keep-payments", &text)?)
                .map_err(|_| format!("config `keep-payments` is `{text}`: 49 days are the most"))?,
        };
        Ok(Self {
            goods: topic("goods", "goods"),
            payments: topic("payments", "payments"),
            reservations: topic("reservations", "reservations"),
            short: topic("short", "stock-short"),
            keep_payments_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| config.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn nothing_needs_to_be_set() {
        let settings = read(&[("goods", " ")]).unwrap();
        assert_eq!((settings.goods.as_str(), settings.payments.as_str()), ("goods", "payments"));
        assert_eq!((settings.reservations.as_str(), settings.short.as_str()), ("reservations", "stock-short"));
        assert_eq!(settings.keep_payments_ms, 604_800_000);
    }

    #[test]
    fn all_can_be_set() {
        let settings = read(&[("goods", "eu/goods"), ("short", "buy"), ("keep-payments", "49d")]).unwrap();
        assert_eq!((settings.goods.as_str(), settings.short.as_str()), ("eu/goods", "buy"));
        assert_eq!(settings.keep_payments_ms, 4_233_600_000);
        for wrong in ["soon", "50d"] {
            assert!(read(&[("keep-payments", wrong)]).unwrap_err().contains(wrong));
        }
    }
}
