//! The databases of a binding's grants: how they are written, and what is opened.

use std::{
    collections::BTreeMap,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use vouch_sql::{
    Database, DatabasePassword, DatabaseUrl, FenceExamination, SqlCall, SqlError, SqlGrant, SqlLimits, SqlSurroundings,
    TlsUse,
};

use crate::{dry::DryRun, limits::Limits};

/// Databases by the names that the binding gives them.
pub(crate) type OpenDatabases = Arc<BTreeMap<String, OpenDatabase>>;

/// One of them.
pub(crate) struct OpenDatabase {
    pub(crate) database: Database,
    /// It has a fence table.
    pub(crate) fence: bool,
}

impl OpenDatabase {
    /// Whether it can be reached, and whether its fence can be trusted if it has one.
    ///
    /// # Errors
    /// What it says.
    pub(crate) async fn examine(&self, call: SqlCall) -> Result<FenceExamination, SqlError> {
        if self.fence {
            return self.database.examine_fence(call).await;
        }
        self.database.try_statement("select 1", call).await.map(|_| FenceExamination::default())
    }
}

/// What was found at one database of a binding.
#[derive(Clone, Debug)]
pub struct ExaminedDatabase {
    /// Its name there.
    pub name: String,
    /// Reasons for which its fence must not be used, and for which a crash may take back what it said; or why nobody knows.
    pub found: Result<FenceExamination, SqlError>,
}

/// The fence table of a database, for its upkeep.
pub struct FenceTable(pub(crate) Database);

impl FenceTable {
    /// Deletes all rows that were noted before this time, as the database's clock says it, a thousand in each database transaction,
    /// until none is left or the time is over. `dry`: counts them and deletes none. Returns how many, and whether that were all.
    ///
    /// # Errors
    /// What the database says; rows that were deleted before are gone.
    pub async fn clean(&self, noted_before: SystemTime, within: Duration, dry: bool) -> Result<(u64, bool), SqlError> {
        let (until, mut cleaned) = (Instant::now() + within, 0);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok((cleaned, false));
            }
            let call = if dry { SqlCall::dry_within(left) } else { SqlCall::within(left) };
            let more = self.0.clean_fence(noted_before, call).await?;
            cleaned += more;
            if dry || more == 0 {
                return Ok((cleaned, true));
            }
        }
    }
}

/// One database of a binding's `grants`:
/// `{"url": "postgres://vouch@db/orders", "write": false, "fence": "vouch_fence", "once": "vouch_once", "pool": 4}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseGrant {
    url: String,
    #[serde(default, deserialize_with = "named_only", skip_serializing_if = "Option::is_none")]
    password: Option<NamedSecret>,
    #[serde(default)]
    write: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    once: Option<String>,
    #[serde(default = "default_pool")]
    pool: NonZeroU16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<WrittenTls>,
}

/// `{"secret": "orders-db"}`: a value that stands nowhere in the binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedSecret {
    secret: String,
}

/// Reads a password's secret, and repeats nothing of what is none: it may be the password.
fn named_only<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<NamedSecret>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let named = crate::secrets::named_secret(&value).map(|secret| NamedSecret { secret: secret.to_owned() });
    named.map(Some).ok_or_else(|| {
        serde::de::Error::custom(
            "`password` of a database names a secret (vouch secret set), and is not written into the binding: {\"secret\": \"NAME\"}",
        )
    })
}

/// `"tls": "off"` is said, and never fallen into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenTls {
    On,
    Off,
}

fn default_pool() -> NonZeroU16 {
    SqlGrant::DEFAULT_POOL
}

impl DatabaseGrant {
    /// Most connections to one database that a binding may ask for.
    pub const MAX_POOL: u16 = 64;

    /// The secret that holds its password, if it has one.
    pub fn secret(&self) -> Option<&str> {
        self.password.as_ref().map(|password| password.secret.as_str())
    }

