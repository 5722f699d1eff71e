"""Bindings of the ready-made component that ask databases for what no database should be asked, what stands behind them, and
what one can see of a node meanwhile: whom it still talks to, what memory it holds, and how long sends take."""

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from broker import HttpProblem, binary, quote, wait_until
from cluster import Node, free_address
from databases import Database, MariaDb, Postgres
from races import SQL, component
from raw import raw_client, raw_message
from wire import Code, MessageType

# Half messages in one send.
BATCH = 256
TOLD_WITHIN_S = 20
# What a check may be told, too, while sends keep the processors busy for the figures: components get what nobody else wants, and
# some get nothing of it before their time is over.
STOPPED = ("the component did not answer within",) if os.environ.get("VOUCH_HOSTILE_FIGURES") == "1" else ()


@dataclass(frozen=True)
class Attacker:
    """One binding: what it asks for, the sentence that its checks are told, and what else they may be told."""

    statement: str
    told: str
    or_told: tuple = ()
    refused: bool = False     # already when it is tried
    computes: bool = False    # its database does, for as long as it is let
    grant: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)


class Attack:
    """Bindings with half messages that nobody ends, so that they are asked all the time. `url`: of another database."""

    def __init__(self, broker, database: Database, name: str, attackers: list[Attacker], halves: int, url=None):
        self.broker, self.database, self.name = broker, database, name
        self.attackers, self.url = attackers, url or database.url()
        component(broker, SQL)
        self.ids = {}      # binding, which is called as its topic → its transactions
        with raw_client(broker) as raw:
            for number in range(len(attackers)):
                topic = f"{name}-{number}"
                broker.create_transaction_topic(topic, immunity="100ms", interval="1s", max_checks=1000)
                self.ids[topic] = _leave_open(raw, topic, halves // len(attackers))

    def bindings(self) -> list[tuple[str, Attacker]]:
        return list(zip(self.ids, self.attackers))

    def bind(self, name: str, attacker: Attacker, **more):
        params = {"params": "{key}"} if "?" in attacker.statement else {}
        self.broker.set_binding(name, plugin=SQL, topics=[name], grants={"sql": {"shop": {"url": self.url, **attacker.grant}}},
                                config={"database": "shop", "statement": self.database.text(attacker.statement),
                                        "commit": "NEW", "fence": "off", **params, **attacker.config}, **more)

    def is_refused_when_tried(self, name: str, attacker: Attacker):
        try:
            self.bind(name, attacker)
        except HttpProblem as refusal:
            assert refusal.status == 422 and attacker.told in refusal.body["detail"], refusal
        else:
            raise AssertionError(f"was taken: {attacker.statement}")

    def begin(self):
        for name, attacker in self.bindings():
            self.bind(name, attacker, unchecked=True)

    def end(self):
        for name in self.ids:
            self.broker.call("DELETE", f"/v1/bindings/{quote(name)}")

    def errors(self, name: str) -> dict[str, str]:
        """What the latest checks of its transactions were told, each with one that was; of some of them."""
        shown = [self.broker.transaction(id) for id in self.ids[name][:12]]
        return {answer["error"]: each["id"] for each in shown if (answer := each.get("last_answer")) and "error" in answer}

    def unanswered(self, name: str) -> float:
        return metric(self.broker, f'vouch_checks_total{{binding="{name}",verdict="no_answer"}}')

    def is_told(self, name: str, attacker: Attacker) -> bool:
        """Whether it was, at least one of them; that it was told anything else than it may is a failure at once."""
        errors = self.errors(name)
        may_be_told = (attacker.told, *attacker.or_told, *STOPPED)
        strange = [each for each in errors if not any(told in each for told in may_be_told)]
        assert not strange, f"{attacker.statement}: told {strange}, not {attacker.told!r}"
        return any(attacker.told in each for each in errors) and self.unanswered(name) > 0

    def shown(self, name: str, attacker: Attacker) -> str:
        """A transaction of which that was told, as `vouch transaction show` prints it."""
        def of_one_that_was_told():
            # Between the two it may be asked again, and told something else.
            told = [id for error, id in self.errors(name).items() if attacker.told in error]
            shown = [Node.admin(self.broker, "transaction", "show", id).stdout for id in told]
            return next((each for each in shown if attacker.told in each), None)

        return wait_until(of_one_that_was_told, attacker.told, TOLD_WITHIN_S)


def _leave_open(raw, topic: str, count: int) -> list[str]:
    ids = []
    for first in range(0, count, BATCH):
        halves = [raw_message(topic, b"nobody knows", MessageType.TRANSACTION) for _ in range(first, min(first + BATCH, count))]
        for number, half in enumerate(halves, first):
            half.system_properties.keys.append(f"{topic}-{number}")
        answer = raw.send(*halves)
        assert answer.status.code == Code.OK, answer.status
        ids += [entry.transaction_id for entry in answer.entries]
    return ids


# ---- what stands behind them ----------------------------------------------------------------------------------------------


class SilentServer:
    """Takes every connection, reads what is said, and never says anything."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepted = self.open = 0
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.wakes, self.woken = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.woken:
                    return
                if key.fileobj is self.listener:
                    self.selector.register(self.listener.accept()[0], selectors.EVENT_READ)
                    self.accepted, self.open = self.accepted + 1, self.open + 1
                elif not _read(key.fileobj):
                    self.selector.unregister(key.fileobj)
                    key.fileobj.close()
                    self.open -= 1

    def url(self, kind: str) -> str:
        return f"{kind}://vouch@127.0.0.1:{self.port}/shop"

    def connections(self) -> int:
        return self.open

    def remove(self):
        self.wakes.close()
        self.thread.join(10)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


def _read(stream) -> bytes:
    try:
        return stream.recv(1 << 16)
    except OSError:
        return b""


class UntrustedPostgres(Postgres):
    """Speaks TLS, with a certificate that it issued to itself."""

    def prepare(self):
        super().prepare()
        _issue_certificate(self)

    def command(self):
        settings = ("listen_addresses=127.0.0.1", f"port={self.port}", "ssl=on", f"ssl_cert_file={self.folder}/certificate",
                    f"ssl_key_file={self.folder}/key")
        return [*super().command(), *(part for each in settings for part in ("-c", each))]

    def administrator(self, database="postgres"):
        return psycopg.connect(host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True)

    def url(self, kind: str) -> str:
        return f"{kind}://vouch@localhost:{self.port}/postgres"

    def connections(self) -> int:
        return clients_of_postgres(self, "postgres")


class UntrustedMariaDb(MariaDb):
    """The same."""

    def prepare(self):
        super().prepare()
        _issue_certificate(self)

    def command(self):
        plain = [each for each in super().command() if each != "--skip-networking"]
        return [*plain, "--bind-address=127.0.0.1", f"--port={self.port}", f"--ssl-cert={self.folder}/certificate",
                f"--ssl-key={self.folder}/key"]

    def url(self, kind: str) -> str:
        return f"{kind}://vouch@localhost:{self.port}/mysql"

    def connections(self) -> int:
        return clients_of_mariadb(self, None)


class PlainLoad:
    """The same on the same database, by `plain_client.py` in a process of its own; the settings say what and how often."""

    def __init__(self, settings: dict, each_second: int):
        script = Path(__file__).with_name("plain_client.py")
        self.process = subprocess.Popen([sys.executable, script, json.dumps({**settings, "each_second": each_second})],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "PlainLoad":
        return self

    def __exit__(self, *_):
        try:
            said, _ = self.process.communicate(timeout=20)
        finally:
            self.process.kill()
        assert self.process.returncode == 0
        self.did = json.loads(said)

    def told(self) -> str:
        asked, refused = (self.did.get(what, 0) / self.did["seconds"] for what in ("asked", "refused"))
        return f"{asked:.0f} statements and {refused:.0f} refusals a second by a plain client"


def certificate_of_nobody(folder: Path) -> Path:
    """One that issued none of the others."""
    certificate = folder / "nobody"
    done = subprocess.run(_request_of_certificate(folder / "nobody-key", certificate), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return certificate


def _issue_certificate(server):
    server.port = int(free_address().rsplit(":", 1)[1])
    server._run(*_request_of_certificate(server.folder / "key", server.folder / "certificate"))


def _request_of_certificate(key: Path, certificate: Path) -> list[str]:
    return ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]


# ---- what one can see of a node ---------------------------------------------------------------------------------------------


def clients_of_postgres(server, database: str) -> int:
    """Connections to this database, the one that asks not counted."""
    with server.administrator() as connection:
        return connection.execute("select count(*) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                                  [database]).fetchone()[0]


def clients_of_mariadb(server, database: str | None) -> int:
    """The same; without a name, those that have not got as far as a database."""
    connection = server.administrator()
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from information_schema.processlist where db <=> %s and id <> connection_id() "
                       "and command <> 'Daemon'", [database])
        (count,), = cursor.fetchall()
    connection.close()
    return count


def clients_of(database: Database) -> int:
    count = clients_of_postgres if database.kind == "postgres" else clients_of_mariadb
    return count(database.server, database.name)


def metric(broker, name: str) -> float:
    lines = broker.call("GET", "/metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == name)


def memory_mib(broker, what="RssAnon") -> float:
    """What the process holds of its own: mapped files of the log grow with any traffic, and belong to the disk's cache."""
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def send_p99_ms(broker, seconds: int, rate: int) -> float:
    """Of sends at a fixed pace to a topic of their own, from the time at which each was due."""
    command = [binary(), "bench", "send", "--without-peers", "--rounds", "1", "--json", "--seconds", seconds, "--rate", rate,
               "--grpc", broker.grpc, "--http", broker.http]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rounds"][0]["vouch"]["p99_us"] / 1000


def pool_of(attackers: list[Attacker]) -> int:
    """Connections at most, of all bindings together."""
    return sum(each.grant.get("pool", 4) for each in attackers)


def let_others_go_first(server):
    """A database stands for one on another machine: what it computes takes no processor from the node that is measured."""
    for each in _processes(server.pid):
        os.sched_setscheduler(each, os.SCHED_IDLE, os.sched_param(0))


def _processes(pid: int) -> list[int]:
    below = [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()]
    return [pid, *(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()), *below]
