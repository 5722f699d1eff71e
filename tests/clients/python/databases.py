"""Real databases for tests: Debian's PostgreSQL and MariaDB in folders of their own, on Unix sockets only and as their packages'
users, who are never root; and SQLite files. Each can be stopped, killed and started again. A service that a test runs in a
process of its own opens sessions here, too: nothing in this file needs the rest of the suite but `binary`."""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pymysql
from broker import binary, wait_until
from pymysql.constants import CLIENT, COMMAND

KINDS = ("postgres", "mariadb", "sqlite")
ORDERS = ("create table orders (id varchar(255) not null primary key, state varchar(20) not null, "
          "message_id varchar(255) not null)")
STARTS_WITHIN_S = 60
# Ends the server when nobody holds its input any more, however the holder ended; then the folder goes with it.
SUPERVISOR = """
"$@" >>"$FOLDER/log" 2>&1 & server=$!
echo $server
cat >/dev/null
kill -"$END" $server 2>/dev/null
wait $server
[ -e "$FOLDER/kept" ] || rm -rf "$FOLDER"
"""


# ---- servers ------------------------------------------------------------------------------------------------------------


class Server:
    """One that runs unless it was stopped."""

    USER = ""           # who the package made for it
    END = "9"           # the signal that ends it with the tests

    def __init__(self):
        # Not below pytest's folder, which only root may enter; and short, as a socket's path has to be.
        self.folder = Path(tempfile.mkdtemp(prefix="vouch-db-"))
        self.supervisor = None
        self.pid = None
        try:
            if os.geteuid() == 0:
                shutil.chown(self.folder, self.USER)
            self.prepare()
            self.start()
        except BaseException:
            self.remove()
            raise

    def _as_server(self, *command) -> list[str]:
        plain = [str(each) for each in command]
        if os.geteuid() != 0:
            return plain
        return ["setpriv", f"--reuid={self.USER}", f"--regid={self.USER}", "--clear-groups", *plain]

    def _run(self, *command):
        done = subprocess.run(self._as_server(*command), capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"

    def start(self):
        (self.folder / "kept").unlink(missing_ok=True)
        environment = {"PATH": os.environ["PATH"], "FOLDER": str(self.folder), "END": self.END}
        self.supervisor = subprocess.Popen(
            self._as_server("sh", "-c", SUPERVISOR, "supervisor", *self.command()), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.folder, env=environment, start_new_session=True)
        self.pid = int(self.supervisor.stdout.readline())
        self.connected(STARTS_WITHIN_S).close()

    def connected(self, deadline_s=10.0):
        """A connection of the administrator, as soon as there can be one."""
        def attempt():
            assert self.pid is None or _lives(self.pid), f"the server ended:\n{self.log()}"
            try:
                return self.administrator()
            except (psycopg.OperationalError, pymysql.err.OperationalError):
                return None

        return wait_until(attempt, f"{type(self).__name__} answers", deadline_s)

    def kill(self):
        """kill -9, of all its processes."""
        below = self._kill_all()
        self._let_supervisor_go()
        wait_until(lambda: not any(_lives(each) for each in below), "its processes are gone")

    def _kill_all(self) -> list[int]:
        os.kill(self.pid, signal.SIGSTOP)
        below = _children(self.pid)
        for each in (self.pid, *below):
            os.kill(each, signal.SIGKILL)
        return below

    def stop(self):
        """As an operator stops it, with clients connected."""
        os.kill(self.pid, signal.SIGINT if isinstance(self, Postgres) else signal.SIGTERM)
        self._let_supervisor_go()

    def _let_supervisor_go(self):
        wait_until(lambda: not _lives(self.pid), "the server is gone", STARTS_WITHIN_S)
        (self.folder / "kept").touch()
        self.supervisor.stdin.close()
        self.supervisor.wait(10)
        self.supervisor.stdout.close()
        self.supervisor = None

    def runs(self) -> bool:
        return self.supervisor is not None

    def remove(self):
        if self.supervisor:
            # It takes the folder away by itself: there are many files, and nobody needs to wait for that.
            self._kill_all()
            self.supervisor.stdin.close()
            self.supervisor.stdout.close()
            self.supervisor = None
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace")[-6000:] if file.exists() else ""


class Postgres(Server):
    USER = "postgres"
    END = "QUIT"

    @staticmethod
    def programs() -> Path | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        return found[-1].parent if found else None

    def prepare(self):
        self._run(self.programs() / "initdb", "-U", "postgres", "-N", "--auth=trust", "-E", "UTF8", "--locale=C",
                  "-D", self.folder / "data")

    def command(self):
        # What a killed process has written stays: without fsync only a power cut takes it.
        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=off", "max_connections=120",
                    "deadlock_timeout=10ms", "log_lock_waits=on", "shared_buffers=32MB")
        return [self.programs() / "postgres", "-D", self.folder / "data",
                *(part for each in settings for part in ("-c", each))]

    def administrator(self, database="postgres"):
        return psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True)

    def create(self, name: str, tables: str):
        with self.connected() as connection:
            connection.execute("do $$ begin create role shop login; create role vouch login; "
                               "exception when duplicate_object then null; end $$")
            connection.execute(f"create database {name} owner shop")
        with self.administrator(name) as connection:
            connection.execute(f"set role shop; {tables}; grant select, insert on vouch_fence to vouch; "
                               "grant select, update on orders to vouch")

    def add(self, name: str, tables: str, granted: dict[str, str]):
        grants = "".join(f"; grant {what} on {table} to vouch" for table, what in granted.items())
        with self.administrator(name) as connection:
            connection.execute(f"set role shop; {tables}{grants}")

    def url(self, name: str) -> str:
        return f"postgres://vouch@localhost/{name}?socket={self.folder}/.s.PGSQL.5432"

    def place(self, name: str) -> dict:
        return {"kind": "postgres", "folder": str(self.folder), "database": name}

    def somebody_waits(self) -> bool:
        """Whether a database transaction waits for another one."""
        with self.administrator() as connection:
            return connection.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                                      "and wait_event = 'transactionid'").fetchone()[0] > 0

    def waits(self) -> int:
        """How often a database transaction waited for another one since the server was made, those of 10 ms or more."""
        return (self.folder / "log").read_bytes().count(b" still waiting for ShareLock")


