"""Runs the README of the order service with PostgreSQL, step by step as it is written, and looks at what it promises;
and plays what goes wrong between the service, the database and the broker. What counts in the end are three books that
must agree: the database, what was shipped, and what the broker counts."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from broker import binary, wait_until
from databases import Postgres, fence_tables, obstacle
from order_shop import EXAMPLE, STEP, Service, Shop, Walk

README = "postgres.md"
pytestmark = pytest.mark.skipif(obstacle("postgres") is not None, reason=obstacle("postgres") or "")
# PostgreSQL does not run as root: what the README says to put before its commands.
AS_POSTGRES = "setpriv --reuid=postgres --regid=postgres --clear-groups "
CUSTOMERS = 16


# ---- the README -----------------------------------------------------------------------------------------------------


class PostgresWalk(Walk):
    def __init__(self, folder):
        super().__init__(folder, README, "/tmp/vouch-shop")
        told = subprocess.run(["bash", "-euc", f"{self.commands('environment')}\nenv -0"], env=self.environment,
                              capture_output=True, text=True, check=True).stdout
        self.environment = dict(line.split("=", 1) for line in told.split("\0") if line)

    def commands(self, step):
        text = super().commands(step)
        if os.geteuid() == 0 and text.startswith(("initdb ", "postgres ")):
            assert AS_POSTGRES.strip() in (EXAMPLE / README).read_text().replace("\n", " ")
            return AS_POSTGRES + text
        return text

    def database_is_up(self):
        ready = ["pg_isready", "--quiet", "--dbname", "postgres"]
        wait_until(lambda: subprocess.run(ready, env=self.environment).returncode == 0, "the database is up", 30)

    def status(self, id):
        row = ["psql", "-AtXc", f"select status from orders where id = '{id}'"]
        return subprocess.run(row, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def transaction(self, key):
        listed = subprocess.run(["vouch", "transaction", "list", "--json"], env=self.environment, capture_output=True,
                                text=True, check=True).stdout
        return next(each for each in json.loads(listed)["items"] if each["keys"] == [key])

    def is_shipped(self, *ids):
        wait_until(lambda: self.orders_shipped() == list(ids), f"shipped are {ids}", 30)


@pytest.fixture
def walk(request):
    # Not below pytest's folder: the database's user may not enter that, and the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="vouch-shop-"))
    folder.chmod(0o755)
    walk = PostgresWalk(folder)
    try:
        yield walk
        walk.finish(tell=request.session.testsfailed)
    finally:
        shutil.rmtree(folder)


def test_the_readme_of_the_order_service_with_postgresql_tells_the_truth(walk):
    # What only downloads goes on beside the rest, as nobody needs it before the service.
    with ThreadPoolExecutor(1) as beside:
        installed = beside.submit(walk.run, "install")
        walk.run("folder")
        if os.geteuid() == 0:
            shutil.chown(walk.folder / "postgres", "postgres")
        walk.run("files of the database")
        walk.start("database, in the background", "database")
        walk.start("broker, in the background", "broker")
        walk.database_is_up()
        walk.run("tables")
        walk.broker_is_up()
        assert "last check: rollback: the fence is closed" in walk.run("setup")
        installed.result()

    walk.start("service, in the background", "service")
    walk.service_is_up()
    walk.start("shipping, in the background", "shipping")
    assert '"status": "PAID"' in walk.run("order 2001")
    walk.is_shipped("2001")

    walk.stop("service")
    walk.start("service that dies after its database commit, in the background, instead of service", "service")
    walk.service_is_up()
    assert "no answer: the service is dead" in walk.run("order 2002, which gets no answer")
    walk.service_dies()
    walk.is_shipped("2001", "2002")

    walk.start("service that dies once more, in the background", "service")
    walk.service_is_up()
    assert "no answer: the service is dead" in walk.run("order 2003, and no database")
    walk.service_dies()
    assert walk.running.pop("database").wait(30) == 0, walk.output("database")
    wait_until(lambda: walk.transaction("2003")["last_error"], "the broker asked in vain", 20)
    assert re.search(r"open|waiting", walk.run("nothing is guessed"))
    assert walk.transaction("2003")["checks"] == 0
    assert walk.orders_shipped() == ["2001", "2002"]
    walk.start("database again, in the background", "database")
    walk.is_shipped("2001", "2002", "2003")

    walk.start("service that dies before its database commit, in the background", "service")
    walk.service_is_up()
    assert "no answer: the service is dead" in walk.run("order 2004, which gets no answer")
    walk.service_dies()
    walk.start("service again, in the background", "service")
    walk.service_is_up()
    assert walk.run("orders 2005 and 2006, unpaid").count('"status": "UNPAID"') == 2
    assert '"status": "PAID"' in walk.run("payment of order 2005")
    walk.is_shipped("2001", "2002", "2003", "2005")
    # The slow order is slow beside the one that nobody pays.
    unpaid = walk.commands("order 2006 is cancelled")
    walk.stop("service")
    walk.start("slow service, in the background, instead of service again", "service")
    walk.service_is_up()
    with ThreadPoolExecutor(1) as beside:
        late = beside.submit(walk.run, "order 2007, which is too late")
        wait_until(lambda: walk.status("2006") == "CANCELLED", "order 2006 is cancelled", 30)
        walk.steps["order 2006 is cancelled"] = unpaid
        told = walk.run("order 2006 is cancelled")
        assert '"status": "CANCELLED"' in told
        assert "order 2006 was not paid in time and is cancelled; this payment is not taken" in told
        assert "order 2007 took too long and is not placed; place it again" in late.result()

    wait_until(lambda: walk.transaction("2007")["state"] == "rolled_back", "the last message is dropped", 30)
    assert walk.transaction("2004")["state"] == "rolled_back"
    ledger = walk.run("ledger")
    assert (ledger.count("committed"), len(re.findall("rolled.back", ledger))) == (4, 3), ledger
    statuses = dict(re.findall(r"^ (\d+) \| (\w+)", ledger, re.M))
    assert statuses == {**dict.fromkeys(["2001", "2002", "2003", "2005"], "PAID"), "2006": "CANCELLED"}
    assert walk.orders_shipped() == ["2001", "2002", "2003", "2005"]
    assert not walk.steps, f"steps that this test does not run: {list(walk.steps)}"

    walk.stop("service")
    walk.stop("shipping")
    walk.stop_broker()
    walk.stop("database")


# ---- what goes wrong ------------------------------------------------------------------------------------------------

MAX_CHECKS = 3


class PostgresShop(Shop):
    SERVICE, COMPONENT = "order_service_postgres.py", "sql-checkback"
    made = 0

    def __init__(self, folder, broker, server, **checks):
        super().__init__(folder, broker, **{"immunity": "1s", "interval": "1s", "max_checks": MAX_CHECKS, **checks})
        PostgresShop.made += 1
        self.server, self.name = server, f"shop{PostgresShop.made}"
        with server.connected() as administrator:
            administrator.execute("do $$ begin create role vouch login; exception when duplicate_object then end $$")
            administrator.execute(f"create database {self.name}")
        with self.session() as database:
            database.execute(fence_tables("postgres"))
            database.execute((EXAMPLE / "orders.sql").read_text())
        # The README's binding, with the address of this database.
        setup = dict(STEP.findall((EXAMPLE / README).read_text()))["setup"]
        binding = json.loads(re.search(r"<<'END'\n(.*?)^END$", setup, re.S | re.M)[1])
        binding["grants"]["sql"]["shop"]["url"] = server.url(self.name)
        broker.set_binding("orders", **binding)

    def database(self):
        return f"host={self.server.folder} user=postgres dbname={self.name}"

    def session(self):
        return psycopg.connect(self.database())

    def rows(self, query, *params):
        with self.session() as database:
            return database.execute(query, params).fetchall()

    def statuses(self):
        return dict(self.rows("select id, status from orders"))

    def transactions(self):
        """All of them, as an operator lists them."""
        command = [str(binary()), "transaction", "list", "--topic", "orders", "--limit", "1000", "--json", "--http",
                   self.broker.http]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["items"]

    def transaction_of(self, id):
        listed = self.broker.call("GET", "/v1/transactions?topic=orders&limit=1000")["items"]
        return next((each for each in listed if each["keys"] == [id]), None)

    def metric(self, name):
        return int(re.search(rf"^{name} (\d+)$", self.broker.call("GET", "/metrics"), re.M)[1])

    def is_settled(self, transactions):
        """Waits until there are so many transactions, and none is open."""
        ended = {"committed", "rolled_back"}
        wait_until(lambda: len(self.states()) == transactions and set(self.states()) <= ended,
                   f"{transactions} transactions have ended", 40, 0.2)

    def agrees(self, paid, cancelled=(), dropped=0):
        """Waits until all is settled, and compares the books: `paid` orders were shipped once, `cancelled` ones are in
        the database, `dropped` messages have no order of their own."""
        self.is_settled(len(paid) + len(cancelled) + dropped)
        self.ships(*paid)
        assert self.statuses() == {**dict.fromkeys(paid, "PAID"), **dict.fromkeys(cancelled, "CANCELLED")}
        by_message = {each["message_id"]: each["state"] for each in self.transactions()}
        for id, message in self.rows("select id, message from orders"):
            assert by_message[message] == ("committed" if id in paid else "rolled_back"), id
        # A row of the fence says the same, and is missing only where the service itself rolled back.
        for message, outcome in self.rows("select fence_key, outcome from vouch_fence"):
            assert by_message[message] == outcome, message
        counted = Counter(by_message.values())
        assert (counted["committed"], counted["rolled_back"]) == (len(paid), len(cancelled) + dropped)
        assert self.metric("vouch_transaction_commits_total") == counted["committed"]
        assert self.metric("vouch_transaction_rollbacks_total") == counted["rolled_back"]
        for nothing in ("vouch_transaction_conflicts_total", "vouch_transactions_open", "vouch_transactions_parked"):
            assert self.metric(nothing) == 0, nothing
        self.ships(*paid)

    @contextmanager
    def order_locked(self, id):
        """Nobody changes the order meanwhile: whoever has its fence, and wants to, stands still."""
        with self.session() as database:
            database.execute("select from orders where id = %s for update", (id,))
            yield

    @contextmanager
    def commits_wait(self):
        """What writes here commits, and then waits for a replica that there is not, until its session is ended."""
        with self.server.connected() as administrator:
            administrator.execute("set synchronous_commit = local")
            administrator.execute("alter system set synchronous_standby_names = 'nobody'")
            administrator.execute("select pg_reload_conf()")
            try:
                yield
            finally:
                administrator.execute("alter system reset synchronous_standby_names")
                administrator.execute("select pg_reload_conf()")

    def service_waits(self):
        """Whether a database transaction of the service has written into the fence, and waits for somebody else."""
        return self.rows("select from pg_locks join pg_stat_activity using (pid)"
                         " where relation = 'vouch_fence'::regclass and mode = 'RowExclusiveLock'"
                         " and wait_event_type = 'Lock' and usename = 'postgres'")

    def last_error(self, id):
        transaction = self.transaction_of(id)
        return json.dumps(transaction and transaction["last_error"])


class PostgresService(Service):
    def order_unpaid(self, id, item="teapot"):
        return self.call("/orders?pay=later", {"id": id, "item": item})

    def pay(self, id):
        return self.call(f"/orders/{id}/payment", b"")


@pytest.fixture(scope="session")
def server():
    """One for all tests of this process; it runs."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def shop(tmp_path, own_broker, server, request):
    if not server.runs():
        server.start()
    shop = PostgresShop(tmp_path, own_broker, server, **getattr(request, "param", {}))
    yield shop
    shop.finish(tell=request.session.testsfailed)


