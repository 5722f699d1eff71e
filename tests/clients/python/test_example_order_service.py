"""Runs the README of the example, step by step as it is written, and looks at what it promises; and plays what goes wrong
between the two programs, the broker and their databases."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from contextlib import closing

import pytest
from broker import wait_until
from order_shop import Service, Shop, Walk


@pytest.fixture
def walk(tmp_path, request):
    walk = Walk(tmp_path, "README.md", "/tmp/vouch-orders")
    yield walk
    walk.finish(tell=request.session.testsfailed)


def test_the_readme_of_the_order_service_tells_the_truth(walk):
    walk.start("broker, in the background", "broker")
    walk.broker_is_up()
    walk.run("setup")
    walk.run("install")

    walk.start("service, in the background", "service")
    walk.service_is_up()
    walk.start("shipping, in the background", "shipping")
    walk.run("order 1001")
    wait_until(lambda: walk.orders_shipped() == ["1001"], "order 1001 is shipped", 20)

    walk.stop("service")
    walk.start("service that dies after its database commit, in the background, instead of service", "service")
    walk.service_is_up()
    listed = walk.run("order 1002, which gets no answer")
    assert "no answer: the service is dead" in listed
    walk.service_dies()
    assert re.search("open|waiting", listed), listed
    time.sleep(8)  # the broker asks a dead service meanwhile; it must not make anything up
    assert walk.orders_shipped() == ["1001"]
    walk.start("service again, in the background", "service")
    wait_until(lambda: walk.orders_shipped() == ["1001", "1002"], "order 1002 is shipped", 30)

    walk.stop("service")
    walk.start("service that dies before its database commit, in the background, instead of service again", "service")
    walk.service_is_up()
    assert "no answer: the service is dead" in walk.run("order 1003, which gets no answer")
    walk.service_dies()
    walk.start("service once more, in the background", "service")
    walk.service_is_up()
    wait_until(lambda: "message=" in walk.output("service").split("dying now")[-1], "the broker asked for 1003", 20)

    walk.stop("service")
    walk.start("slow service, in the background, instead of service once more", "service")
    walk.service_is_up()
    assert "took too long and is not placed" in walk.run("order 1004, which is too late")

    walk.stop_broker()
    walk.stop("service")
    walk.start("service without a broker, in the background, instead of slow service", "service")
    walk.service_is_up()
    assert '"NOTIFY_PENDING"' in walk.run("order 1005, whose message is pending")
    walk.start("broker again, in the background", "broker")
    walk.broker_is_up()
    wait_until(lambda: walk.orders_shipped() == ["1001", "1002", "1005"], "order 1005 is shipped", 30)
    ledger = walk.commands("ledger")

    def settled():
        done = subprocess.run(["bash", "-euc", ledger], env=walk.environment, capture_output=True, text=True)
        return done.stdout.count("committed") == 3 and len(re.findall("rolled.back", done.stdout)) == 2

    wait_until(settled, "three transactions are committed and two are rolled back", 30, 0.5)
    assert walk.orders_shipped() == ["1001", "1002", "1005"]
    assert not walk.steps, f"steps that this test does not run: {list(walk.steps)}"

    walk.stop("service")
    walk.stop("shipping")
    walk.stop_broker()


# ---- what goes wrong ------------------------------------------------------------------------------------------------

IMMUNITY_S = 4
DIES, TOO_SLOW = ("--die-at", "after-database"), ("--slow-database", str(IMMUNITY_S + 4))
QUESTION = "/orders/{key}?message={id}"


class Wire:
    """A way to the broker that can go deaf: what is sent arrives, what is answered does not."""

    def __init__(self, to):
        self.to = to
        self.deaf = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.to.rsplit(":", 1))
            except OSError:
                return  # closed
            self.connections += [near, far]
            for source, target, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._carry, args=(source, target, answers), daemon=True).start()

    def _carry(self, source, target, answers):
        try:
            while data := source.recv(65536):
                if not (answers and self.deaf):
                    target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def hear(self):
        """Connections that missed something are of no use: they end, and new ones hear."""
        self.deaf = False
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed before

    def close(self):
        self.listener.close()
        self.hear()


class SqliteShop(Shop):
    SERVICE, COMPONENT = "order_service.py", "http-checkback"

    def database(self):
        return str(self.folder / "orders.db")

    def bind(self, service, question=QUESTION, **config):
        origin = f"http://127.0.0.1:{service.port}"
        self.broker.set_binding(
            "orders", plugin="http-checkback:1.0", topics=["orders"], grants={"http": [origin]},
            config={"url": origin + question, "field": "/status", "commit": "placed", "rollback": "cancelled", **config})


@pytest.fixture
def shop(tmp_path, own_broker, request):
    shop = SqliteShop(tmp_path, own_broker, immunity=f"{IMMUNITY_S}s", interval="1s")
    yield shop
    shop.finish(tell=request.session.testsfailed)


ODD_IDS = ["EU/1004 ä", "a?b=c&d#e", "100%", "%2F", "+1 1", "../..", "日本 🫖", "x" * 255, "ä" * 127, " 7 ", "'--"]


def test_an_order_may_have_any_id_that_can_be_asked_for(shop):
    service = Service(shop)
    shop.bind(service)
    shop.shipping()
    for id in ODD_IDS:
        assert service.order(id) == (201, {"id": id, "item": "teapot", "status": "placed"}), id
        assert service.find(id)[1]["id"] == id
    shop.ships(*ODD_IDS)
    for id in ["", " ", ".", "..", "a\nb", "\x00", "\ud800", "x" * 256, "ä" * 128]:
        assert service.order(id)[0] == 400, id
    shop.settles(*["committed"] * len(ODD_IDS))
    assert service.call("/orders/%FF")[0] == 400
    assert service.call("/elsewhere")[0] == 404
    padded = json.dumps({"id": "padded", "item": "teapot"}).encode()
    assert service.call("/orders", padded.ljust(64 * 1024))[0] == 201
    assert service.call("/orders", padded.ljust(64 * 1024 + 1))[0] == 413


def test_the_broker_asks_for_an_odd_id_and_ships_the_order(shop):
    shop.shipping()
    for id in ["EU/1004 ä", "a?b=c&d#e%2F+"]:
        dying = Service(shop, *DIES)
        assert dying.order(id) == (0, None)
        assert dying.process.wait(10) == -signal.SIGKILL
    shop.bind(Service(shop))
    shop.ships("EU/1004 ä", "a?b=c&d#e%2F+")
    shop.settles("committed", "committed")


def test_an_order_that_comes_after_the_brokers_question_is_not_placed(shop):
    service = Service(shop, *TOO_SLOW)
    shop.bind(service)
    shop.shipping()
    status, answer = service.order("1001")
    assert (status, "place it again" in answer["error"]) == (503, True), answer
    assert service.find("1001")[0] == 404
    assert "1001 is placed" not in service.output()
    shop.settles("rolled_back")
    # The customer may: only the first message is closed.
    service.kill()
    in_time = Service(shop, "--slow-database", "1")
    shop.bind(in_time)
    assert in_time.order("1001")[0] == 201
    shop.ships("1001")
    shop.settles("committed", "rolled_back")


def test_looking_at_an_order_that_is_not_there_closes_nothing(shop):
    service = Service(shop)
    shop.bind(service)
    shop.shipping()
    assert service.find("1001")[0] == 404
    assert service.order("1001")[0] == 201
    assert service.order("1001", "kettle") == (409, {"error": "order 1001 exists"})
    shop.ships("1001")
    shop.settles("committed", "rolled_back")
    assert service.find("1001")[1]["item"] == "teapot"


def test_an_order_whose_message_was_dropped_gets_another_one(shop):
    """A binding that does not ask for the message, and rolls back by age alone."""
    service = Service(shop, *TOO_SLOW)
    shop.bind(service, "/orders/{key}", **{"rollback-missing-after": "1s"})
    shop.shipping()
    assert service.order("1001")[0] in (201, 202)
    assert "rolled back although the order is placed" in service.output()
    shop.ships("1001")
    shop.settles("committed", "rolled_back")
    wait_until(lambda: service.find("1001")[1]["status"] == "placed", "the order is announced", 10)


def test_without_a_broker_an_order_is_pending_and_is_announced_later(shop):
    """Scenario S1.a; the second service sees that one announces, not two."""
    first = Service(shop)
    shop.bind(first)
    shipping = shop.shipping()
    assert first.order("1001")[0] == 201
    shop.ships("1001")
    shop.broker.kill()
    began = time.monotonic()
    assert first.order("1002") == (202, {"id": "1002", "item": "teapot", "status": "NOTIFY_PENDING"})
    assert time.monotonic() - began < 5, "3 s for the broker, the rest for a busy machine"
    assert first.order("1002")[0] == 409
    # What is pending outlives the process, and a process can be started without a broker.
    first.kill()
    second, third = Service(shop), Service(shop)
    assert second.order("1003")[0] == 202
    shop.broker.start()
    shop.bind(second)
    shop.ships("1001", "1002", "1003")
    for id in ("1002", "1003"):
        wait_until(lambda: third.find(id)[1]["status"] == "placed", f"{id} is announced", 20)
    # A half message that lost the race is rolled back; each order has one that is committed.
    wait_until(lambda: set(shop.states()) <= {"committed", "rolled_back"}, "everything is settled", 30)
    assert shop.states().count("committed") == 3
    # And what follows goes on as ever.
    assert third.order("1004")[0] in (201, 202)
    shop.ships("1001", "1002", "1003", "1004")
    assert shipping.runs() and second.runs() and third.runs()


def test_an_order_is_announced_once_although_a_first_message_is_stored(shop):
    """Scenario S1.b: the broker stores the half message, and its answer gets lost."""
    wire = Wire(shop.broker.grpc)
    service = Service(shop, broker=wire.address)
    shop.bind(service)
    shop.shipping()
    assert service.order("1001")[0] == 201
    shop.ships("1001")
    wire.deaf = True
    began = time.monotonic()
    status, order = service.order("1002")
    assert (status, order["status"]) == (202, "NOTIFY_PENDING")
    assert time.monotonic() - began < 5, "3 s for the broker, the rest for a busy machine"
    # Stored and asked about: what nobody placed an order with is closed.
    wait_until(lambda: "rolled_back" in shop.states(), "the first message is rolled back", 20)
    wire.hear()
    shop.ships("1001", "1002")
    wait_until(lambda: set(shop.states()) == {"committed", "rolled_back"}, "everything is settled", 30)
    assert shop.states().count("committed") == 2
    shop.ships("1001", "1002")
    wire.close()


def test_a_pending_order_that_is_announced_too_late_stays_pending(shop):
    service = Service(shop, *TOO_SLOW)
    shop.bind(service)
    shop.shipping()
    shop.broker.kill()
    assert service.order("1001")[0] == 202
    shop.broker.start()
    wait_until(lambda: "a message of order 1001 took too long" in service.output(), "it is too late", 40)
    assert service.find("1001")[1]["status"] == "NOTIFY_PENDING"
    service.kill()
    shop.bind(Service(shop))
    shop.ships("1001")
    wait_until(lambda: set(shop.states()) == {"committed", "rolled_back"}, "everything is settled", 30)
    assert shop.states().count("committed") == 1


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_both_programs_survive_a_restart_of_the_broker(shop, end):
    service = Service(shop)
    shop.bind(service)
    shipping = shop.shipping()
    assert service.order("1001")[0] == 201
    shop.ships("1001")
    getattr(shop.broker, end)()
    shop.broker.start()
    for id in ("1002", "1003"):
        assert service.order(id)[0] in (201, 202)
    shop.ships("1001", "1002", "1003")
    assert service.runs() and shipping.runs()


def test_a_second_consumer_ships_what_the_first_one_left(shop):
    service = Service(shop)
    shop.bind(service)
    first, second = shop.shipping(), shop.shipping()
    ids = [f"{1000 + i}" for i in range(12)]
    for id in ids[:6]:
        assert service.order(id)[0] == 201
    shop.ships(*ids[:6])
    first.kill()
    for id in ids[6:]:
        assert service.order(id)[0] == 201
    shop.ships(*ids)
    assert second.runs()


def test_what_was_shipped_before_is_acknowledged_and_not_shipped_again(shop):
    """The shipment is in the database, its acknowledgement got lost."""
    service = Service(shop)
    shop.bind(service)
    killed = shop.shipping()
    wait_until(lambda: (shop.folder / "shipping.db").exists() and "waiting" in killed.output(), "it waits", 20)
    killed.kill()
    with closing(sqlite3.connect(shop.folder / "shipping.db")) as database, database:
        database.execute("INSERT INTO shipments VALUES ('1001', 'teapot')")
    assert service.order("1001")[0] == 201
    shipping = shop.shipping()
    wait_until(lambda: "order 1001 was shipped before" in shipping.output(), "it is passed over", 30)
    progress = "/v1/groups/shipping/progress"
    wait_until(lambda: sum(topic["lag"] for topic in shop.broker.call("GET", progress)["items"]) == 0,
               "it is acknowledged", 10)
    assert "shipping {" not in shipping.output()
