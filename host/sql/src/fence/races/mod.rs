//! Races between a business transaction and the check that closes, on real databases: the service is stopped at each of its
//! points, the check at each of its own, and either goes on first. The ledger is the order row: it is there, or it is not,
//! and no answer may say otherwise.

mod business;
mod steps;

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle};

use crate::{DatabaseUrl, TlsUse};
use crate::{
    connection::Connector,
    dialect::Dialect,
    error::SqlError,
    fence::Fenced,
    grant::SqlLimits,
    granted::Granted,
    mysql::MySqlConnector,
    places::{Place, Trigger, ample},
    pool::Pool,
    postgres::PostgresConnector,
    servers::password,
    sqlite::SqliteConnector,
    value::Statement,
};

use business::{Business, Insert, Stage};
use steps::{Point, Stepped, Steps};

/// Who goes on first when both were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Business,
    Check,
}

/// What became of many races.
#[derive(Debug, Default)]
struct Tally {
    races: u32,
    committed: u32,
    rolled_back: u32,
    /// The check got no answer.
    held: u32,
    /// One of the two waited for the other, or found its key.
    met: u32,
    disagreements: Vec<String>,
}

/// How a service writes, and what stands in its way.
#[derive(Clone, Copy, Debug)]
struct Custom {
    trigger: Trigger,
    insert: Insert,
}

const AS_WRITTEN: Custom = Custom { trigger: Trigger::With, insert: Insert::Plain };
const UPSERT: Custom = Custom { trigger: Trigger::With, insert: Insert::Upsert };
const UPSERT_WITHOUT_TRIGGER: Custom = Custom { trigger: Trigger::Without, insert: Insert::Upsert };

/// A database with a check that can be stopped.
struct Field<K: Connector> {
    place: Place,
    granted: Arc<Granted<Stepped<K>>>,
    steps: Steps,
}

impl<K: Connector> Field<K> {
    fn new(place: Place, inner: K) -> Self {
        let steps = Steps::default();
        let connector = Stepped { inner, steps: steps.clone() };
        let granted = Granted { pool: Pool::new(connector, 4, password()), grant: place.grant() };
        Self { place, granted: Arc::new(granted), steps }
    }

    fn close(&self, key: &str) -> JoinHandle<Result<Fenced, SqlError>> {
        let (granted, key) = (Arc::clone(&self.granted), key.to_owned());
        tokio::spawn(async move { granted.close_fence(&key, &[], ample()).await })
    }

    /// One race: the service goes to its stage, the check to its point or as far as it gets; then one goes on, then the
    /// other.
    async fn race(&self, mut business: Business, stage: Stage, point: Point, first: First, tally: &mut Tally) {
        let key = business.key.clone();
        let mut watch = self.place.service().await;
        business.go_to(stage).await;
        let (reached, let_go) = self.steps.stop_at(point);
        let mut check = self.close(&key);
        let mut met = self.stopped_or_blocked(&mut check, reached, &mut watch).await;
        let finish = async move { business.finish(stage).await };
        let (closed, ended) = if first == First::Business || stage == Stage::CommitSent {
            let mut rest = tokio::spawn(finish);
            if first == First::Business {
                met |= self.finished_or_blocked(&mut rest, &mut watch).await;
            }
            let_go.send(()).ok();
            (check.await.unwrap(), rest.await.unwrap())
        } else {
            let_go.send(()).ok();
            (check.await.unwrap(), finish.await)
        };
        met |= ended.found_the_key || closed == Ok(Fenced::Held);
        self.settle(&key, closed, met, tally, &format!("{stage:?} {point:?} {first:?}")).await;
    }

    /// Waits until the check is at its point, has ended, or waits for a lock. Whether it is the last.
    async fn stopped_or_blocked<T>(
        &self,
        check: &mut JoinHandle<T>,
        mut reached: oneshot::Receiver<()>,
        watch: &mut crate::service::Service,
    ) -> bool {
        loop {
            // An end that drops the other half without a word is one, too.
            if check.is_finished() || !matches!(reached.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return false;
            }
            if self.is_somebody_blocked(watch).await {
                return true;
            }
        }
    }

    async fn finished_or_blocked<T>(&self, task: &mut JoinHandle<T>, watch: &mut crate::service::Service) -> bool {
        loop {
            if task.is_finished() {
                return false;
            }
            if self.is_somebody_blocked(watch).await {
                return true;
            }
        }
    }

