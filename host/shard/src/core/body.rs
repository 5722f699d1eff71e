//! What entries of other leaders hold.

use vouch_consensus::Carried;

/// What comes with an entry of another leader.
pub enum Body {}

impl Carried for Body {
    fn end(&self) -> u64 {
        match *self {}
    }
}