def each(do, things):
    """All at once; their results."""
    with ThreadPoolExecutor(CUSTOMERS) as threads:
        return list(threads.map(do, things))


def status(answer):
    return answer[0], answer[1] and answer[1].get("status")


@pytest.mark.parametrize("shop", [{"max_checks": 6}], indirect=True)
def test_an_order_that_is_paid_in_time_is_shipped_and_one_that_is_not_is_cancelled(shop):
    """Scenario S4.a. Paying twice is no harm, and what is cancelled cannot be paid."""
    service = PostgresService(shop)
    shop.shipping()
    for id in ("1", "2"):
        assert status(service.order_unpaid(id)) == (201, "UNPAID")
    wait_until(lambda: shop.transaction_of("1")["checks"] > 0, "the broker asked, and nobody knows", 20)
    assert shop.shipments() == ([], []), "what is not paid is not shipped"
    assert [status(service.pay("1")) for _ in range(3)] == [(200, "PAID")] * 3
    shop.agrees(["1"], cancelled=["2"])
    # The last check ends it, so one less was answered with "unknown", and nothing was parked.
    assert shop.transaction_of("2")["checks"] == 5
    refused = "order 2 was not paid in time and is cancelled; this payment is not taken"
    assert service.pay("2") == (409, {"error": refused})
    assert service.pay("3") == (404, {"error": "there is no order 3"})
    assert status(service.pay("1")) == (200, "PAID")
    assert service.order("2") == service.order_unpaid("2") == (409, {"error": "order 2 exists"})
    shop.agrees(["1"], cancelled=["2"], dropped=2)


