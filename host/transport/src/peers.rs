//! Where peers are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The addresses of the other nodes, `HOST:PORT` each. A host is resolved whenever it is dialed.
#[derive(Debug, Default)]
pub struct PeerTable {
    addresses: Mutex<BTreeMap<u64, watch::Sender<Option<String>>>>,
}

impl PeerTable {
    /// Says where a node is. Another address than before ends its connections that this node dialed, and it is dialed there at
    /// once.
    pub fn set(&self, node: u64, address: &str) {
        self.change(node, Some(address));
    }

    /// Where a node is, as far as this one was told.
    #[must_use]
    pub fn address(&self, node: u64) -> Option<String> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(&node).and_then(|address| address.borrow().clone())
    }

    /// Every node with an address.
    #[must_use]
    pub fn all(&self) -> BTreeMap<u64, String> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.iter().filter_map(|(node, address)| Some((*node, address.borrow().clone()?))).collect()
    }

    /// Forgets where a node is. Links to it stay, and are down.
    pub(crate) fn remove(&self, node: u64) {
        self.change(node, None);
    }

    /// Watches the address of a node, which may be set later.
    pub(crate) fn watch(&self, node: u64) -> watch::Receiver<Option<String>> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.entry(node).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    fn change(&self, node: u64, address: Option<&str>) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = addresses.entry(node).or_insert_with(|| watch::channel(None).0);
        entry.send_if_modified(|current| {
            let is_new = current.as_deref() != address;
            if is_new {
                *current = address.map(str::to_owned);
            }
            is_new
        });
        if address.is_none() && entry.receiver_count() == 0 {
            addresses.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_hears_of_changes_and_of_nothing_else() {
        let peers = PeerTable::default();
        let mut watched = peers.watch(2);
        assert_eq!(*watched.borrow_and_update(), None);
        peers.set(2, "a:1");
        assert!(watched.has_changed().unwrap());
        assert_eq!(watched.borrow_and_update().as_deref(), Some("a:1"));
        peers.set(2, "a:1");
        peers.set(3, "b:1");
        assert!(!watched.has_changed().unwrap());
        assert_eq!(peers.all().len(), 2);
        peers.remove(2);
        peers.remove(3);
        assert_eq!(watched.borrow_and_update().as_deref(), None);
        assert_eq!((peers.address(2), peers.all().len()), (None, 0));
    }
}
