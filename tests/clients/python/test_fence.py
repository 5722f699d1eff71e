"""The lines that a service adds for the fence, as plugins/README.md shows them for Python, on a real database: what they promise
when the service dies, comes too late, or never hears what became of its COMMIT. Each other suite does so in its language."""

import json
import logging
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from broker import REPOSITORY, binary, plugin_dist, wait_until
from clients import Checker, assert_nothing_arrives, message, producer, receive_and_ack, simple_consumer

PLUGIN = "sql-checkback"
BLOCK = re.compile(r"<!-- fence: python -->\n```python\n(.*?)```", re.S)
NOT_INSTALLED = 77


class Shop:
    """A database with tables of a shop and of the fence."""

    def __init__(self, port, password, socket, name):
        self.address = f"host=127.0.0.1 port={port} user=postgres password={password} dbname={name}"
        self.url = f"postgres://postgres@localhost/{name}?socket={socket}"

    def ask(self, statement, *values):
        with psycopg.connect(self.address) as connection:
            return connection.execute(statement, values).fetchall()

    def has(self, order):
        return self.ask("select amount from orders where id = %s", order["id"]) == [(order["amount"],)]

    def fence(self, receipt):
        return [row[0] for row in self.ask("select outcome from vouch_fence where fence_key = %s", receipt.message_id)]

    def open_transactions(self):
        return self.ask("select query from pg_stat_activity"
                        " where datname = current_database() and state like 'idle in transaction%%'")

    def end_the_session_that_waits_in_commit(self):
        return self.ask("select pg_terminate_backend(pid) from pg_stat_activity"
                        " where datname = current_database() and wait_event = 'SyncRep'")


class Halting:
    """A producer whose service is held up: when its half message is stored, or before it ends the transaction."""

    def __init__(self, producer, half_stored=lambda receipt: None, before_the_end=lambda: None):
        self.producer, self.half_stored, self.before_the_end = producer, half_stored, before_the_end

    def begin_transaction(self):
        transaction = self.producer.begin_transaction()
        commit = transaction.commit
        transaction.commit = lambda: (self.before_the_end(), commit())
        return transaction

    def send(self, half, transaction):
        self.receipt = self.producer.send(half, transaction)
        self.half_stored(self.receipt)
        return self.receipt


class Died(Exception):
    """Nothing that comes after it is done."""


def dies():
    raise Died


