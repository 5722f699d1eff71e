//! How many connections there may be: what the process's descriptors allow, less what everything else needs.
//!
//! What is wanted is a setting; what fits follows from the limit of open files, and is lowered without a word to
//! clients. `vouch config check` shows both.

/// Descriptors that connections never take. They belong to the log (its segments, the next one, syncs, snapshots, the
/// scrubber), the lookup index, a backup, what components connect to, the runtime, and the places kept for probes. A node
/// that has none left for its log stops taking writes.
pub const DESCRIPTORS_RESERVED: u64 = 256;
/// With fewer descriptors no node starts.
pub const DESCRIPTORS_MIN: u64 = DESCRIPTORS_RESERVED + 64;
/// Most gRPC connections at once where nobody says otherwise.
pub const GRPC_CONNECTIONS_DEFAULT: usize = 20_000;
/// Most HTTP connections at once, those of probes apart.
pub const HTTP_CONNECTIONS_MAX: usize = 1024;
/// HTTP gets at most one of so many descriptors.
const HTTP_SHARE: u64 = 4;

/// Most connections at once on each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// gRPC. One more is closed without a word.
    pub grpc: usize,
    /// HTTP. Beyond it, those that wait for a request longest make way, and probes are still answered.
    pub http: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self { grpc: GRPC_CONNECTIONS_DEFAULT, http: HTTP_CONNECTIONS_MAX }
    }
}

impl Connections {
    /// `grpc` connections, and those of HTTP, or what fits in so many descriptors. Nothing if that is too little to serve
    /// anybody ([`DESCRIPTORS_MIN`]).
    ///
    /// The log goes first: what is reserved for it no connection gets, however many are wanted.
    #[must_use]
    pub fn within(descriptors: u64, grpc: usize) -> Option<Self> {
        if descriptors < DESCRIPTORS_MIN {
            return None;
        }
        let free = descriptors - DESCRIPTORS_RESERVED;
        let most = |count: u64, wanted: usize| usize::try_from(count).map_or(wanted, |count| count.min(wanted));
        let http = most(free / HTTP_SHARE, HTTP_CONNECTIONS_MAX);
        Some(Self { grpc: most(free - http as u64, grpc), http })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_the_reserve_fit_in_the_descriptors() {
        for descriptors in [DESCRIPTORS_MIN, 400, 1024, 4096, 21_280, 65_536, 1 << 20, u64::MAX] {
            for wanted in [1, 100, GRPC_CONNECTIONS_DEFAULT, usize::MAX] {
                let Connections { grpc, http } = Connections::within(descriptors, wanted).unwrap();
                let taken =
                    (grpc as u64).checked_add(http as u64).and_then(|sum| sum.checked_add(DESCRIPTORS_RESERVED));
                assert!(taken.unwrap() <= descriptors, "{descriptors} {wanted}");
                assert!((1..=wanted).contains(&grpc) && (16..=HTTP_CONNECTIONS_MAX).contains(&http));
            }
        }
        assert_eq!(Connections::within(DESCRIPTORS_MIN - 1, 1), None);
    }

    #[test]
    fn what_fits_is_not_lowered() {
        let enough = DESCRIPTORS_RESERVED + 4 * HTTP_CONNECTIONS_MAX as u64;
        let all = Connections { grpc: 3 * HTTP_CONNECTIONS_MAX, http: HTTP_CONNECTIONS_MAX };
        assert_eq!(Connections::within(enough, 3 * HTTP_CONNECTIONS_MAX), Some(all));
        assert_eq!(Connections::within(1024, 20_000), Some(Connections { grpc: 576, http: 192 }));
    }
}
