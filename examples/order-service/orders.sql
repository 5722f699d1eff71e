-- What the order service keeps in PostgreSQL, and what the broker's user may do there. For the owner of the database to
-- run, after what `vouch sql fence-table --database postgres` prints.

create table orders (
  id text primary key,
  item text not null,
  status text not null check (status in ('PAID', 'UNPAID', 'CANCELLED', 'NOTIFY_PENDING')),
  -- Which message tells of the order: its row in the fence. Null while the status is NOTIFY_PENDING.
  message text unique);
create index on orders (id) where status = 'NOTIFY_PENDING';

-- DELETE is for `vouch sql fence-clean`.
grant select, insert, delete on vouch_fence to vouch;
-- What the binding's `on-rollback` needs, and no more.
grant select (message, status), update (status) on orders to vouch;
