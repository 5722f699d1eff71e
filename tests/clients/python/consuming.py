"""Components that consume, under test: a table that `sql-apply` writes and a shelf that `stock` keeps, each with a ledger outside
of broker and database, against which at the end every row, value and message is held."""

import json
import random
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from broker import HttpProblem, quote, wait_until
from clients import LONG_LEASE, simple_consumer
from databases import Database
from races import component
from raw import RawClient, raw_message
from wire import Code, MessageType

APPLY, STOCK, PUSH = "sql-apply:test", "stock:test", "http-push:test"
SETTLES_WITHIN_S = 90
OUTCOMES = ("ack", "retry", "reject", "failed", "dead_letter", "stale", "late", "not_run")


# ---- what is known of a binding --------------------------------------------------------------------------------------


def waiting(broker, binding: str) -> int:
    return broker.call("GET", f"/v1/bindings/{quote(binding)}")["waiting"]


def standing(broker, binding: str) -> dict:
    """What the node that leads knows of its deliveries."""
    return broker.call("GET", f"/v1/bindings/{quote(binding)}").get("standing", {}).get("consumer", {})


def pauses(broker, binding: str) -> bool:
    """By itself, after deliveries that failed."""
    return "paused_since" in standing(broker, binding)


def counts(broker, binding: str) -> Counter:
    """Outcomes of its deliveries since the node began."""
    metrics = broker.call("GET", "/metrics").splitlines()
    told = {}
    for outcome in OUTCOMES:
        wanted = f'vouch_deliveries_total{{binding="{binding}",outcome="{outcome}"}} '
        told[outcome] = sum(int(float(line.removeprefix(wanted))) for line in metrics if line.startswith(wanted))
    return Counter(told)


def is_done(broker, binding: str, deadline_s=SETTLES_WITHIN_S):
    wait_until(lambda: waiting(broker, binding) == 0, f"all that waits for {binding} is done", deadline_s)


def kept(broker, binding: str) -> dict:
    """All that it keeps."""
    found, after = {}, ""
    while True:
        page = broker.call("GET", f"/v1/bindings/{quote(binding)}/state?limit=1000{after}")
        found.update((each["key"], each["value"]) for each in page["items"])
        if not page.get("next"):
            return found
        after = f"&after={quote(page['next'])}"


def dead_letters(broker, group: str) -> list:
    """All of a group; the topic comes into being with the first of them."""
    topic = f"%DLQ%{group}"
    try:
        broker.call("GET", f"/v1/topics/{quote(topic)}")
    except HttpProblem as problem:
        assert problem.status == 404
        return []
    return all_of(broker, topic)


def all_of(broker, topic: str) -> list:
    """Every message that is in a topic, for a group that nobody else has."""
    group = f"audit-{random.SystemRandom().getrandbits(32):08x}"
    found, is_read = [], False
    with simple_consumer(broker, group, topic, poll=1) as consumer:
        end = time.monotonic() + SETTLES_WITHIN_S
        while not is_read:
            assert time.monotonic() < end, f"{len(found)} messages of {topic} came, and not all"
            received = consumer.receive(32, LONG_LEASE)
            for each in received:
                found.append(each)
                consumer.ack(each)
            is_read = not received and all(each["lag"] == 0 for each in broker.call("GET", f"/v1/groups/{group}/progress")["items"])
    return found


# ---- components ------------------------------------------------------------------------------------------------------


def another_digest(wasm: bytes, name: bytes) -> bytes:
    """The same component with a custom section that nobody reads."""
    return wasm + bytes([0, len(name) + 1, len(name)]) + name


def trapping(wasm: bytes) -> bytes:
    """The same component, in which every function traps: in each core module each body is `unreachable` and then nothing."""
    made = bytearray(wasm)
    for kind, begin, end in _sections(wasm, 8, len(wasm)):
        if kind == CORE_MODULE:
            for kind, code, code_end in _sections(wasm, begin + 8, end):
                if kind == CODE:
                    _trap_all(made, code)
    return bytes(made)