    /// Whether it is a file of this machine, which other nodes of a cluster do not have.
    pub fn is_a_file(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// What it says, read.
    ///
    /// # Errors
    /// A sentence for whoever wrote the grant; it repeats nothing that may be secret.
    pub(crate) fn read(&self, limits: &Limits) -> Result<SqlGrant, String> {
        let url: DatabaseUrl = self.url.parse().map_err(|error| format!("url: {error}"))?;
        if self.pool.get() > Self::MAX_POOL {
            return Err(format!("pool is {}: at most {} connections fit", self.pool, Self::MAX_POOL));
        }
        let table = |name: &Option<String>, what| match name {
            None => Ok(None),
            Some(name) => name.parse().map(Some).map_err(|error| format!("{what}: {error}")),
        };
        let tls = match self.tls {
            None => TlsUse::UnlessLocal,
            Some(WrittenTls::On) => TlsUse::Always,
            Some(WrittenTls::Off) => TlsUse::Off,
        };
        Ok(SqlGrant {
            tls,
            write: self.write,
            fence: table(&self.fence, "fence")?,
            once: table(&self.once, "once")?,
            pool: self.pool,
            limits: SqlLimits {
                rows: limits.sql_rows as usize,
                bytes: limits.sql_bytes.as_usize(),
                ..SqlLimits::default()
            },
            ..SqlGrant::new(url)
        })
    }
}

/// Makes all of them ready. Nothing is connected yet, so a database that is away is no error here.
///
/// # Errors
/// The name of the first one whose grant cannot be used, and why.
pub(crate) fn open(
    grants: &BTreeMap<String, DatabaseGrant>,
    passwords: &BTreeMap<String, DatabasePassword>,
    limits: &Limits,
    surroundings: &SqlSurroundings,
) -> Result<OpenDatabases, (String, String)> {
    let mut open = BTreeMap::new();
    for (name, written) in grants {
        let refused = |why: String| (name.clone(), why);
        let grant = written.read(limits).map_err(refused)?;
        let password = passwords.get(name).cloned().unwrap_or_default();
        let database = Database::open(&grant, password, surroundings).map_err(|error| refused(error.to_string()))?;
        open.insert(name.clone(), OpenDatabase { database, fence: grant.fence.is_some() });
    }
    Ok(Arc::new(open))
}

/// What one call may reach of them, and until when it is answered.
pub(crate) struct SqlReach {
    pub(crate) databases: OpenDatabases,
    pub(crate) call: SqlCall,
    /// `close-fence` answers *held*, and asks no database.
    pub(crate) holds_fences: bool,
    /// Nothing is to stay of this call.
    pub(crate) dry: Option<DryRun>,
}

impl SqlReach {
    /// For a call that has this much time: a little less, so that the guest can still say what went wrong.
    pub(crate) fn within(databases: OpenDatabases, time: Duration) -> Self {
        /// What a guest needs for its last words, at most.
        const LAST_WORDS: Duration = Duration::from_millis(100);
        Self { databases, call: SqlCall::within(time - LAST_WORDS.min(time / 10)), holds_fences: false, dry: None }
    }

    /// The same for a dry call.
    pub(crate) fn dry_within(databases: OpenDatabases, time: Duration, dry: DryRun) -> Self {
        let reach = Self::within(databases, time);
        Self { call: SqlCall { dry: true, ..reach.call }, dry: Some(dry), ..reach }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SqlGrant, String> {
        let grant: DatabaseGrant = serde_json::from_str(text).map_err(|error| error.to_string())?;
        grant.read(&Limits::default())
    }

    #[test]
    fn a_database_is_granted_as_it_is_written_and_read_only_unless_that_says_otherwise() {
        let plain = read(r#"{"url": "postgres://vouch@db/orders"}"#).unwrap();
        assert!(!plain.write && plain.fence.is_none() && plain.tls == TlsUse::UnlessLocal);
        assert_eq!((plain.pool, plain.limits.rows), (SqlGrant::DEFAULT_POOL, 1_000));
        let all = r#"{"url": "mysql://vouch@db/orders", "password": {"secret": "orders-db"}, "write": true, "fence": "shop.fence",
            "once": "vouch_once", "pool": 8, "tls": "off"}"#;
        let grant = read(all).unwrap();
        assert!(grant.write && grant.tls == TlsUse::Off && grant.pool.get() == 8);
        assert_eq!(grant.fence, Some("shop.fence".parse().unwrap()));
        let written: DatabaseGrant = serde_json::from_str(all).unwrap();
        assert_eq!(written.secret(), Some("orders-db"));
        let again: DatabaseGrant = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(again, written);
        let is_a_file = |text| serde_json::from_str::<DatabaseGrant>(text).unwrap().is_a_file();
        assert!(is_a_file(r#"{"url": "sqlite:/orders.db"}"#) && !is_a_file(all));
    }

    #[test]
    fn what_cannot_be_granted_is_told_without_what_may_be_secret() {
        for (text, said) in [
            (r#"{"url": "postgres://vouch:pa55@db/orders"}"#, "set `password` instead"),
            (r#"{"url": "oracle://db"}"#, "begins with postgres://"),
            (r#"{"url": "postgres://vouch@db/orders", "fence": "a b"}"#, "fence: `a b`"),
            (r#"{"url": "postgres://vouch@db/orders", "pool": 65}"#, "at most 64 connections"),
            (r#"{"url": "postgres://vouch@db/orders", "pool": 0}"#, "zero"),
            (r#"{"url": "postgres://vouch@db/orders", "tls": "maybe"}"#, "maybe"),
            (r#"{"url": "postgres://vouch@db/orders", "password": "pa55"}"#, "names a secret"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(said) && !refused.contains("pa55"), "{refused}");
        }
    }

    #[test]
    fn a_guest_has_time_left_for_its_last_words() {
        let left = |ms| {
            let reach = SqlReach::within(Arc::default(), std::time::Duration::from_millis(ms));
            reach.call.deadline.saturating_duration_since(tokio::time::Instant::now()).as_millis()
        };
        assert!(left(1_000) <= 900 && left(1_000) > 800);
        assert!(left(10) <= 9);
    }
}
