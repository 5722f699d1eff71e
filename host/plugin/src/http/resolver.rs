//! From names to addresses.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, ToSocketAddrs},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// What [`Resolver::resolve`] returns.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Looks up the hosts of outgoing requests. Another than [`SystemResolver`] is for tests, and for those who keep their own
/// table of services.
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, in the order in which to try them. Called for names only, never for literal addresses, on
    /// the guests' threads; the deadline of the check cuts it off.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// An answer that many may wait for; the error as kind and text, which can be copied.
type Answer = Result<Vec<IpAddr>, (io::ErrorKind, String)>;
/// Look-ups that have no answer yet, by name.
type UnderWay = HashMap<String, watch::Receiver<Option<Answer>>>;

/// The system's own look-up, once at a time for each name.
///
/// The system offers it only as a call that blocks a thread, and cannot be cut off: a deadline ends the waiting, not the
/// call. Since those who want the same name share one call, a name server that hangs costs one thread a name, and not
/// every thread of every plugin.
#[derive(Clone, Debug, Default)]
pub struct SystemResolver {
    under_way: Arc<Mutex<UnderWay>>,
}

impl SystemResolver {
    /// A panic elsewhere leaves the table whole.
    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the look-up of this name, or begins it.
    fn ask(
        &self,
        host: &str,
        look_up: impl FnOnce(&str) -> Answer + Send + 'static,
    ) -> watch::Receiver<Option<Answer>> {
        let mut under_way = self.under_way();
        if let Some(running) = under_way.get(host) {
            return running.clone();
        }
        let (told, answer) = watch::channel(None);
        under_way.insert(host.to_owned(), answer.clone());
        drop(under_way);
        let running = Running { resolver: self.clone(), name: host.to_owned() };
        tokio::task::spawn_blocking(move || {
            let found = look_up(&running.name);
            drop(running);
            // Nobody may be left who waits.
            let _ = told.send(Some(found));
        });
        answer
    }
}

/// A look-up that others may join. When it ends, however it ends, whoever asks wants to know anew.
struct Running {
    resolver: SystemResolver,
    name: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.resolver.under_way().remove(&self.name);
    }
}

/// Asks the system, which may take as long as it likes: for threads that may be blocked.
fn system(host: &str) -> Answer {
    // The port is of no interest to a look-up, but the call wants one.
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
        Err(error) => Err((error.kind(), error.to_string())),
    }
}

/// Waits for an answer that many may wait for. Dropping it ends the waiting of this one alone.
async fn answered(mut answer: watch::Receiver<Option<Answer>>) -> io::Result<Vec<IpAddr>> {
    let told = answer.wait_for(Option::is_some).await.map(|told| told.clone());
    match told {
        Ok(Some(Ok(addresses))) => Ok(addresses),
        Ok(Some(Err((kind, text)))) => Err(io::Error::new(kind, text)),
        _ => Err(io::Error::other("the look-up was given up")),
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(answered(self.ask(host, system)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn who_wants_a_name_that_is_being_looked_up_waits_for_the_same_answer() {
        let resolver = SystemResolver::default();
        let (let_go, hang) = mpsc::channel::<()>();
        let first = resolver.ask("db", move |_| {
            hang.recv().unwrap();
            Ok(vec![ADDRESS])
        });
        let second = resolver.ask("db", |_| panic!("one look-up of the name is under way"));
        let other = resolver.ask("elsewhere", |_| Err((io::ErrorKind::NotFound, "no such name".to_owned())));
        let error = answered(other).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::NotFound, "no such name"));
        let_go.send(()).unwrap();
        assert_eq!(answered(first).await.unwrap(), [ADDRESS]);
        assert_eq!(answered(second).await.unwrap(), [ADDRESS]);
        let again = resolver.ask("db", |_| Ok(Vec::new()));
        assert!(answered(again).await.unwrap().is_empty(), "an answer is not kept");
    }

    #[tokio::test]
    async fn a_look_up_that_ends_by_a_defect_is_an_error_and_the_name_can_be_asked_again() {
        let resolver = SystemResolver::default();
        let broken = resolver.ask("db", |_| panic!("a defect"));
        assert!(answered(broken).await.is_err());
        let again = resolver.ask("db", |_| Ok(vec![ADDRESS]));
        assert_eq!(answered(again).await.unwrap(), [ADDRESS]);
    }
}
