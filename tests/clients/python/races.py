"""Services that place orders while the broker's checks close what is missing, and a ledger outside of the database, the topic
and the services: an order has its row and one delivery, or neither."""

import json
import shutil
import subprocess
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field

from broker import Broker, binary, plugin_dist, quote, wait_until
from clients import configuration
from cluster import COMMAND_DEADLINE_S
from databases import Database, wait_for_session
from rocketmq import FilterExpression, SimpleConsumer
from service_process import ServiceProcess

SQL, HTTP = "sql-checkback:test", "http-checkback:test"
# Nothing is closed before this; and at once.
NEVER, AT_ONCE = "1h", "1ms"
# What a node was killed with comes again after so long.
LEASE_S = 10
# A lock of MariaDB is waited for a second at least.
LIMITS = {"deadline": "3s"}
SETTLES_WITHIN_S = 60
HELD = "an open database transaction holds the row, or the database is busy"
# What the service is certain of, and whether its row is there then.
CERTAIN = {"committed": True, "settled otherwise": False, "rolled back": False, "failed": False}


@dataclass
class Race:
    order: str
    plan: dict
    message_id: str | None = None
    transaction_id: str | None = None
    points: list = field(default_factory=list)
    told: str | None = None
    fault: str | None = None
    ended: str | None = None
    service: ServiceProcess | None = field(default=None, repr=False)


@dataclass
class Truth:
    """What there is, when all has settled."""

    rows: Counter       # order → its rows
    fences: dict        # message id → outcome
    halves: dict        # order → its transactions, as the broker lists them


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.races = {}
        self.deliveries = defaultdict(list)   # order → (message id, attempt), as they came

    def begin(self, order: str, plan: dict) -> Race:
        with self.lock:
            return self.races.setdefault(order, Race(order, plan))

    def hears(self, said: dict):
        if not (race := self.races.get(said.get("order"))):
            return
        with self.changed:
            if "at" in said:
                race.points.append(said["at"])
            for what in ("message_id", "transaction_id", "told", "fault", "ended"):
                if what in said:
                    setattr(race, what, said[what])
            self.changed.notify_all()

    def delivered(self, messages):
        with self.lock:
            for each in messages:
                self.deliveries[each.body.decode()].append((each.message_id, each.delivery_attempt))

    def under_way(self) -> int:
        return sum(race.told is None for race in self.races.values())

    def disagreements(self, truth: Truth) -> list[str]:
        """Orders of which the row says one thing and the deliveries another."""
        found = []
        for order in self.races.keys() | self.deliveries.keys() | truth.rows.keys():
            rows, came = truth.rows[order], {message_id for message_id, _ in self.deliveries[order]}
            firsts = sum(attempt == 1 for _, attempt in self.deliveries[order])
            if not (rows == len(came) == 1 and firsts <= 1 or rows == len(came) == 0):
                found.append(f"{order}: {rows} rows, deliveries {self.deliveries[order]}; {self.told(order, truth)}")
        return found

    def faults(self, truth: Truth, node_was_killed=False) -> list[str]:
        """Everything that should not be, in sentences."""
        found = self.disagreements(truth)
        for order, race in self.races.items():
            states = [each["state"] for each in truth.halves.get(order, [])]
            # Where an answer was lost there may be several halves, of which one is the order's.
            if not set(states) <= {"committed", "rolled_back"} or states.count("committed") > 1 or \
                    (race.message_id and not states) or (len(states) > 1 and not node_was_killed):
                found.append(f"{order} is not settled as one; {self.told(order, truth)}")
            if (states.count("committed") == 1) != (truth.rows[order] == 1):
                found.append(f"{order} is settled otherwise than its row says; {self.told(order, truth)}")
            if race.told in CERTAIN and CERTAIN[race.told] != (truth.rows[order] == 1):
                found.append(f"{order}: the database told its service something else; {self.told(order, truth)}")
            if race.told and race.told.startswith("fault"):
                found.append(f"{order}: its service failed; {self.told(order, truth)}")
            if race.ended and str(race.ended).split(":")[0].isdigit() and race.told in CERTAIN:
                found.append(f"{order}: its end was refused; {self.told(order, truth)}")
            attempts = [attempt for _, attempt in self.deliveries[order]]
            if attempts != sorted(set(attempts)) or (len(attempts) > 1 or attempts > [1]) and not node_was_killed:
                found.append(f"{order} was delivered again; {self.told(order, truth)}")
        found += [f"{order}: nobody sent it" for order in truth.halves.keys() - self.races.keys()]
        return found

    def told(self, order: str, truth: Truth) -> str:
        race = self.races.get(order)
        fence = race and truth.fences.get(race.message_id)
        return f"{race}, deliveries {self.deliveries[order]}, fence {fence}, transactions {truth.halves.get(order)}"