class MariaDb(Server):
    USER = "mysql"
    waits_before = 0    # those that the server counted before it was killed

    @staticmethod
    def programs() -> Path | None:
        found = [each for each in ("/usr/sbin/mariadbd", "/usr/libexec/mariadbd") if Path(each).exists()]
        return Path(found[0]) if found else None

    # One that starts removes all temporary tables that it finds, those of others as well: each has a folder for its own.
    def prepare(self):
        self._run("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
                  f"--datadir={self.folder}/data", f"--tmpdir={self.folder}")

    def command(self):
        return [self.programs(), "--no-defaults", f"--datadir={self.folder}/data", f"--tmpdir={self.folder}",
                f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", "--skip-networking", "--innodb-buffer-pool-size=32M",
                "--innodb-flush-log-at-trx-commit=2", "--character-set-server=utf8mb4", "--max-connections=120"]

    def administrator(self, database="mysql"):
        return pymysql.connect(unix_socket=f"{self.folder}/socket", user="root", database=database, autocommit=True,
                               client_flag=CLIENT.MULTI_STATEMENTS)

    def _all(self, database: str, statements: str):
        connection = self.administrator(database)
        with connection.cursor() as cursor:
            cursor.execute(statements)
            while cursor.nextset():
                pass
        connection.close()

    def create(self, name: str, tables: str):
        self.connected().close()
        self._all("mysql", f"create user if not exists shop@localhost; create user if not exists vouch@localhost; "
                           f"create database {name}; grant all on {name}.* to shop@localhost")
        self._all(name, f"{tables}; grant select, insert on {name}.vouch_fence to vouch@localhost; "
                        f"grant select, update on {name}.orders to vouch@localhost")

    def add(self, name: str, tables: str, granted: dict[str, str]):
        self._all(name, tables + "".join(f"; grant {what} on {name}.{table} to vouch@localhost" for table, what in granted.items()))

    def url(self, name: str) -> str:
        return f"mariadb://vouch@localhost/{name}?socket={self.folder}/socket"

    def place(self, name: str) -> dict:
        return {"kind": "mariadb", "folder": str(self.folder), "database": name}

    def _status(self, name: str) -> int:
        connection = self.administrator()
        with connection.cursor() as cursor:
            cursor.execute(f"show global status like '{name}'")
            (_, count), = cursor.fetchall()
        connection.close()
        return int(count)

    def somebody_waits(self) -> bool:
        return self._status("Innodb_row_lock_current_waits") > 0

    def waits(self) -> int:
        """How often one waited since the server was made."""
        return self.waits_before + self._status("Innodb_row_lock_waits")

    def kill(self):
        self.waits_before = self.waits()
        super().kill()