CORE_MODULE, CODE = 1, 10


def _sections(wasm: bytes, at: int, end: int):
    while at < end:
        size, begin = _number(wasm, at + 1)
        yield wasm[at], begin, begin + size
        at = begin + size


def _trap_all(wasm: bytearray, at: int):
    count, at = _number(wasm, at)
    for _ in range(count):
        size, at = _number(wasm, at)
        end = at + size
        groups, at = _number(wasm, at)
        for _ in range(groups):
            _, at = _number(wasm, at)
            at += 1
        wasm[at:end] = b"\x00" + b"\x01" * (end - at - 2) + b"\x0b" if end - at > 1 else b"\x0b"
        at = end


def _number(wasm: bytes, at: int):
    """One in LEB128, and where it ends."""
    value = shift = 0
    while True:
        value |= (wasm[at] & 0x7F) << shift
        at, shift, more = at + 1, shift + 7, wasm[at] & 0x80
        if not more:
            return value, at


# ---- a service that messages are pushed to ---------------------------------------------------------------------------


class PushedTo:
    """Answers with what `answers` says of a path, which may wait; notes what comes, and when."""

    def __init__(self, answers):
        self.answers, self.came = answers, []

    def __enter__(self) -> "PushedTo":
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                service.came.append((self.path, time.monotonic()))
                self.rfile.read(int(self.headers["content-length"]))
                try:
                    self.send_response(service.answers(self.path))
                    self.send_header("content-length", "0")
                    self.end_headers()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the node was killed

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def times(self, path: str) -> list[float]:
        return [at for come, at in self.came if come == path]

    def bind(self, broker, binding: str, topic: str, **more):
        """Has all messages of a topic pushed to `/BINDING/KEY`."""
        return broker.set_binding(binding, plugin=component(broker, PUSH), groups=[binding], subscriptions={topic: "*"},
                                  grants={"http": [self.origin]}, config={"url": f"{self.origin}/{binding}/{{key}}"},
                                  unchecked=True, **more)


# ---- rows ------------------------------------------------------------------------------------------------------------


TABLES = ("create table applied (id varchar(255) not null, delivery varchar(255) not null); "
          "create table totals (n int not null, amount int not null); insert into totals values (0, 0)")


def table(kind: str, folder) -> Database:
    """A database with a table in which a message that is applied twice has two rows, and with their sum."""
    database = Database(kind, folder)
    database.add(TABLES, {"applied": "insert", "totals": "select, update", "vouch_once": "insert"})
    return database


def bind_apply(broker, database: Database, binding: str, topic: str, group: str | None = None, filter="*", **more):
    """Each message has its row, and adds its amount to the sum, in one database transaction."""
    grant = {"url": database.url(), "once": "vouch_once", "write": True}
    spec = {
        "plugin": component(broker, APPLY), "groups": [group or binding], "subscriptions": {topic: filter},
        "grants": {"sql": {"shop": grant}},
        "config": {
            "database": "shop",
            "statement": database.text("insert into applied (id, delivery) values (?, ?)"), "params": "{key}, {delivery}",
            "statement-2": database.text("update totals set n = n + 1, amount = amount + ?"), "params-2": "{json./amount}",
        },
        "limits": {"deadline": "10s"},
    }
    return broker.set_binding(binding, **{**spec, **more})


def row_faults(database: Database, amounts: dict) -> list[str]:
    """`amounts`: of each message by its key. Everything that is not there exactly once."""
    rows = Counter(id for id, in database.ask("select id from applied"))
    faults = [f"{key} has {rows[key]} rows" for key in rows.keys() | amounts.keys() if rows[key] != (key in amounts)]
    told = tuple(database.ask("select n, amount from totals")[0])
    if told != (len(amounts), sum(amounts.values())):
        faults.append(f"the sum is {told}, and not {(len(amounts), sum(amounts.values()))}")
    noted = {_text(key) for key, in database.ask("select once_key from vouch_once")}
    deliveries = [each for each, in database.ask("select delivery from applied")]
    if noted != set(deliveries) or len(deliveries) != len(noted):
        faults.append(f"{len(deliveries)} rows of {len(set(deliveries))} deliveries, of which {len(noted)} are noted")
    return faults