# Small, so that many fit on a disk, however full that is.
SIZES = ("--segment-size", "16MiB", "--zero-ahead", "1MiB", "--disk-high-water", "99")


@contextmanager
def node_with_components(folder, sizes=SIZES):
    """A node that may open the SQLite files below the folder, with the components of this repository. Without sizes it has those
    that an operator's has."""
    (folder / "node").mkdir()
    broker = Broker(folder / "node")
    broker.small = broker.small if sizes else {}
    start = broker.start
    broker.start = lambda: start(*sizes, "--sqlite-dirs", str(folder))
    try:
        yield broker.start()
    except BaseException:
        broker.kill()
        raise
    if broker.is_running():
        assert broker.stop() == 0, broker.log()
    assert "panicked at" not in broker.log(1 << 30), broker.log()
    shutil.rmtree(broker.data_dir)


def component(broker, reference: str) -> str:
    """Pushes it, unless that was done; its reference."""
    name, tag = reference.split(":")
    pushed = broker.__dict__.setdefault("pushed", set())
    if reference not in pushed:
        broker.push_component(name, tag, (plugin_dist() / f"{name}.wasm").read_bytes())
        pushed.add(reference)
    return reference


class Field:
    """A broker, a database, and a topic whose transactions a binding settles."""

    def __init__(self, broker: Broker, database: Database, topic: str, **check):
        self.broker, self.database, self.topic = broker, database, topic
        self.ledger = Ledger()
        self.services = []
        self.node_was_killed = False
        broker.create_transaction_topic(topic, **{"immunity": "100ms", "interval": "100ms", "max_checks": 1000, **check})
        self.receiving = threading.Event()
        self.receiving.set()
        self.consumer = SimpleConsumer(configuration(broker), topic, {topic: FilterExpression("*")}, await_duration=1)
        self.consumer.startup()
        self.receiver = threading.Thread(target=self._receive, daemon=True)
        self.receiver.start()

    def bind(self, fence_after: str, limits=LIMITS, **config):
        self._set({"fence": "vouch_fence", "write": True}, {"fence-after": fence_after, **config}, limits)

    def bind_without_fence(self, missing_after: str):
        """Asks for the order, and guesses by age where there is none."""
        self._set({}, {"fence": "off", "statement": self.database.text("select state from orders where id = ?"),
                       "params": "{key}", "commit": "NEW", "rollback-missing-after": missing_after})

    def _set(self, grant: dict, config: dict, limits=LIMITS):
        self.broker.set_binding(self.topic, plugin=component(self.broker, SQL), topics=[self.topic], limits=limits,
                                grants={"sql": {"shop": {"url": self.database.url(), **grant}}},
                                config={"database": "shop", **config})

    def _receive(self):
        while self.receiving.is_set():
            try:
                received = self.consumer.receive(32, LEASE_S)
                self.ledger.delivered(received)
                for each in received:
                    self.consumer.ack(each)
            except Exception:
                time.sleep(0.1)  # the node is down

    # -- services -----------------------------------------------------------------------------------------------------

    def service(self, script="fence_service.py", **more) -> ServiceProcess:
        made = ServiceProcess(script, self.ledger.hears, **{"broker": self.broker.grpc, "topic": self.topic,
                                                            "place": self.database.place(), **more})
        self.services.append(made)
        return made.ready()

    def order(self, service: ServiceProcess, order: str, **plan) -> Race:
        race = self.ledger.begin(order, plan)
        race.service = service
        service.tell(order=order, **plan)
        return race

    def arrives(self, race: Race):
        """Waits until it has stopped where it is to stop."""
        wanted = race.plan["stop"]
        with self.ledger.changed:
            arrived = self.ledger.changed.wait_for(lambda: wanted in race.points or race.told, 30)
        assert arrived and wanted in race.points, f"{race} does not come to {wanted}"

    def kill(self, service: ServiceProcess):
        service.kill()
        with self.ledger.changed:
            for race in self.ledger.races.values():
                if race.service is service and race.told is None:
                    race.told = "killed"
            self.ledger.changed.notify_all()

    def kill_node(self):
        self.broker.kill()
        self.node_was_killed = True

    def all_told(self, at_most_open=0, deadline_s=SETTLES_WITHIN_S):
        """Waits until so few orders are under way."""
        with self.ledger.changed:
            done = self.ledger.changed.wait_for(lambda: self.ledger.under_way() <= at_most_open, deadline_s)
            left = [race for race in self.ledger.races.values() if race.told is None]
        assert done, f"{len(left)} orders stay under way: {left[:5]}\n" + \
            "\n".join(each.complaints() for each in self.services)

    # -- what there is --------------------------------------------------------------------------------------------------

    def transactions(self) -> list[dict]:
        """All of the topic, as the command lists them."""
        found, after = [], []
        while True:
            done = subprocess.run([str(binary()), "transaction", "list", "--json", "--topic", self.topic, "--limit", "1000",
                                   *after, "--http", self.broker.http], capture_output=True, text=True,
                                  timeout=COMMAND_DEADLINE_S)
            assert done.returncode == 0, done.stderr
            page = json.loads(done.stdout)
            found += page["items"]
            if not page.get("next"):
                return found
            after = ["--after", page["next"]]

    def shown(self, race: Race) -> dict:
        return self.broker.transaction(race.transaction_id)

    def is_open(self, race: Race) -> bool:
        return self.shown(race)["state"] in ("open", "waiting_for_checker")

    def settled(self) -> Truth:
        """Waits until nothing is open, and all that was committed has come."""
        path = f"/v1/transactions?topic={quote(self.topic)}&limit=1000&state="
        still_open = []

        def nothing_open():
            still_open[:] = [each for state in ("open", "waiting_for_checker", "parked")
                             for each in self.broker.call("GET", path + state)["items"]]
            return not still_open

        try:
            wait_until(nothing_open, "all transactions ended", SETTLES_WITHIN_S, 0.1)
        except AssertionError:
            raise AssertionError(f"{len(still_open)} transactions stay open: {still_open[:3]}") from None
        halves = defaultdict(list)
        for each in self.transactions():
            halves[each["keys"][0]].append(each)
        committed = {order for order, all_of_it in halves.items() if any(each["state"] == "committed" for each in all_of_it)}
        try:
            wait_until(lambda: committed <= self.ledger.deliveries.keys(), "all that was committed came", 3 * LEASE_S)
        except AssertionError:
            pass  # the ledger tells
        session = wait_for_session(self.database.place())
        rows = Counter(id for id, in session.run("select id from orders"))
        fences = {_text(key): outcome for key, outcome in session.run("select fence_key, outcome from vouch_fence")}
        session.close()
        return Truth(rows, fences, halves)

    def metric(self, name: str, **labels) -> float:
        wanted = name + ("{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}" if labels else "")
        lines = self.broker.call("GET", "/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == wanted)

    def finish(self):
        for each in self.services:
            each.finish()
        self.receiving.clear()
        self.consumer.shutdown()
        self.receiver.join(10)


def _text(key) -> str:
    return key.decode() if isinstance(key, bytes) else key


def assert_counters_agree(fields: list[Field], truths: list[Truth]):
    """The broker's own counters say what the ledger says. Those that begin anew with a node only where none was killed."""
    broker = fields[0].broker
    states = Counter(each["state"] for truth in truths for all_of_it in truth.halves.values() for each in all_of_it)
    wanted = {"vouch_transactions_open": 0, "vouch_transactions_parked": 0,
              "vouch_transactions_ended": states["committed"] + states["rolled_back"]}
    if not any(each.node_was_killed for each in fields):
        refused = sum(str(race.ended).startswith("40") for each in fields for race in each.ledger.races.values())
        wanted |= {"vouch_transaction_commits_total": states["committed"],
                   "vouch_transaction_rollbacks_total": states["rolled_back"],
                   "vouch_transaction_conflicts_total": refused}
    told = {}

    def agree():
        told.update({name: fields[0].metric(name) for name in wanted})
        return told == wanted

    try:
        wait_until(agree, "the counters agree with the ledger", 10, 0.2)
    except AssertionError:
        raise AssertionError(f"the counters of {broker.http} say {told}, the ledger {wanted}") from None