def test_a_service_that_is_killed_while_it_places_an_order_leaves_no_order_undecided(shop):
    """Scenario S2.c: nobody is alive afterwards, and nobody is needed."""
    shop.shipping()
    moments = ("before-database", "after-fence", "before-commit", "after-database")
    places = {f"{moment}-{place.__name__}": (moment, place)
              for moment in moments for place in (PostgresService.order, PostgresService.order_unpaid)}

    def dies(id):
        moment, place = places[id]
        service = PostgresService(shop, "--die-at", moment)
        assert place(service, id) == (0, None)
        assert service.process.wait(20) == -signal.SIGKILL

    each(dies, places)
    # What was in the database counts: the order that was paid with it, and the one that waits, until it is not paid.
    shop.agrees(["after-database-order"], cancelled=["after-database-order_unpaid"], dropped=6)


@pytest.mark.parametrize("shop", [{"max_checks": 8}], indirect=True)
def test_a_service_that_is_killed_while_it_takes_a_payment_leaves_the_order_paid_or_payable(shop):
    shop.shipping()
    moments = ("payment-after-fence", "payment-before-commit", "payment-after-database")
    live = PostgresService(shop)
    dying = each(lambda moment: (moment, PostgresService(shop, "--die-at", moment)), moments * 2)
    ids = [f"{moment}-{after}" for after in ("given-up", "paid-again") for moment in moments]
    for id in ids:
        assert status(live.order_unpaid(id)) == (201, "UNPAID")
    for id, (_, service) in zip(ids, dying):
        assert service.pay(id) == (0, None)
        assert service.process.wait(20) == -signal.SIGKILL
    for id in ids[3:]:
        assert status(live.pay(id)) == (200, "PAID")
    # What was committed counts without the second payment; what was not is given up with the process.
    shop.agrees(["payment-after-database-given-up", *ids[3:]], cancelled=ids[:2])