def _text(key) -> str:
    return key.decode() if isinstance(key, bytes) else key


# ---- sends that are made once, whoever is killed ---------------------------------------------------------------------


class Sender:
    """Sends each message until it is told that it is stored, under the ids of client and message that it had first, so that it is
    stored once. `node`: whom to ask now."""

    def __init__(self, node):
        self.node, self.clients = node, {}
        self.client_id = f"sender-{uuid.uuid4().hex}"

    def send(self, topic: str, key: str, body: dict, kind=MessageType.NORMAL):
        made = raw_message(topic, json.dumps(body).encode(), kind)
        made.system_properties.keys.append(key)
        end = time.monotonic() + SETTLES_WITHIN_S
        while (told := self._try(made)) != Code.OK:
            assert time.monotonic() < end, f"{topic} {key} is not stored: {told}"
            time.sleep(0.05)  # whoever is killed is away for so long

    def _try(self, made):
        node = self.node()
        client = self.clients.get(node.grpc) or self.clients.setdefault(node.grpc, RawClient(node, self.client_id))
        try:
            answer = client.send(made)
        except grpc.RpcError as problem:
            return str(problem.code())
        return answer.entries[0].status.code if answer.entries else answer.status.code

    def close(self):
        for client in self.clients.values():
            client.channel.close()


# ---- the stock keeper ------------------------------------------------------------------------------------------------


SKUS = ("teapot", "cup", "tray", "spoon")
STOCK_TOPICS = ("goods", "payments", "reservations", "stock-short")


@dataclass
class Order:
    items: list
    is_paid: bool


