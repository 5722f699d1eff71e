//! Bindings that are ready to be asked, each made once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// Of what an answerer is made: another one is made of anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MadeOf {
    /// Log position of the record that set the binding.
    pub(crate) revision: u64,
    /// The values of the secrets that it names, by their ids, in the order of their names.
    pub(crate) values: Vec<[u8; 16]>,
}

/// What was made for one revision of a binding, or is being made.
struct Slot<T> {
    of: MadeOf,
    made: Arc<OnceCell<T>>,
    /// What was made before, until this is: it may not come to that.
    before: Option<T>,
}

/// What is made once per name and what it is made of. Making one takes as long as it takes, and keeps nobody waiting who wants
/// another: a storm of checks compiles a component once, and other bindings' checks go on meanwhile.
pub(crate) struct Answerers<T>(Mutex<HashMap<String, Slot<T>>>);

impl<T: Clone> Slot<T> {
    /// What was made last.
    fn last(&self) -> Option<T> {
        self.made.get().cloned().or_else(|| self.before.clone())
    }
}

impl<T> Default for Answerers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Answerers<T> {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there for this revision, or for a newer one, or what `make` makes. If that fails, the next caller tries again.
    pub(crate) async fn get_or_make<E>(
        &self,
        name: &str,
        of: MadeOf,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let made = self.slot(name, of);
        made.get_or_try_init(|| make).await.cloned()
    }

    fn slot(&self, name: &str, of: MadeOf) -> Arc<OnceCell<T>> {
        let mut slots = self.slots();
        let made = Arc::<OnceCell<T>>::default();
        if let Some(slot) = slots.get(name) {
            // Whoever still asks for one of before it was set anew gets that of now, once it is made: a storm of such asks
            // makes none of its own. Until then one is made for him, and not kept.
            let of_now = slot.of.revision > of.revision && slot.made.get().is_some();
            if slot.of == of || of_now {
                return slot.made.clone();
            }
            if slot.of.revision > of.revision {
                return made;
            }
        }
        let before = slots.get(name).and_then(Slot::last);
        slots.insert(name.to_owned(), Slot { of, made: made.clone(), before });
        made
    }

    /// What was made last under this name.
    pub(crate) fn get(&self, name: &str) -> Option<T> {
        self.slots().get(name)?.last()
    }

    /// What was made last under each name.
    pub(crate) fn all(&self) -> Vec<T> {
        self.slots().values().filter_map(Slot::last).collect()
    }

    /// Keeps what was made of bindings that are there, by their names and the revisions for which it was made.
    pub(crate) fn retain(&self, is_there: impl Fn(&str, u64) -> bool) {
        self.slots().retain(|name, slot| is_there(name, slot.of.revision));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::components::BindingsThen;

    fn set_at(revision: u64) -> MadeOf {
        MadeOf { revision, ..MadeOf::default() }
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_that_takes_long_to_make_keeps_no_other_waiting() {
        let answerers = Answerers::<u32>::default();
        let mut slow = pin!(answerers.get_or_make("slow", set_at(1), std::future::pending::<Result<u32, ()>>()));
        assert!(poll(slow.as_mut()).is_pending());
        let quick = pin!(answerers.get_or_make("quick", set_at(1), async { Ok::<_, ()>(7) }));
        assert_eq!(poll(quick), Poll::Ready(Ok(7)));
        assert_eq!((answerers.get("quick"), answerers.get("slow")), (Some(7), None));
        let new = pin!(answerers.get_or_make("slow", set_at(2), async { Ok::<_, ()>(8) }));
        assert_eq!(poll(new), Poll::Ready(Ok(8)), "a binding that was set anew does not wait for what it was");
        let old = pin!(answerers.get_or_make("slow", set_at(1), async { Ok::<_, ()>(9) }));
        assert_eq!((poll(old), answerers.get("slow")), (Poll::Ready(Ok(8)), Some(8)), "and is asked for what it was");
    }

    #[test]
    fn those_who_want_the_same_wait_for_one_making_and_a_failure_is_tried_again() {
        let answerers = Answerers::<u32>::default();
        let (made, go_on) = (Cell::new(0), Cell::new(false));
        let make = async || {
            made.set(made.get() + 1);
            std::future::poll_fn(|_| if go_on.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            if made.get() == 1 { Err("no luck") } else { Ok(7) }
        };
        let mut first = pin!(answerers.get_or_make("b", set_at(1), make()));
        let mut second = pin!(answerers.get_or_make("b", set_at(1), make()));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        assert_eq!(made.get(), 1);
        go_on.set(true);
        assert_eq!(poll(first), Poll::Ready(Err("no luck")));
        assert_eq!(poll(second), Poll::Ready(Ok(7)));
        assert_eq!(poll(pin!(answerers.get_or_make("b", set_at(1), make()))), Poll::Ready(Ok(7)));
        assert_eq!(made.get(), 2);
    }

    #[test]
    fn a_binding_that_was_removed_is_forgotten() {
        let answerers = Answerers::<u32>::default();
        assert_eq!(poll(pin!(answerers.get_or_make("b", set_at(1), async { Ok::<_, ()>(7) }))), Poll::Ready(Ok(7)));
        let then = BindingsThen::behind(5, []);
        assert_eq!(poll(pin!(answerers.get_or_make("c", set_at(9), async { Ok::<_, ()>(8) }))), Poll::Ready(Ok(8)));
        answerers.retain(|name, revision| !then.had_lost(name, revision));
        assert_eq!((answerers.get("b"), answerers.get("c")), (None, Some(8)), "what was made since stays");
    }

    #[test]
    fn one_whose_secret_has_another_value_is_made_anew_and_takes_the_place_of_what_it_was() {
        let answerers = Answerers::<u32>::default();
        let of = |value: u8| MadeOf { revision: 1, values: vec![[value; 16]] };
        for (value, made, is) in [(1, 7, 7), (1, 8, 7), (2, 9, 9), (2, 10, 9)] {
            assert_eq!(
                poll(pin!(answerers.get_or_make("b", of(value), async { Ok::<_, ()>(made) }))),
                Poll::Ready(Ok(is))
            );
            assert_eq!(answerers.get("b"), Some(is));
        }
    }
}
