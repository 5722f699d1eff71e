//! The tables to create: the fence with the triggers that make its rows final, and the table of keys that ran once.
//!
//! Keys are compared byte by byte (`collate "C"`, `varbinary`, SQLite's own way), so that none is taken for another. The
//! triggers stand against a service that upserts: it gets the error of a unique violation, as if it had inserted.

use crate::dialect::Dialect;

const POSTGRES_FENCE: &str = r#"create table vouch_fence (
  fence_key varchar(255) collate "C" primary key,
  outcome varchar(16) not null check (outcome in ('committed', 'rolled_back')),
  noted_at timestamptz not null default clock_timestamp());
create index on vouch_fence (noted_at);
"#;

const POSTGRES_TRIGGER: &str = r"create function vouch_fence_final() returns trigger language plpgsql set search_path from current as $$ begin
  if tg_op = 'UPDATE' or exists (select 1 from vouch_fence where fence_key = new.fence_key and outcome <> new.outcome) then
    raise exception 'vouch_fence: % was settled otherwise', new.fence_key using errcode = '23505'; end if; return new; end $$;
create trigger vouch_fence_final before insert or update on vouch_fence for each row execute function vouch_fence_final();
";

const POSTGRES_ONCE: &str = r#"create table vouch_once (
  once_key varchar(255) collate "C" primary key,
  noted_at timestamptz not null default clock_timestamp());
"#;

const MYSQL_FENCE: &str = r"create table vouch_fence (
  fence_key varbinary(255) not null primary key,
  outcome varchar(16) character set ascii not null check (outcome in ('committed', 'rolled_back')),
  noted_at timestamp(3) not null default current_timestamp(3), key (noted_at)) engine = InnoDB;
";

const MYSQL_TRIGGER: &str = r"create trigger vouch_fence_final before update on vouch_fence for each row signal sqlstate '23000' set message_text = 'vouch_fence: a row is final';
";

const MYSQL_ONCE: &str = r"create table vouch_once (
  once_key varbinary(255) not null primary key,
  noted_at timestamp(3) not null default current_timestamp(3)) engine = InnoDB;
";

const SQLITE_FENCE: &str = r"create table vouch_fence (
  fence_key text not null primary key,
  outcome text not null check (outcome in ('committed', 'rolled_back')),
  noted_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))) without rowid;
";

const SQLITE_TRIGGER: &str = r"create trigger vouch_fence_final before insert on vouch_fence when exists (select 1 from vouch_fence where fence_key = new.fence_key and outcome <> new.outcome)
  begin select raise(abort, 'vouch_fence: this message was settled otherwise'); end;
create trigger vouch_fence_final_update before update on vouch_fence begin select raise(abort, 'vouch_fence: a row is final'); end;
";

const SQLITE_ONCE: &str = r"create table vouch_once (
  once_key text not null primary key,
  noted_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))) without rowid;
";

/// The statements that create the fence and once tables, to be run by who owns the database.
///
/// `without_trigger` leaves out what makes rows final: for MySQL with a binary log that forbids triggers to ordinary users.
/// A service that upserts into the fence then undoes it.
pub fn fence_tables(dialect: Dialect, without_trigger: bool) -> String {
    let (fence, trigger, once) = match dialect {
        Dialect::Postgres => (POSTGRES_FENCE, POSTGRES_TRIGGER, POSTGRES_ONCE),
        Dialect::MySql | Dialect::MariaDb => (MYSQL_FENCE, MYSQL_TRIGGER, MYSQL_ONCE),
        Dialect::Sqlite => (SQLITE_FENCE, SQLITE_TRIGGER, SQLITE_ONCE),
    };
    format!("{fence}{}{once}", if without_trigger { "" } else { trigger })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_left_out_where_they_are_forbidden() {
        for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::MariaDb, Dialect::Sqlite] {
            assert!(fence_tables(dialect, false).contains("create trigger vouch_fence_final"));
            let without = fence_tables(dialect, true);
            assert!(!without.contains("trigger") && without.contains("vouch_fence") && without.contains("vouch_once"));
        }
    }
}
