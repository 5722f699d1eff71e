//! Who reads what a binding keeps: many side by side, and one alone where that went wrong too often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// One lock a namespace that is in use.
#[derive(Default)]
pub(crate) struct NamespaceLocks(Mutex<HashMap<String, Weak<RwLock<()>>>>);

/// A call's part of a namespace, until it is dropped.
#[derive(Default)]
#[allow(dead_code, reason = "held, and never looked at")]
pub(crate) enum KeepsOut {
    /// It has none.
    #[default]
    Nobody,
    /// Others may read beside it.
    WhoIsAlone(OwnedRwLockReadGuard<()>),
    /// Nobody else is there.
    All(OwnedRwLockWriteGuard<()>),
}

impl NamespaceLocks {
    /// Waits until a call may run beside the others, or `alone`. Who waits to be alone is not overtaken by those who come after.
    pub(super) async fn enter(&self, namespace: &str, alone: bool) -> KeepsOut {
        let lock = self.lock(namespace);
        if alone { KeepsOut::All(lock.write_owned().await) } else { KeepsOut::WhoIsAlone(lock.read_owned().await) }
    }

    /// The lock of a namespace: there is one as long as somebody has it or waits for it.
    fn lock(&self, namespace: &str) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(namespace).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(RwLock::new(()));
        locks.insert(namespace.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether somebody would get in now; what he would have is dropped.
    fn gets_in(locks: &NamespaceLocks, namespace: &str, alone: bool) -> bool {
        let entering = std::pin::pin!(locks.enter(namespace, alone));
        matches!(entering.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    }

    #[tokio::test]
    async fn who_is_alone_in_a_namespace_is_there_with_nobody() {
        let locks = NamespaceLocks::default();
        let first = locks.enter("n", false).await;
        assert!(gets_in(&locks, "n", false) && !gets_in(&locks, "n", true) && gets_in(&locks, "m", true));
        drop(first);
        let alone = locks.enter("n", true).await;
        assert!(!gets_in(&locks, "n", false) && !gets_in(&locks, "n", true) && gets_in(&locks, "m", false));
        drop(alone);
        assert!(gets_in(&locks, "n", true));
    }

    #[tokio::test]
    async fn locks_that_nobody_has_go() {
        let locks = NamespaceLocks::default();
        for n in 0..100 {
            drop(locks.enter(&n.to_string(), false).await);
        }
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
