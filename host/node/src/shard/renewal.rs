//! Which leases the broker extends for consumers that live (protocol paper §4.6.4).

use vouch_broker::record::Renew;
use vouch_broker::{Millis, State};

/// A lease is extended this long before it ends.
const RENEW_AHEAD_MS: u64 = 10_000;
/// By this much.
pub(crate) const RENEWED_LEASE_MS: u64 = 60_000;
/// A lease lives at most this long, however alive its consumer is.
const RENEW_FOR_AT_MOST_MS: u64 = 3 * 60 * 60 * 1000;

/// The renewals that are due at `now`.
pub(crate) fn due(state: &State, now: Millis, is_alive: impl Fn(&str) -> bool) -> Vec<Renew> {
    let mut renewals = Vec::new();
    for group in state.groups().iter() {
        for (topic, progress) in group.topics() {
            let ending = progress
                .due_from(now.plus_ms(1))
                .take_while(|(visible_at, _, _)| *visible_at <= now.plus_ms(RENEW_AHEAD_MS));
            let leases: Vec<_> = ending
                .filter_map(|(_, queue, offset)| {
                    let lease = progress.exception(queue, offset)?;
                    let client = lease.renewed_for.as_deref()?;
                    let young = now.ms_since(lease.leased_at) < RENEW_FOR_AT_MOST_MS;
                    (young && is_alive(client)).then_some((queue, offset, lease.generation))
                })
                .collect();
            if !leases.is_empty() {
                let deadline = now.plus_ms(RENEWED_LEASE_MS);
                renewals.push(Renew { group: group.id, topic, deadline, leases });
            }
        }
    }
    renewals
}
