//! Connections of one grant: bounded, lent in the order of asking, and never lent again if anything is odd about them.
//!
//! A connection is made when a call needs one and none is idle, and kept when the call is over. It goes
//!
//! - with a call that is dropped, times out or loses it: what its session is in the middle of, nobody knows;
//! - if something of a guest may be left in it;
//! - when the password changed since it was made, or another connection was found closed by the server;
//! - when it was idle for five minutes.
//!
//! One that nobody asks again closes nothing by itself: whoever has it says when ([`Pool::close_idle`]). Otherwise nothing has to be
//! started or stopped: an outage costs the calls that fall into it and a second behind it at most, in which the first one connects
//! ([`Reaching`]).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, error::Elapsed, timeout_at},
};

use crate::{
    call::SqlCall,
    connection::{Connector, SqlConnection},
    error::{SqlError, StatementFault},
    grant::DatabasePassword,
    reaching::Reaching,
};

/// A connection that was not used for so long is closed instead of used: what stands between may have forgotten it.
const MAX_IDLE: Duration = Duration::from_secs(300);
/// Calls that may wait for one connection, each; more are refused at once.
const WAITING_FOR_EACH: usize = 64;

/// Connections, each lent to one call at a time.
pub(crate) struct Pool<K: Connector> {
    connector: K,
    /// As many as there may be connections; it serves in the order of asking.
    places: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
    reaching: Reaching,
    shelf: Mutex<Shelf<K::Connection>>,
}

/// What is not lent.
struct Shelf<C> {
    idle: Vec<(C, Instant)>,
    password: DatabasePassword,
    /// Counted up when connections of before shall not be used any more.
    generation: u64,
}

/// A connection while a call has it. Dropped, it is closed; only [`LentConnection::give_back`] keeps it.
pub(crate) struct LentConnection<K: Connector> {
    pool: Arc<Pool<K>>,
    /// Out while it is spoken over, so that it goes with a future that is dropped in the middle.
    connection: Option<K::Connection>,
    generation: u64,
    /// It was used before, so the server may have closed it meanwhile.
    pub(crate) is_used: bool,
    _place: OwnedSemaphorePermit,
}

/// One that waits: counted for as long as it does.
struct Waits<'a> {
    /// How many waited before it.
    before: usize,
    waiting: &'a AtomicUsize,
}

impl<K: Connector> Pool<K> {
    /// A pool that has no connection yet.
    pub(crate) fn new(connector: K, size: usize, password: DatabasePassword) -> Arc<Self> {
        Arc::new(Self {
            connector,
            places: Arc::new(Semaphore::new(size)),
            size,
            waiting: AtomicUsize::new(0),
            reaching: Reaching::default(),
            shelf: Mutex::new(Shelf { idle: Vec::new(), password, generation: 0 }),
        })
    }

    /// From now on connections are made with this password, and those made with another one are closed after use.
    pub(crate) fn set_password(&self, password: DatabasePassword) {
        let mut shelf = self.shelf();
        if shelf.password != password {
            shelf.password = password;
            shelf.turn_over();
            // What the old one was told says nothing of this one.
            self.reaching.reached();
        }
    }

    /// A connection, used before or new, as soon as it is this call's turn.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`]: nothing happened.
    pub(crate) async fn lend(self: &Arc<Self>, call: SqlCall) -> Result<LentConnection<K>, SqlError> {
        let place = self.place(call).await?;
        let (used, generation) = {
            let mut shelf = self.shelf();
            shelf.clear_out(MAX_IDLE);
            (shelf.idle.pop(), shelf.generation)
        };
        let mut lent = LentConnection {
            pool: Arc::clone(self),
            is_used: used.is_some(),
            connection: used.map(|(connection, _)| connection),
            generation,
            _place: place,
        };
        if !lent.is_used {
            lent.connect(call).await?;
        }
        Ok(lent)
    }

    /// Closes connections that nobody used for so long: for whoever looks after a pool that may not be asked again.
    pub(crate) fn close_idle(&self, idle_for: Duration) {
        self.shelf().clear_out(idle_for);
    }