def _lives(pid: int) -> bool:
    try:
        # One that ended and was not asked for yet does nothing any more.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children(pid: int) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(each.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(each.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


_servers = {}


def shared(kind: str) -> Server:
    """One server of each kind for all tests of this process; it runs."""
    if kind not in _servers:
        _servers[kind] = {"postgres": Postgres, "mariadb": MariaDb}[kind]()
    server = _servers[kind]
    if not server.runs():
        server.start()
    return server


def remove_all():
    while _servers:
        _servers.popitem()[1].remove()


def obstacle(kind: str) -> str | None:
    """Why there can be no such database here; nothing where there can."""
    if kind == "postgres" and not Postgres.programs():
        return "PostgreSQL is not installed; on Debian and Ubuntu: apt-get install postgresql-15"
    if kind == "mariadb" and not MariaDb.programs():
        return "MariaDB is not installed; on Debian and Ubuntu: apt-get install mariadb-server"
    return None


# ---- one database -------------------------------------------------------------------------------------------------------


class Database:
    """A database of one test, with an orders table and the fence as `vouch sql fence-table` prints it."""

    _made = 0

    def __init__(self, kind: str, folder: Path, trigger=True, wal=False):
        self.kind = kind
        Database._made += 1
        self.name = f"shop_{os.getpid()}_{Database._made}"
        tables = f"{fence_tables(kind, trigger)}; {ORDERS}"
        if kind == "sqlite":
            self.server = None
            self.folder = folder / self.name
            self.folder.mkdir(parents=True)
            file = sqlite3.connect(self.folder / "shop.db")
            if wal:
                file.execute("pragma journal_mode = wal")
            file.executescript(tables)
            file.close()
        else:
            self.server = shared(kind)
            self.server.create(self.name, tables)

    def add(self, tables: str, granted: dict[str, str]):
        """Further tables, and what the broker's user may do with each table, those that are there included."""
        if self.server:
            self.server.add(self.name, tables, granted)
            return
        file = sqlite3.connect(self.folder / "shop.db")
        file.executescript(tables)
        file.close()

    def url(self) -> str:
        return f"sqlite:{self.folder}/shop.db" if self.kind == "sqlite" else self.server.url(self.name)

    def place(self) -> dict:
        """Where a service finds it."""
        return {"kind": "sqlite", "file": f"{self.folder}/shop.db"} if self.kind == "sqlite" else self.server.place(self.name)

    def text(self, statement: str) -> str:
        """A statement with `?` for its parameters, as a binding has it."""
        if self.kind != "postgres":
            return statement
        first, *parts = statement.split("?")
        return first + "".join(f"${number}{part}" for number, part in enumerate(parts, 1))

    def kill(self):
        self.server.kill()

    def stop(self):
        self.server.stop()

    def start(self):
        self.server.start()

    def somebody_waits(self) -> bool:
        return self.server is not None and self.server.somebody_waits()

    def waits(self) -> int:
        return self.server.waits() if self.server else 0

    def session(self) -> "Session":
        return open_session(self.place())

    def ask(self, statement: str, *params):
        """All rows of a query."""
        session = self.session()
        try:
            return session.run(statement, *params)
        finally:
            session.close()