@pytest.fixture(scope="session")
def server():
    """Runs as long as its standard input is open: however this process dies, it goes with it."""
    script = Path(__file__).with_name("postgres.sh")
    process = subprocess.Popen([script, binary()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline().strip()
        if not said.startswith("ready "):
            tell = pytest.skip if process.wait() == NOT_INSTALLED else pytest.fail
            tell(f"LEFT OUT: the fence in Python. {said}")
        yield said.split(" ")[1:]
    finally:
        process.stdin.close()
        process.wait()


@pytest.fixture
def shop(server, request):
    return Shop(*server, getattr(request, "param", "shop"))


@pytest.fixture
def topic(shared_broker, name, shop):
    shared_broker.push_component(PLUGIN, "test", (plugin_dist() / f"{PLUGIN}.wasm").read_bytes())
    shared_broker.create_transaction_topic(name, max_checks=1000)
    close_the_fence_after("60s", shared_broker, name, shop)
    return name


def close_the_fence_after(age, broker, topic, shop):
    broker.set_binding(topic, plugin=f"{PLUGIN}:test", topics=[topic], config={"database": "shop", "fence-after": age},
                       grants={"sql": {"shop": {"url": shop.url, "fence": "vouch_fence", "write": True}}})


@pytest.fixture
def service(topic):
    """The block of the document, as it stands there, beside what an application has already."""
    blocks = BLOCK.findall((REPOSITORY / "plugins/README.md").read_text())
    assert len(blocks) == 1, "plugins/README.md shows the lines for Python once"
    module = {"logging": logging, "psycopg": psycopg,
              "order_message": lambda order: message(topic, json.dumps(order).encode(), keys=[order["id"]])}
    exec(compile(blocks[0], "plugins/README.md", "exec"), module)
    return SimpleNamespace(**module)


@pytest.fixture
def order(name):
    return {"id": name, "amount": 20}


def ended(broker, receipt):
    """How it ended, and whether a check did that."""
    transaction = broker.transaction(receipt.transaction_id)
    return transaction["state"], transaction["last_answer"]["by"].startswith("component ")


def ends(broker, receipt, state):
    wait_until(lambda: broker.transaction(receipt.transaction_id)["state"] == state, f"the transaction is {state}", 25)


def arrives_once(broker, topic, receipt, order):
    with simple_consumer(broker, topic, topic) as consumer:
        (received,) = receive_and_ack(consumer, 1)
        assert_nothing_arrives(consumer, 2)
    assert (received.message_id, json.loads(received.body)) == (receipt.message_id, order)


def test_a_placed_order_has_its_row_of_the_fence_and_arrives_once(shared_broker, topic, shop, service, order):
    shared_broker.create_transaction_topic(topic, immunity="1h")
    with producer(shared_broker, topic, checker=Checker()) as client:
        client = Halting(client)
        service.place_order(client, shop.address, order)
    assert ended(shared_broker, client.receipt) == ("committed", False)
    assert shop.has(order) and shop.fence(client.receipt) == ["committed"]
    arrives_once(shared_broker, topic, client.receipt, order)


def test_an_order_whose_service_died_behind_commit_is_committed_by_its_row(shared_broker, topic, shop, service, order):
    with producer(shared_broker, topic, checker=Checker()) as client:
        client = Halting(client, before_the_end=dies)
        service.place_order(client, shop.address, order)
    assert shop.has(order) and shop.fence(client.receipt) == ["committed"]
    arrives_once(shared_broker, topic, client.receipt, order)
    assert ended(shared_broker, client.receipt) == ("committed", True)


# With the trigger it is that which refuses the row, without it the primary key.
@pytest.mark.parametrize("shop", ["shop", "shop_without_trigger"], indirect=True)
def test_an_order_that_comes_after_the_check_is_undone_and_a_new_try_is_placed(shared_broker, topic, shop, service, order):
    close_the_fence_after("1s", shared_broker, topic, shop)
    with producer(shared_broker, topic, checker=Checker()) as client:
        late = Halting(client, half_stored=lambda receipt: ends(shared_broker, receipt, "rolled_back"))
        with pytest.raises(service.TooLate):
            service.place_order(late, shop.address, order)
        assert ended(shared_broker, late.receipt) == ("rolled_back", True)
        assert not shop.has(order) and shop.fence(late.receipt) == ["rolled_back"]
        wait_until(lambda: not shop.open_transactions(), "no transaction is left open")
        shared_broker.create_transaction_topic(topic, immunity="1h")
        again = Halting(client)
        service.place_order(again, shop.address, order)
    assert shop.has(order) and shop.fence(again.receipt) == ["committed"]
    arrives_once(shared_broker, topic, again.receipt, order)


def test_a_commit_whose_answer_is_lost_is_no_rollback(shared_broker, topic, shop, service, order):
    order["id"] = f"unanswered-{order['id']}"
    with producer(shared_broker, topic, checker=Checker()) as client, ThreadPoolExecutor() as threads:
        client = Halting(client)
        placing = threads.submit(service.place_order, client, shop.address, order)
        wait_until(shop.end_the_session_that_waits_in_commit, "COMMIT waits")
        assert isinstance(placing.exception(), psycopg.OperationalError)
        arrives_once(shared_broker, topic, client.receipt, order)
    assert shop.has(order) and shop.fence(client.receipt) == ["committed"]
    assert ended(shared_broker, client.receipt) == ("committed", True)


def test_a_commit_that_never_happened_is_found_out_by_the_check(shared_broker, topic, shop, service, order):
    order["id"] = f"lost-{order['id']}"
    with producer(shared_broker, topic, checker=Checker()) as client:
        client = Halting(client)
        with pytest.raises(psycopg.OperationalError):
            service.place_order(client, shop.address, order)
        close_the_fence_after("1s", shared_broker, topic, shop)
        ends(shared_broker, client.receipt, "rolled_back")
    assert not shop.has(order) and shop.fence(client.receipt) == ["rolled_back"]
    assert ended(shared_broker, client.receipt) == ("rolled_back", True)
    with simple_consumer(shared_broker, topic, topic) as consumer:
        assert_nothing_arrives(consumer, 2)