class StockShop:
    """A stock keeper, what it is told, and what should be there then. `node`: whom to ask now, `sends_to`: whom to send to."""

    def __init__(self, node, rng: random.Random, deliveries: int, sends_to=None):
        self.node, self.rng = node, rng
        self.orders, self.goods = {}, Counter()
        self.sender, self.pool = Sender(sends_to or node), ThreadPoolExecutor(4)
        # Nobody is to be asked about for the last time while payments are still sent.
        node().create_transaction_topic("orders", immunity="100ms", interval=f"{500 + deliveries // 3}ms", max_checks=1000)
        for topic in STOCK_TOPICS:
            node().create_topic(topic)
        plugin = component(node(), STOCK)
        node().set_binding("stock", plugin=plugin, groups=["stock"], subscriptions={"goods": "*", "payments": "*", "orders": "*"},
                           grants={"state": "orders", "publish": ["reservations", "stock-short"]}, limits={"deadline": "10s"})
        node().set_binding("orders", plugin=plugin, topics=["orders"], grants={"state": "orders"})
        self.plan = self._plan(deliveries)

    def _plan(self, deliveries: int) -> list:
        """What is sent: a third goods, a third orders, and their payments before or after them; nobody pays for one in twenty."""
        rng, sends = self.rng, []
        for number in range(deliveries // 3):
            item = {"sku": rng.choice(SKUS), "quantity": rng.randint(1, 10)}
            self.goods[item["sku"]] += item["quantity"]
            sends.append(("goods", item["sku"], item))
            order = f"order-{number}"
            items = [{"sku": sku, "quantity": rng.randint(1, 6)} for sku in rng.sample(SKUS, rng.randint(1, 3))]
            self.orders[order] = Order(items, rng.random() > 0.05)
            sends.append(("orders", order, {"order": order, "items": items}, MessageType.TRANSACTION))
            sends += [("payments", order, {"order": order})] * self.orders[order].is_paid
        # Nearly as they would come: all kinds all the time.
        rng.shuffle(sends)
        return sends

    def begin_sending(self, sends: list) -> list:
        """By several at once; `sent` waits for them."""
        return [self.pool.submit(self.sender.send, *each) for each in sends]

    def sent(self, sends: list):
        for each in sends:
            each.result(SETTLES_WITHIN_S)

    def open(self) -> int:
        path = "/v1/transactions?topic=orders&limit=1000&state="
        return sum(len(self.node().call("GET", path + state)["items"]) for state in ("open", "waiting_for_checker", "parked"))

    def settles(self):
        """Waits until all that was paid for is committed, and all that was sent is done."""
        unpaid = sum(not order.is_paid for order in self.orders.values())
        try:
            wait_until(lambda: self.open() == unpaid, "all that is paid for is committed", SETTLES_WITHIN_S, 0.2)
            is_done(self.node(), "stock")
        except (AssertionError, HttpProblem) as late:
            raise AssertionError(f"{late}; {self.open()} open, {unpaid} of them unpaid; {standing(self.node(), 'stock')}") from None

    def faults(self) -> list[str]:
        """Everything that should not be, when all has settled."""
        node, faults = self.node(), []
        told = {topic: [(each.message_id, json.loads(each.body)) for each in all_of(node, topic)]
                for topic in ("reservations", "stock-short")}
        by_order = {topic: Counter(body["order"] for _, body in messages) for topic, messages in told.items()}
        for order, made in self.orders.items():
            came = {topic: by_order[topic][order] for topic in told}
            if sum(came.values()) != made.is_paid:
                faults.append(f"{order}, {'paid' if made.is_paid else 'not paid'}: {came}")
        for topic, messages in told.items():
            faults += [f"{topic}: nobody ordered {order}" for order in by_order[topic] if order not in self.orders]
            if len({id for id, _ in messages}) != len(messages):
                faults.append(f"{topic} has a message twice")
        reserved = Counter()
        for _, body in told["reservations"]:
            if body["items"] != self.orders[body["order"]].items:
                faults.append(f"{body['order']}: reserved is {body['items']}, ordered was {self.orders[body['order']].items}")
            for item in body["items"]:
                reserved[item["sku"]] += item["quantity"]
        state = kept(node, "stock")
        for sku in SKUS:
            left = int(state.get(f"stock:{sku}", 0))
            if left != self.goods[sku] - reserved[sku] or left < 0:
                faults.append(f"{left} of {sku} are left: {self.goods[sku]} came, {reserved[sku]} are reserved")
        paid = {f"paid:{order}" for order, made in self.orders.items() if made.is_paid}
        noted = {key for key in state if key.startswith("paid:")}
        if noted != paid:
            faults.append(f"payments noted and not made {noted - paid}, made and not noted {paid - noted}")
        if letters := dead_letters(node, "stock"):
            faults.append(f"{len(letters)} dead letters, {letters[0].body} for one")
        self.told = (f"{sum(self.goods.values())} goods, {sum(map(len, told.values()))} orders paid, "
                     f"{len(told['reservations'])} of them served")
        if faults:
            faults.append(f"of what was sent there is: {self.inputs()}")
        return faults

    def inputs(self) -> str:
        """Whether everything was stored once is another question: asked where something is wrong."""
        goods = Counter()
        for each in all_of(self.node(), "goods"):
            item = json.loads(each.body)
            goods[item["sku"]] += item["quantity"]
        payments = Counter(json.loads(each.body)["order"] for each in all_of(self.node(), "payments"))
        orders = Counter(json.loads(each.body)["order"] for each in all_of(self.node(), "orders"))
        twice = [order for order in self.orders if max(payments[order], orders[order]) > 1]
        return f"goods {dict(goods)} of {dict(self.goods)}, stored twice {twice}"

    def finish(self):
        self.pool.shutdown()
        self.sender.close()
