#!/usr/bin/env bash
# A PostgreSQL for one run of a suite, in whatever language: a new server in a folder of its own, with two databases of a shop.
# In `shop` the fence has its trigger, in `shop_without_trigger` only its primary key.
#
#   postgres.sh VOUCH      the broker under test, which prints the tables of the fence
#
# Says `ready PORT PASSWORD SOCKET`: of user postgres on 127.0.0.1, and for the broker a socket that asks for no password.
# It runs until its standard input ends, as that does with the suite however that dies, and leaves nothing behind.
# Exit 77: PostgreSQL is not installed, which is said.
set -euo pipefail
# An interrupt from the keyboard is for the suite; this ends when the suite does.
trap '' INT

vouch="$(realpath "$1")"
# The newest of those that Debian's packages have put there.
programs="$(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort | tail -n 1)"
if [[ ! -x $programs/postgres ]]; then
    echo "PostgreSQL is not installed; on Debian and Ubuntu: apt-get install postgresql-15"
    exit 77
fi

# The server will not run as root, and its package made a user for it.
as_server=()
folder="$(mktemp -d "${TMPDIR:-/tmp}/vouch-postgres-XXXXXX")"
if [[ $(id -u) == 0 ]]; then
    as_server=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    chown postgres:postgres "$folder"
fi
cd "$folder"
server() { "${as_server[@]}" "$programs/$1" "${@:2}"; }
finish() {
    server pg_ctl --pgdata data --mode immediate stop >/dev/null 2>&1 || true
    cd / && rm -rf "$folder"
}
trap finish EXIT

password="$(od --address-radix n --read-bytes 16 --format x1 /dev/urandom | tr -d ' \n')"
"${as_server[@]}" sh -c "umask 077 && printf %s '$password' >password"
server initdb --pgdata data --username postgres --pwfile password --auth-local trust --auth-host scram-sha-256 \
    --encoding UTF8 --locale C --no-sync >initdb.log
# Commits wait for nobody but where an order wants it, see below: the replica that is named does not exist.
"${as_server[@]}" tee -a data/postgresql.conf >/dev/null <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = '$folder'
fsync = off
synchronous_standby_names = 'nobody'
synchronous_commit = local
SETTINGS

# A port is free until somebody takes it: another one then. These are none that the system gives to whoever asks for any.
port=
for _ in {1..20}; do
    candidate="$(shuf --input-range 20000-32000 --head-count 1)"
    # Nothing of it may keep the output open that the suite reads.
    if server pg_ctl --pgdata data --wait --timeout 60 --log server.log --options "-p $candidate" start >/dev/null 2>&1; then
        port="$candidate"
        break
    fi
done
if [[ -z $port ]]; then
    echo "PostgreSQL does not start:" "$(tail -n 3 server.log)"
    exit 1
fi

run() { "$programs/psql" --host "$folder" --port "$port" --username postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@" >&2; }
tables() {
    "$vouch" sql fence-table --database postgres "$@"
    cat <<'SHOP'
create table orders (id text primary key, amount integer not null);

-- What goes wrong in COMMIT goes wrong there in truth, and nothing between client and server plays it.
--   lost-…:        the connection ends within COMMIT, and nothing of the transaction happened
--   unanswered-…:  all of it happened, and the answer does not come: it waits for a replica until the session is ended
create function fate() returns trigger language plpgsql as $$ begin
  if new.id like 'lost-%' then
    perform pg_terminate_backend(pg_backend_pid());
    perform pg_sleep(60); -- where the word to end is heard
  elsif new.id like 'unanswered-%' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  return null;
end $$;
create constraint trigger fate after insert on orders deferrable initially deferred for each row execute function fate();
SHOP
}
run --command 'create database shop' --command 'create database shop_without_trigger'
tables | run --dbname shop
tables --without-trigger | run --dbname shop_without_trigger

echo "ready $port $password $folder/.s.PGSQL.$port"
cat >/dev/null