@pytest.mark.parametrize("shop", [{"max_checks": 6}], indirect=True)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_while_the_database_is_away_nothing_is_decided_and_afterwards_every_order_is(shop, how):
    """Scenarios S2.a and S2.c."""
    shop.shipping()
    live, dying = PostgresService(shop), PostgresService(shop, "--die-at", "after-database")
    assert dying.order("paid") == (0, None)
    assert status(live.order_unpaid("unpaid")) == (201, "UNPAID")
    getattr(shop.server, how)()
    # Its half message is stored, and the database is not there to take the order.
    assert live.order("homeless")[0] == 503
    assert live.pay("unpaid")[0] == 503
    assert live.find("paid")[0] == 503
    before = {each["id"]: (each["state"], each["checks"]) for each in shop.transactions()}
    # Unless the broker was faster than the test, and the first has ended.
    asked = {id: set() for id, (state, _) in before.items() if state != "committed"}

    def is_asked_in_vain():
        for each in shop.transactions():
            if each["last_error"]:
                asked[each["id"]].add(each["last_error"]["at"])
        return all(len(times) > 2 for times in asked.values())

    wait_until(is_asked_in_vain, "the broker asked each in vain, again and again", 40, 0.2)
    assert {each["id"]: (each["state"], each["checks"]) for each in shop.transactions()} == before
    shop.server.start()
    shop.agrees(["paid"], cancelled=["unpaid"], dropped=1)
    # And what follows goes on as ever.
    assert status(live.order("next")) == (201, "PAID")
    shop.agrees(["paid", "next"], cancelled=["unpaid"], dropped=1)


