//! Ids as official clients make them: of messages, and of client instances.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// A new message id in the form official clients use: version, machine, process, seconds since 2021, sequence.
pub(crate) fn message_id() -> String {
    static SEQUENCE: AtomicU32 = AtomicU32::new(0);
    const FIRST_OF_2021: u64 = 1_609_459_200;
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let seconds = since_1970.saturating_sub(FIRST_OF_2021) & 0xFFFF_FFFF;
    format!("01{:012X}{:04X}{seconds:08X}{sequence:08X}", machine(), std::process::id() & 0xFFFF)
}

/// Random bits that stand for the machine, as in official clients without a network card.
fn machine() -> u64 {
    static MACHINE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *MACHINE.get_or_init(|| rand::random::<u64>() & 0xFFFF_FFFF_FFFF)
}

/// An id for one client instance; unique on this machine for as long as it matters.
pub(super) fn client_id() -> String {
    format!("vouch-cli@{}@{:012x}", std::process::id(), rand::random::<u64>() & 0xFFFF_FFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_have_the_form_of_official_clients_and_differ() {
        let (first, second) = (message_id(), message_id());
        assert_eq!(first.len(), 34);
        assert!(first.starts_with("01") && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        assert_ne!(first, second);
    }
}
