//! From names to addresses.

use std::{future::Future, io, net::IpAddr, pin::Pin};

/// What [`Resolver::resolve`] returns.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Looks up the hosts of outgoing requests. Another than [`SystemResolver`] is for tests, and for those who keep their own
/// table of services.
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, in the order in which to try them. Called for names only, never for literal addresses, on
    /// the guests' threads; the deadline of the check cuts it off.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The system's own look-up.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        // The port is of no interest to a look-up, but the call wants one.
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}