def fence_tables(kind: str, trigger=True) -> str:
    command = [str(binary()), "sql", "fence-table", "--database", kind, *([] if trigger else ["--without-trigger"])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rstrip(";")


# ---- a service's session --------------------------------------------------------------------------------------------------


class Taken(Exception):
    """A row with this key is there."""


class Failed(Exception):
    """Anything else that went wrong; of a COMMIT it says nothing about what became of it."""


def open_session(place: dict) -> "Session":
    return {"postgres": PostgresSession, "mariadb": MariaDbSession, "sqlite": SqliteSession}[place["kind"]](place)


UPSERTS = {
    "postgres": "insert into vouch_fence (fence_key, outcome) values (?, ?) "
                "on conflict (fence_key) do update set outcome = excluded.outcome",
    "mariadb": "insert into vouch_fence (fence_key, outcome) values (?, ?) "
               "on duplicate key update outcome = values(outcome)",
    "sqlite": "insert or replace into vouch_fence (fence_key, outcome) values (?, ?)",
}


class Session:
    """One connection of the service that owns the database."""

    FAULTS = ()
    LEVELS = ("",)

    def __init__(self, place: dict):
        self.kind = place["kind"]
        try:
            self.connection = self.connect(place)
        except self.FAULTS as fault:
            raise Failed(f"connect: {fault}") from None

    def run(self, statement: str, *params):
        """Runs one; its rows, or how many it changed."""
        try:
            cursor = self.connection.cursor()
            cursor.execute(self.place_of(statement), params)
            return cursor.fetchall() if cursor.description else cursor.rowcount
        except self.FAULTS as fault:
            if self.is_taken(fault):
                raise Taken(str(fault)) from None
            raise Failed(f"{type(fault).__name__}: {fault}") from None

    def place_of(self, statement: str) -> str:
        return statement.replace("?", "%s")

    def begin(self, level: str = ""):
        self.run("begin")

    def commit(self):
        self.run("commit")

    def roll_back(self):
        """Whatever stands in its way: the database undoes what is not committed."""
        try:
            self.run("rollback")
        except (Failed, Taken):
            pass

    def close(self):
        try:
            self.connection.close()
        except self.FAULTS:
            pass


class PostgresSession(Session):
    FAULTS = (psycopg.Error,)
    LEVELS = ("read committed", "repeatable read", "serializable")

    def connect(self, place):
        return psycopg.connect(host=place["folder"], user="shop", dbname=place["database"], autocommit=True,
                               prepare_threshold=None)

    def is_taken(self, fault):
        return isinstance(fault, psycopg.errors.UniqueViolation)

    def begin(self, level=""):
        self.run(f"begin isolation level {level or 'read committed'}")

    def send_commit(self):
        """Nobody will read the answer."""
        try:
            self.connection.pgconn.send_query(b"commit")
            while self.connection.pgconn.flush():
                pass
        except self.FAULTS as fault:
            raise Failed(f"commit: {fault}") from None


class MariaDbSession(Session):
    FAULTS = (pymysql.err.Error, OSError)
    LEVELS = ("read committed", "repeatable read")

    def connect(self, place):
        return pymysql.connect(unix_socket=f"{place['folder']}/socket", user="shop", database=place["database"],
                               autocommit=True)

    def is_taken(self, fault):
        # 1062: the key is there; 1644: the trigger says so.
        return isinstance(fault, pymysql.err.Error) and fault.args and fault.args[0] in (1062, 1644)

    def begin(self, level=""):
        self.run(f"set transaction isolation level {level or 'repeatable read'}")
        self.run("start transaction")

    def send_commit(self):
        """As above."""
        try:
            self.connection._execute_command(COMMAND.COM_QUERY, "commit")
        except self.FAULTS as fault:
            raise Failed(f"commit: {fault}") from None


class SqliteSession(Session):
    FAULTS = (sqlite3.Error,)

    def connect(self, place):
        connection = sqlite3.connect(place["file"], isolation_level=None, timeout=5, check_same_thread=False)
        connection.execute("pragma synchronous = full")
        return connection

    def is_taken(self, fault):
        return isinstance(fault, sqlite3.IntegrityError)

    def place_of(self, statement):
        return statement

    def send_commit(self):
        """There is nobody to whom it could be sent."""
        self.commit()


def wait_for_session(place: dict, deadline_s=30.0) -> Session:
    """As a service does after its database was away."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            return open_session(place)
        except Failed:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