def test_what_comes_after_the_fence_was_closed_is_undone_and_the_customer_told(shop):
    slow, live = PostgresService(shop, "--slow-database", str(MAX_CHECKS + 3)), PostgresService(shop)
    shop.shipping()
    assert status(live.order_unpaid("late-payment")) == (201, "UNPAID")
    told = each(lambda call: call(), [
        lambda: slow.order("late"), lambda: slow.order_unpaid("late-unpaid"), lambda: slow.pay("late-payment")])
    assert told == [
        (503, {"error": "order late took too long and is not placed; place it again"}),
        (503, {"error": "order late-unpaid took too long and is not placed; place it again"}),
        (409, {"error": "order late-payment was not paid in time and is cancelled; this payment is not taken"})]
    shop.agrees([], cancelled=["late-payment"], dropped=2)
    # The customer may: only the first message is closed.
    assert status(live.order("late")) == (201, "PAID")
    shop.agrees(["late"], cancelled=["late-payment"], dropped=2)


def test_a_database_commit_that_got_no_answer_ends_nothing_and_is_found_by_the_broker(shop):
    service = PostgresService(shop)
    shop.shipping()
    with shop.commits_wait(), ThreadPoolExecutor(1) as customer:
        placed = customer.submit(service.order, "1")
        waiting = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
        wait_until(lambda: shop.rows(waiting), "the commit has happened, and its session is ended", 10)
        assert placed.result()[0] == 503
    assert status(service.find("1")) == (200, "PAID")
    shop.agrees(["1"])


@pytest.mark.parametrize("ends_with", ["commit", "kill -9"])
def test_the_last_check_waits_for_a_payment_that_has_the_fence(shop, ends_with):
    service = PostgresService(shop)
    shop.shipping()
    assert status(service.order_unpaid("1")) == (201, "UNPAID")
    with ThreadPoolExecutor(1) as customer:
        with shop.order_locked("1"):
            paid = customer.submit(service.pay, "1")
            wait_until(shop.service_waits, "the payment has the fence and waits for the order", 10)
            # Not answered with "unknown": not counted, and never the end.
            wait_until(lambda: "holds the row" in shop.last_error("1"), "the last check came, and waits", 20)
            assert shop.transaction_of("1")["checks"] == MAX_CHECKS - 1
            if ends_with == "kill -9":
                service.kill()
        assert status(paid.result()) == ((200, "PAID") if ends_with == "commit" else (0, None))
    shop.agrees(["1"] if ends_with == "commit" else [], cancelled=[] if ends_with == "commit" else ["1"])


def test_the_last_check_waits_for_an_unpaid_order_that_is_being_written_and_then_cancels_it(shop):
    service = PostgresService(shop)
    shop.shipping()
    with ThreadPoolExecutor(1) as customer:
        with shop.session() as other:
            # The service waits for what becomes of this row.
            other.execute("insert into orders values ('1', 'kettle', 'UNPAID', null)")
            placed = customer.submit(service.order_unpaid, "1")
            wait_until(lambda: "holds the row" in shop.last_error("1"), "the last check came, and waits", 20)
            other.rollback()
        assert status(placed.result()) == (201, "UNPAID")
    shop.agrees([], cancelled=["1"])


