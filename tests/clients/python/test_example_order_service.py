"""Runs the README of the example, step by step as it is written, and looks at what it promises; and plays what goes wrong
between the two programs, the broker and their databases."""

import functools
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from broker import REPOSITORY, binary, plugin_dist, quote, wait_until

EXAMPLE = REPOSITORY / "examples/order-service"
README = EXAMPLE / "README.md"
STEP = re.compile(r"<!-- step: (.+?) -->\n```sh\n(.*?)```", re.S)


class Walk:
    """One walk through the README, with its ports and folder replaced by ones that are free."""

    def __init__(self, folder):
        self.folder = folder
        self.steps = dict(STEP.findall(README.read_text()))
        self.ports = {port: free_port() for port in ("8080", "8081", "9000")}
        self.running = {}
        # The broker under test, by the name that the README calls it.
        commands = folder / "bin"
        commands.mkdir()
        (commands / "vouch").symlink_to(binary())
        self.environment = {
            **os.environ,
            "VOUCH_GRPC_ADDR": f"127.0.0.1:{self.ports['8081']}",
            "VOUCH_HTTP_ADDR": f"127.0.0.1:{self.ports['8080']}",
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HOME": str(folder),
        }

    def commands(self, step):
        text = self.steps.pop(step).replace("/tmp/vouch-orders", str(self.folder))
        text = text.replace("target/release/vouch", "vouch").replace("$PWD/target/release:", "")
        text = text.replace("plugins/dist/http-checkback.wasm", str(plugin_dist() / "http-checkback.wasm"))
        for port, free in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        if "order_service.py" in text:
            text = text.rstrip() + f" --port {self.ports['9000']}\n"
        return text

    def run(self, step):
        done = subprocess.run(["bash", "-euc", self.commands(step)], cwd=REPOSITORY, env=self.environment,
                              capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"step `{step}`: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, step, name):
        output = open(self.folder / f"{name}.log", "ab")
        # `exec`: a signal meant for the program must not end at the shell.
        # Where the whole run ignores SIGINT, because it is in the background, its children would inherit that.
        heeds_sigint = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self.running[name] = subprocess.Popen(["bash", "-c", "exec " + self.commands(step)], cwd=REPOSITORY,
                                              env=self.environment, stdout=output, stderr=output,
                                              preexec_fn=heeds_sigint)
        output.close()

    def stop(self, name):
        process = self.running.pop(name)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, -signal.SIGINT, 130), self.output(name)

    def stop_broker(self):
        broker = self.running.pop("broker")
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(15) == 0, self.output("broker")

    def broker_is_up(self):
        # The README's ports are the broker's defaults; the test gives it free ones by the same settings.
        wait_until(lambda: self.is_well(f"http://{self.environment['VOUCH_HTTP_ADDR']}/readyz"), "the broker is up", 30)

    def output(self, name):
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def answers(self, url):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def is_well(self, url):
        """Whether it answers, and not that it is still starting."""
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def service_is_up(self):
        wait_until(lambda: self.answers(f"http://127.0.0.1:{self.ports['9000']}/orders/none"), "the service is up", 20)

    def orders_shipped(self):
        return re.findall(r'shipping {"id": "(\d+)"', self.output("shipping"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def walk(tmp_path, request):
    walk = Walk(tmp_path)
    yield walk
    for process in walk.running.values():
        process.kill()
        process.wait()
    if request.session.testsfailed:
        for log in tmp_path.glob("*.log"):
            print(f"--- {log.name}\n{walk.output(log.stem)[-3000:]}", file=sys.stderr)


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
    assert walk.running.pop("service").wait(10) == -signal.SIGKILL
    assert re.search("open|waiting", listed), listed
    time.sleep(8)  # the broker asks a dead service meanwhile; it must not make anything up
    assert walk.orders_shipped() == ["1001"]
    walk.start("service again, in the background", "service")
    wait_until(lambda: walk.orders_shipped() == ["1001", "1002"], "order 1002 is shipped", 30)

    walk.stop("service")
    walk.start("service that dies before its database commit, in the background, instead of service again", "service")
    walk.service_is_up()
    assert "no answer: the service is dead" in walk.run("order 1003, which gets no answer")
    assert walk.running.pop("service").wait(10) == -signal.SIGKILL
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


class Program:
    """One of the two programs, as a process."""

    def __init__(self, shop, script, *arguments, broker=None):
        shop.started += 1
        self.log = shop.folder / f"{shop.started}-{script}.log"
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLE / script), "--broker", broker or shop.broker.grpc, *arguments],
                stdout=output, stderr=output, env={**os.environ, "HOME": str(shop.folder)})
        shop.programs.append(self)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def runs(self):
        return self.process.poll() is None

    def output(self):
        return self.log.read_text(errors="replace")