    async fn is_somebody_blocked(&self, watch: &mut crate::service::Service) -> bool {
        let query = match self.place.dialect {
            Dialect::Postgres => {
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            }
            // Nobody says who waits; whoever does is told that the database is busy soon enough.
            Dialect::Sqlite => {
                tokio::task::yield_now().await;
                return false;
            }
            _ => {
                "select variable_value from information_schema.global_status \
                 where variable_name = 'Innodb_row_lock_current_waits'"
            }
        };
        watch.must(query).await.as_deref() != Some("0")
    }

    /// Compares what was answered, then and now, with the ledger.
    async fn settle(&self, key: &str, closed: Result<Fenced, SqlError>, met: bool, tally: &mut Tally, what: &str) {
        let order = format!("select count(*) from orders where id = '{key}'");
        let happened = self.place.service().await.must(&order).await.as_deref() == Some("1");
        let last = self.granted.close_fence(key, &[], ample()).await;
        let says = |answer: &Result<Fenced, SqlError>| match answer {
            Ok(Fenced::Committed) => Some(true),
            Ok(Fenced::RolledBack) => Some(false),
            Ok(Fenced::Held) => None,
            other => panic!("{what}: {other:?}"),
        };
        tally.races += 1;
        tally.met += u32::from(met);
        *(if happened { &mut tally.committed } else { &mut tally.rolled_back }) += 1;
        tally.held += u32::from(says(&closed).is_none());
        if says(&closed).is_some_and(|answer| answer != happened) || says(&last) != Some(happened) {
            tally.disagreements.push(format!("{what}: {closed:?}, then {last:?}, and the order is there: {happened}"));
        }
    }

    /// All pairs, with either going on first.
    async fn all_pairs(&self, level: &str, custom: Custom) -> Tally {
        let mut tally = Tally::default();
        for stage in Stage::ALL {
            for point in Point::ALL {
                for first in [First::Business, First::Check] {
                    let key = format!("{level} {stage:?} {point:?} {first:?}");
                    let business = Business::new(&self.place, level, custom.insert, &key).await;
                    self.race(business, stage, point, first, &mut tally).await;
                }
            }
        }
        tally
    }

    /// A service that is in the middle of its transaction, against a check that guesses from a missing order row.
    async fn without_a_fence(&self, level: &str) -> u32 {
        let mut disagreements = 0;
        for stage in [Stage::OrderRow, Stage::FenceRow] {
            let mut business = Business::new(&self.place, level, Insert::Plain, &format!("{level} {stage:?}")).await;
            let count = format!("select count(*) from orders where id = '{}'", business.key);
            business.go_to(stage).await;
            let guess = self.granted.run(&Statement::new(count.clone(), []), ample()).await.unwrap();
            business.finish(stage).await;
            let truth = self.granted.run(&Statement::new(count, []), ample()).await.unwrap();
            disagreements += u32::from(guess.rows != truth.rows);
        }
        disagreements
    }

    /// A row that is there when the check inserts, and gone when it reads again, decides nothing.
    async fn gone_again(&self) -> Result<Fenced, SqlError> {
        let mut service = self.place.service().await;
        let (reached, let_go) = self.steps.stop_at(Point::BeforeInsert);
        let check = self.close("gone");
        reached.await.unwrap();
        service.must("insert into vouch_fence (fence_key, outcome) values ('gone', 'committed')").await;
        let (reads_again, let_read) = self.steps.stop_at(Point::BeforeRead);
        let_go.send(()).unwrap();
        reads_again.await.unwrap();
        service.must("delete from vouch_fence").await;
        let_read.send(()).unwrap();
        check.await.unwrap()
    }

    /// Both at once, as they come. Whoever won waits a little longer the next time, so that neither always does.
    async fn at_random(&self, level: &str, races: u32) -> Tally {
        let mut tally = Tally::default();
        let mut business = Business::new(&self.place, level, Insert::Plain, "").await;
        // By how much the business transaction begins later than the check.
        let mut handicap_us = 0_i64;
        for number in 0..races {
            business.key = format!("{level} random {number}");
            let later_us = handicap_us + rand::random_range(-500..500);
            let wait = |us: i64| tokio::time::sleep(Duration::from_micros(u64::try_from(us).unwrap_or(0)));
            let key = business.key.clone();
            let check = async {
                wait(-later_us).await;
                self.close(&key).await.unwrap()
            };
            let transaction = async {
                wait(later_us).await;
                business.run_all().await
            };
            let (closed, ended) = tokio::join!(check, transaction);
            let met = ended.found_the_key || closed == Ok(Fenced::Held);
            let before = tally.committed;
            self.settle(&key, closed, met, &mut tally, &key).await;
            handicap_us += if tally.committed > before { 250 } else { -250 };
        }
        tally
    }
}