    /// Waits for a free place, in the order of asking.
    async fn place(&self, call: SqlCall) -> Result<OwnedSemaphorePermit, SqlError> {
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        let waits = Waits::count(&self.waiting);
        let busy = |what: &str| {
            SqlError::Unavailable(format!(
                "{what}: all {} connections of this grant are in use; raise `pool`, or ask less at a time",
                self.size
            ))
        };
        if waits.before >= WAITING_FOR_EACH * self.size {
            return Err(busy("too many calls wait"));
        }
        match timeout_at(call.deadline, places.acquire_owned()).await {
            Ok(place) => Ok(place.expect("this semaphore is never closed")),
            Err(_) => Err(busy("no connection came free in time")),
        }
    }

    /// A new connection, unless those before it were refused and it is too early to try again.
    async fn connect(&self, password: &DatabasePassword, call: SqlCall) -> Result<K::Connection, SqlError> {
        let began = Instant::now();
        self.reaching.may_try(began)?;
        match timeout_at(call.deadline, self.connector.connect(password)).await {
            Ok(Ok(connection)) => {
                self.reaching.reached();
                Ok(connection)
            }
            Ok(Err(refused)) => {
                self.reaching.failed(began, Instant::now(), &refused);
                Err(refused)
            }
            Err(_) => {
                let given_up = SqlError::Unavailable(
                    "the database did not accept a connection before the deadline; see whether it runs and can be \
                     reached"
                        .to_owned(),
                );
                self.reaching.given_up(began, Instant::now(), &given_up);
                Err(given_up)
            }
        }
    }

    /// What is not lent, for as long as the guard lives: never across a wait.
    fn shelf(&self) -> MutexGuard<'_, Shelf<K::Connection>> {
        // Nothing in here can be left half done by a panic.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Shelf<C> {
    /// Closes what waits here, and after its use what is lent.
    fn turn_over(&mut self) {
        self.generation += 1;
        self.idle.clear();
    }

    /// Closes what was not used for so long.
    fn clear_out(&mut self, idle_for: Duration) {
        let now = Instant::now();
        self.idle.retain(|(_, since)| now.duration_since(*since) < idle_for);
    }
}

impl<K: Connector> LentConnection<K> {
    /// Puts a new connection in the place of one that the server closed. What else waits in the pool is as old.
    pub(crate) async fn renew(&mut self, call: SqlCall) -> Result<(), SqlError> {
        self.pool.shelf().turn_over();
        self.connect(call).await
    }

    /// Makes the connection that the place is for.
    async fn connect(&mut self, call: SqlCall) -> Result<(), SqlError> {
        let password = {
            let shelf = self.pool.shelf();
            self.generation = shelf.generation;
            shelf.password.clone()
        };
        self.is_used = false;
        self.connection = Some(self.pool.connect(&password, call).await?);
        Ok(())
    }

    /// The connection, to be spoken over once and handed to [`LentConnection::heard`].
    pub(crate) fn take(&mut self) -> Result<K::Connection, StatementFault> {
        self.connection.take().ok_or_else(StatementFault::connection_lost)
    }

    /// What came of speaking. The connection is kept unless it was lost.
    pub(crate) fn heard<T>(
        &mut self,
        connection: K::Connection,
        heard: Result<Result<T, StatementFault>, Elapsed>,
    ) -> Result<T, StatementFault> {
        let result = heard.unwrap_or_else(|_| Err(StatementFault::no_answer()));
        if !matches!(result, Err(StatementFault::Lost(_))) {
            self.connection = Some(connection);
        }
        result
    }

    /// Whether the connection is still there.
    pub(crate) fn connection(&self) -> Option<&K::Connection> {
        self.connection.as_ref()
    }

    /// Keeps the connection for the next call, if nothing of this one is left in it.
    pub(crate) fn give_back(mut self) {
        let Some(connection) = self.connection.take().filter(SqlConnection::is_clean) else { return };
        let mut shelf = self.pool.shelf();
        shelf.clear_out(MAX_IDLE);
        if shelf.generation == self.generation {
            shelf.idle.push((connection, Instant::now()));
        }
    }
}

impl<'a> Waits<'a> {
    /// One more waits.
    fn count(waiting: &'a AtomicUsize) -> Self {
        Self { before: waiting.fetch_add(1, Ordering::Relaxed), waiting }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