class Service(Program):
    """The order service, up. `ends` are its arguments for how it ends an order."""

    def __init__(self, shop, *ends, broker=None):
        database = ("--database", str(shop.folder / "orders.db"))
        super().__init__(shop, "order_service.py", *database, "--port", "0", *ends, broker=broker)
        told = re.compile(r"taking orders at http://127\.0\.0\.1:(\d+)/")
        wait_until(lambda: told.search(self.output()) or not self.runs(), "the service is up", 30)
        assert self.runs(), self.output()
        self.port = int(told.search(self.output())[1])

    def call(self, path, body=None):
        """Status and document; status 0 if there is no answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, json.load(problem)
        except OSError:
            return 0, None

    def order(self, id, item="teapot"):
        return self.call("/orders", {"id": id, "item": item})

    def find(self, id):
        return self.call(f"/orders/{quote(id)}")


class Shop:
    """A broker of its own, the two databases, and the programs that run."""

    def __init__(self, folder, broker):
        self.folder, self.broker = folder, broker
        self.programs, self.started = [], 0
        broker.create_transaction_topic("orders", immunity=f"{IMMUNITY_S}s", interval="1s")
        broker.push_component("http-checkback", "1.0", (plugin_dist() / "http-checkback.wasm").read_bytes())

    def bind(self, service, question=QUESTION, **config):
        origin = f"http://127.0.0.1:{service.port}"
        self.broker.set_binding(
            "orders", plugin="http-checkback:1.0", topics=["orders"], grants={"http": [origin]},
            config={"url": origin + question, "field": "/status", "commit": "placed", "rollback": "cancelled", **config})

    def shipping(self):
        return Program(self, "shipping.py", "--database", str(self.folder / "shipping.db"))

    def shipments(self):
        """Ids of what `shipping.py` shipped: those in its database, and those that its processes say, each sorted."""
        with closing(sqlite3.connect(self.folder / "shipping.db")) as database:
            there = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'shipments'").fetchone()[0]
            ids = [id for (id,) in database.execute("SELECT id FROM shipments")] if there else []
        lines = [line for program in self.programs for line in program.output().splitlines()]
        said = [json.loads(line.removeprefix("shipping "))["id"] for line in lines if line.startswith("shipping {")]
        return sorted(ids), sorted(said)

    def ships(self, *ids):
        """Waits until all of these are shipped: each once, and no other."""
        wait_until(lambda: self.shipments() == (sorted(ids), sorted(ids)), f"shipped are {ids}", 60, 0.2)

    def states(self):
        """The states of all transactions, sorted."""
        listed = self.broker.call("GET", "/v1/transactions?topic=orders")["items"]
        return sorted(transaction["state"] for transaction in listed)

    def settles(self, *states):
        wait_until(lambda: self.states() == sorted(states), f"the transactions are {states}", 60, 0.2)


@pytest.fixture
def shop(tmp_path, own_broker, request):
    shop = Shop(tmp_path, own_broker)
    yield shop
    for program in shop.programs:
        program.kill()
    if request.session.testsfailed:
        for program in shop.programs:
            print(f"--- {program.log.name}\n{program.output()[-3000:]}", file=sys.stderr)


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