def test_an_order_that_is_placed_again_is_not_cancelled_with_its_first_message(shop):
    """Scenario S1.b: a half message that nobody knows of, and another one with the same key."""
    dying, live = each(lambda ends: PostgresService(shop, *ends), [("--die-at", "before-database"), ()])
    shop.shipping()
    assert dying.order("1") == (0, None)
    assert status(live.order("1")) == (201, "PAID")
    shop.agrees(["1"], dropped=1)


def test_without_a_broker_a_paid_order_is_announced_later_and_no_order_waits(shop):
    """Scenario S1.a; the second service sees that one announces, not two."""
    shop.shipping()
    first, second = each(lambda _: PostgresService(shop), range(2))
    shop.broker.kill()
    assert status(first.order("1")) == (202, "NOTIFY_PENDING")
    refused = "order 2 cannot wait for its payment just now and is not placed; place it again"
    assert second.order_unpaid("2") == (503, {"error": refused})
    assert shop.statuses() == {"1": "NOTIFY_PENDING"}
    shop.broker.start()
    shop.ships("1")
    wait_until(lambda: set(shop.states()) <= {"committed", "rolled_back"}, "everything is settled", 30)
    # A half message that lost the race is rolled back.
    shop.agrees(["1"], dropped=len(shop.states()) - 1)
    assert first.runs() and second.runs()


# ---- payments raced against the last check --------------------------------------------------------------------------

IN_TIME, RACED, NEVER = 6, 40, 6
# Milliseconds around the last check.
AROUND = (-150, 50)


@pytest.mark.parametrize("shop", [{"max_checks": 2, "interval": "2s"}], indirect=True)
def test_a_payment_raced_against_the_last_check_is_decided_by_the_row(shop, figures):
    service = PostgresService(shop)
    shop.shipping()
    seed = int(os.environ.get("VOUCH_SEED", time.time_ns() % 1_000_000))
    chance = random.Random(seed)
    raced = {f"raced-{n}": chance.uniform(*AROUND) / 1000 for n in range(RACED)}
    in_time, never = [[f"{name}-{n}" for n in range(count)] for name, count in (("in-time", IN_TIME), ("never", NEVER))]
    last_checks = {}

    def place(id):
        assert status(service.order_unpaid(id)) == (201, "UNPAID")

    def pay(id):
        if id in in_time:
            place(id)
        elif id in raced:
            wait_until(lambda: id in last_checks, f"{id} has one check left", 20, 0.01)
            # No waiting for anything: this is when the customer happens to pay.
            time.sleep(max(0, last_checks[id] + raced[id] - time.time()))
        return id, status(service.pay(id))

    def look():
        """Notes when the last check of each comes."""
        while len(last_checks) < RACED and not over.wait(0.05):
            for each in shop.broker.call("GET", "/v1/transactions?topic=orders&limit=1000")["items"]:
                if each["keys"][0] in raced and each["checks"] == 1 and each["next_check_at"]:
                    at = datetime.fromisoformat(each["next_check_at"].replace("Z", "+00:00"))
                    last_checks[each["keys"][0]] = at.timestamp()

    over = threading.Event()
    watch = threading.Thread(target=look)
    watch.start()
    try:
        with ThreadPoolExecutor(CUSTOMERS) as customers:
            list(customers.map(place, [*raced, *never]))
        with ThreadPoolExecutor(RACED + IN_TIME) as customers:
            told = dict(customers.map(pay, [*in_time, *raced]))
    finally:
        over.set()
        watch.join()
    shop.is_settled(IN_TIME + RACED + NEVER)
    told |= dict(pay(id) for id in never)

    paid = [id for id, what in told.items() if what == (200, "PAID")]
    refused = [id for id, what in told.items() if what == (409, None)]
    figures(f"seed {seed}: of {RACED} raced payments {len(set(raced) & set(paid))} came first, "
            f"{len(set(raced) & set(refused))} came second")
    assert len(paid) + len(refused) == len(told), {id: what for id, what in told.items() if id not in paid + refused}
    assert set(in_time) <= set(paid) and set(never) <= set(refused)
    # What the customers were told is what became of their orders.
    shop.agrees(paid, cancelled=refused)