/// Says in the output of the tests what was counted.
fn tell(what: &str, tally: &Tally) {
    println!("{what}: {tally:?}");
}

/// All pairs at each level, for a service that writes like this.
async fn pairs_on<K: Connector>(dialect: Dialect, levels: &[&str], custom: Custom, connector: impl Fn(&Place) -> K) {
    let Some(place) = Place::with_tables(dialect, custom.trigger) else { return };
    let inner = connector(&place);
    let field = Field::new(place, inner);
    let is_right = !(custom.insert == Insert::Upsert && custom.trigger == Trigger::Without);
    for level in levels {
        let tally = field.all_pairs(level, custom).await;
        tell(&format!("{dialect:?} {level}, {custom:?}"), &tally);
        assert_eq!(tally.races, 48);
        assert_eq!(tally.disagreements.is_empty(), is_right, "{dialect:?} {level}: {:#?}", tally.disagreements);
        // Where rows can be turned, one side wins nearly always.
        let least = tally.races / 5;
        assert!(!is_right || (tally.committed >= least && tally.rolled_back >= least), "{tally:?}");
        assert!(tally.met >= tally.races / 20, "{tally:?}");
    }
}

/// Guesses without a fence, and races as they come.
async fn others_on<K: Connector>(dialect: Dialect, levels: &[&str], connector: impl Fn(&Place) -> K) {
    let Some(place) = Place::new(dialect) else { return };
    let inner = connector(&place);
    let field = Field::new(place, inner);
    for level in levels {
        assert_eq!(field.without_a_fence(level).await, 2, "{dialect:?} {level}: without a fence a guess is a guess");
    }
    // In SQLite nobody inserts while the check has begun.
    if dialect != Dialect::Sqlite {
        assert_eq!(field.gone_again().await, Ok(Fenced::Held), "{dialect:?}");
    }
    let tally = field.at_random(levels[0], 300).await;
    tell(&format!("{dialect:?} at random"), &tally);
    assert!(tally.disagreements.is_empty(), "{:#?}", tally.disagreements);
    let least = tally.races / 5;
    assert!(tally.committed >= least && tally.rolled_back >= least && tally.met >= tally.races / 20, "{tally:?}");
}

/// All that is asked of one database, side by side: who is blocked is told for each by itself.
async fn races_on<K: Connector>(dialect: Dialect, levels: &[&str], connector: impl Fn(&Place) -> K) {
    tokio::join!(
        pairs_on(dialect, levels, AS_WRITTEN, &connector),
        pairs_on(dialect, levels, UPSERT, &connector),
        pairs_on(dialect, levels, UPSERT_WITHOUT_TRIGGER, &connector),
        others_on(dialect, levels, &connector),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_contradicts_postgres() {
    let levels = ["read committed", "repeatable read", "serializable"];
    races_on(Dialect::Postgres, &levels, |place| {
        let DatabaseUrl::Postgres(server) = place.url() else { unreachable!("of this dialect") };
        PostgresConnector::new(server, TlsUse::UnlessLocal, SqlLimits::default(), &place.surroundings()).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_contradicts_mariadb() {
    let levels = ["read committed", "repeatable read"];
    let connector = |place: &Place| {
        let DatabaseUrl::MySql(server) = place.url() else { unreachable!("of this dialect") };
        MySqlConnector::new(server, TlsUse::UnlessLocal, SqlLimits::default(), &place.surroundings()).unwrap()
    };
    // One after the other: who is blocked is told for the whole server.
    for custom in [AS_WRITTEN, UPSERT, UPSERT_WITHOUT_TRIGGER] {
        pairs_on(Dialect::MariaDb, &levels, custom, connector).await;
    }
    others_on(Dialect::MariaDb, &levels, connector).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_contradicts_sqlite() {
    races_on(Dialect::Sqlite, &["serializable"], |place| {
        let DatabaseUrl::Sqlite(path) = place.url() else { unreachable!("of this dialect") };
        SqliteConnector::new(&path, SqlLimits::default(), &place.surroundings()).unwrap()
    })
    .await;
}
