"""What becomes of an order when the broker, the database or the service is away in the middle of it: the scenarios S1 (the half
message fails), S2 (the database is down) and S4.a (waiting for payment) of the semantics, with a service in a process of its
own, which is killed, and databases that are stopped and started. Which test shows which, its first line says; S1.a and S1.b are
shown with a reader's eyes in test_example_order_service.py, S3 in test_cluster.py.

Each is settled by the service's own checker, and by a component where that can be: a component that asks the database knows what
is there, and nothing of a side cache, so S2.a and S2.c are settled by the service's HTTP endpoint instead. Minutes are seconds.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import databases
import pytest
from broker import HttpProblem, quote, wait_until
from clients import message, producer
from cluster import SETTLES_WITHIN_S, Node, free_address
from databases import Database
from network import Network
from races import AT_ONCE, HTTP, Field, component, node_with_components
from raw import raw_client, raw_message
from wire import Code, SendMessageRequest

CHECKER, ENDPOINT, COMPONENT = "its own checker", "its HTTP endpoint", "a component that asks its database"
INTERVAL_S = 0.3
SCHEDULE = {"immunity": "1500ms", "interval": "300ms", "max_checks": 1000}
# A send may take so long, and what a busy machine adds.
SEND_BUDGET_S, BUSY_S = 3, 2
# Nobody knows what became of it; or that was told of the client's first try and kept from the service, and this of the last.
NOT_DONE = {Code.MASTER_PERSISTENCE_TIMEOUT, Code.SLAVE_PERSISTENCE_TIMEOUT, Code.HA_NOT_AVAILABLE, None}


@pytest.fixture(scope="session", autouse=True)
def servers():
    yield
    databases.remove_all()


@pytest.fixture
def own_broker(tmp_path):
    with node_with_components(tmp_path) as broker:
        yield broker


class Desk(Field):
    """The order service, and what it needs."""

    def __init__(self, broker, database, name, way, folder, **check):
        super().__init__(broker, database, name, **{**SCHEDULE, **check})
        self.way, self.folder = way, folder
        self.port = int(free_address().rsplit(":", 1)[1])
        if way == COMPONENT:
            self.bind(AT_ONCE)
        elif way == ENDPOINT:
            origin = f"http://127.0.0.1:{self.port}"
            broker.set_binding(name, plugin=component(broker, HTTP), topics=[name], grants={"http": [origin]}, config={
                "url": origin + "/{key}/{id}", "field": "/answer", "commit": "commit", "rollback": "rollback"})

    def service(self, **more):
        port = {"http_port": self.port} if self.way == ENDPOINT else {}
        return super().service("shop_service.py", cache=str(self.folder / f"cache-{self.topic}"), **port, **more)

    def of(self, order) -> list[dict]:
        """Its transactions."""
        return [each for each in self.transactions() if each["keys"] == [order]]

    def one_of(self, order) -> dict:
        (found,) = self.of(order)
        return found

    def came(self, order) -> int:
        return len(self.ledger.deliveries.get(order, []))

    def comes_once(self, *orders, deadline_s=20.0):
        """And nothing else does."""
        wait_until(lambda: all(self.came(order) for order in orders), f"{orders} came", deadline_s)
        assert {order: [attempt for _, attempt in came] for order, came in self.ledger.deliveries.items()} == \
            {order: [1] for order in orders}

    def rows(self) -> dict:
        return dict(self.database.ask("select id, state from orders"))

    def becomes(self, order, state, deadline_s=20.0) -> dict:
        return wait_until(lambda: (shown := self.one_of(order))["state"] == state and shown, f"{order} is {state}", deadline_s)


@pytest.fixture
def desk(own_broker, tmp_path, name):
    """Makes it; what the test is about is said by its parameters."""
    made = []

    def make(way, kind, broker=own_broker, **check):
        if why := databases.obstacle(kind):
            pytest.skip(f"LEFT OUT: {why}")
        made.append(Desk(broker, Database(kind, tmp_path), f"{name}-{len(made)}", way, tmp_path, **check))
        return made[-1]

    yield make
    for each in made:
        each.finish()


def says(**wanted):
    return lambda said: all(said.get(what) == value for what, value in wanted.items())


def asked(services, order):
    """How often about it."""
    return sum(says(asked=order)(said) for service in services for said in service.said)


def ways(*which):
    return pytest.mark.parametrize("way, kind", which, ids=[f"{way}-{kind}".replace(" ", "_") for way, kind in which])


BOTH = ways((CHECKER, "postgres"), (COMPONENT, "mariadb"))
WITH_SIDE_CACHE = ways((CHECKER, "postgres"), (ENDPOINT, "mariadb"))


# ---- S1: the half message fails ---------------------------------------------------------------------------------------------


@BOTH
def test_an_order_without_a_broker_is_marked_and_placed_when_there_is_one(desk, way, kind):
    """S1.a"""
    shop = desk(way, kind)
    service = shop.service()
    shop.kill_node()
    service.tell(order="O1")
    said = service.heard(says(order="O1", told="pending"), "O1 is marked")
    assert said["took"] < SEND_BUDGET_S + BUSY_S and not said.get("executed"), said
    assert shop.rows() == {"O1": "NOTIFY_PENDING"}
    shop.broker.start()
    assert shop.transactions() == []

    def placed():
        """Until the client has found the node again, an attempt fails as the first did."""
        service.tell(compensate=True)
        return shop.rows() == {"O1": "NOTIFIED"}

    wait_until(placed, "the order is placed again", 20, 0.5)
    shop.comes_once("O1")
    assert shop.one_of("O1")["state"] == "committed"
    assert shop.metric("vouch_transaction_commits_total") == 1


class Deaf:
    """A way to the broker on which answers can be lost."""

    def __init__(self, broker):
        self.network = Network()
        self.address = self.network.door("broker", "service")
        self.network.leads_to("broker", broker.grpc)

    def loses_answers(self):
        self.network.cut("broker", "service")

    def hears(self):
        """What was held back is gone, with its connection."""
        self.network.heal(lose=True)


@BOTH
def test_an_answer_that_is_lost_and_a_client_that_tries_again_make_one_half(desk, way, kind):
    """S1.b, where the client tries again: the half has the same id."""
    shop = desk(way, kind, immunity="4s")
    wire = Deaf(shop.broker)
    service = shop.service(broker=wire.address, timeout_s=1)
    wire.loses_answers()
    service.tell(order="O1")
    wait_until(lambda: shop.metric("vouch_resends_total") == 1, "the half is stored, and sent again", every_s=0.02)
    assert not any(says(order="O1")(said) for said in service.said), "nobody told the service"
    wire.network.heal()  # the first answer comes too late
    service.heard(says(order="O1", told="committed"), "O1 is placed")
    shop.comes_once("O1")
    assert (shop.one_of("O1")["state"], shop.rows()) == ("committed", {"O1": "PLACED"})
    wire.network.close()


@BOTH
def test_of_two_halves_of_an_order_the_one_that_nobody_knows_is_rolled_back(desk, way, kind):
    """S1.b, where the service tries again: it was killed before the answer came, and the half has another id."""
    shop = desk(way, kind)
    wire = Deaf(shop.broker)
    first = shop.service(broker=wire.address)
    wire.loses_answers()
    first.tell(order="O1")
    wait_until(lambda: shop.of("O1"), "the half is stored")
    first.kill()
    wire.hears()
    shop.service().tell(order="O1")
    wait_until(lambda: sorted(each["state"] for each in shop.of("O1")) == ["committed", "rolled_back"], "both are settled", 20)
    shop.comes_once("O1")
    assert shop.rows() == {"O1": "PLACED"}
    assert (shop.metric("vouch_transaction_commits_total"), shop.metric("vouch_transaction_rollbacks_total")) == (1, 1)
    wire.network.close()


def test_a_half_that_only_the_leader_had_is_rolled_back_when_there_is_a_majority_again(cluster, desk):
    """S1.c. An official client gets no receipt, so there is nothing by which the service could ask for the rollback itself."""
    leader, followers = cluster.leader(), cluster.followers()
    shops = [desk(way, kind, broker=leader) for way, kind in ((CHECKER, "postgres"), (COMPONENT, "mariadb"))]
    services = [shop.service(timeout_s=1) for shop in shops]  # the client tries four times
    # From now on the leader hears of nobody; and they are gone before they hear of the halves.
    for node in followers:
        cluster.isolate(node)
    for service in services:
        service.tell(order="O1")
    wait_until(lambda: (told := cluster.positions().get(leader.id)) and told[0] > told[2], "a half is appended", every_s=0.01)
    for service in services:
        said = service.heard(says(order="O1", told="pending"), "its service is told that nobody knows", 40)
        assert not said.get("executed") and said["code"] in NOT_DONE, said
    for node in followers:
        node.kill()
    cluster.network.heal(lose=True)
    # With one of them: the one that has the halves has to lead.
    followers[0].launch()
    wait_until(lambda: cluster.leads() and all(node.ready() for node in (leader, followers[0])), "both are ready",
               SETTLES_WITHIN_S)
    for shop, service in zip(shops, services):
        wait_until(lambda: shop.of("O1"), "the half is there")
        rolled_back = shop.becomes("O1", "rolled_back", 30)
        assert shop.came("O1") == 0 and shop.rows() == {"O1": "NOTIFY_PENDING"}, rolled_back
        # As S1.a goes on: the order is placed again, with another half.
        service.tell(compensate=True)
        shop.comes_once("O1", deadline_s=30)
        assert sorted(each["state"] for each in shop.of("O1")) == ["committed", "rolled_back"]
    followers[1].start()
    cluster.one_log()


SMALL = ("--segment-size", "4MiB", "--zero-ahead", "1MiB", "--disk-limit", "24MiB")


@BOTH
def test_on_a_full_disk_an_order_is_refused_at_once_and_open_ones_end(tmp_path, desk, name, way, kind):
    """S1.d"""
    (tmp_path / "small").mkdir()
    with node_with_components(tmp_path / "small", SMALL) as broker:
        shop = desk(way, kind, broker=broker, immunity="4s")
        service = shop.service()
        for order, stop in (("ended", "committed"), ("asked about", "half sent")):
            service.tell(order=order, stop=stop)
            service.heard(says(order=order, at=stop), f"{order} is at {stop}")
        broker.create_topic(f"{name}-others")
        fill(broker, f"{name}-others")
        assert [each["state"] for each in shop.transactions()] == ["open", "open"]
        service.tell(order="O1")
        said = service.heard(says(order="O1", told="pending"), "O1 is refused")
        assert (said["code"], said["took"] < SEND_BUDGET_S + BUSY_S) == (Code.TOO_MANY_REQUESTS, True), said
        service.tell(go="ended")
        service.heard(says(order="ended", told="committed"), "its end is taken")
        shop.becomes("asked about", "rolled_back")
        shop.comes_once("ended")
        service.tell(go="asked about")
        assert (shop.of("O1"), shop.rows()["O1"]) == ([], "NOTIFY_PENDING")
        assert shop.metric("vouch_disk_full") == 1
        shop.finish()


def fill(broker, topic):
    """Sends until the disk is full; who is refused is told when to come again."""
    with raw_client(broker) as raw, producer(broker, topic) as client:
        def refused():
            try:
                for _ in range(8):
                    client.send(message(topic, bytes(500_000)))
            except Exception as fault:
                return getattr(fault, "code", None) == Code.TOO_MANY_REQUESTS

        wait_until(refused, "the disk is full", 30)
        answer, call = raw.stub.SendMessage.with_call(SendMessageRequest(messages=[raw_message(topic)]),
                                                      metadata=raw.metadata(), timeout=5)
        assert answer.status.code == Code.TOO_MANY_REQUESTS
        assert int(dict(call.trailing_metadata())["retry-after-ms"]) > 0


# ---- S2: the database is down -------------------------------------------------------------------------------------------------


def placed_without_a_database(shop, service):
    """S2.a, the first steps: the half is stored, the row is not written, the first check counts and says nothing."""
    shop.database.stop()
    service.tell(order="O2")
    service.heard(says(order="O2", told="unknown"), "its row cannot be written")
    placed = shop.one_of("O2")
    assert (placed["state"], placed["checks"], shop.came("O2")) == ("open", 0, 0), placed


def first_check_is_in_vain(shop):
    checked = wait_until(lambda: (shown := shop.one_of("O2"))["checks"] == 1 and shown, "a check was answered", 20, 0.02)
    assert (checked["state"], checked["last_answer"]["verdict"]) == ("open", "unknown"), checked
    assert 1.4 < seconds(checked["last_answer"]["at"], checked["opened_at"]) < 1.5 + INTERVAL_S + BUSY_S
    wait_until(lambda: asked(shop.services, "O2") >= 2, "it is asked again")
    first, second = sorted(said["at"] for service in shop.services for said in service.said if said.get("asked") == "O2")[:2]
    assert INTERVAL_S - 0.05 < second - first < INTERVAL_S + BUSY_S


def seconds(later, earlier):
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def recovers(shop, service, figures):
    """S2.a, the last steps: the database is back, the check writes the row, and the order is announced."""
    shop.database.start()
    service.heard(says(of="O2", answered="commit"), "a check writes the row")
    answered = time.monotonic()
    shop.comes_once("O2", deadline_s=1 + BUSY_S)
    figures(f"delivered {time.monotonic() - answered:.2f} s after the answer")
    shop.becomes("O2", "committed")
    before = asked(shop.services, "O2")
    time.sleep(5 * INTERVAL_S)
    assert asked(shop.services, "O2") == before, "nobody is asked about what has ended"
    assert shop.rows() == {"O2": "PLACED"}
    shop.comes_once("O2")
    assert (shop.metric("vouch_transaction_commits_total"), shop.metric("vouch_transactions_open")) == (1, 0)


@WITH_SIDE_CACHE
def test_a_check_writes_the_row_when_the_database_is_back(desk, way, kind, figures):
    """S2.a"""
    shop = desk(way, kind)
    service = shop.service()
    placed_without_a_database(shop, service)
    first_check_is_in_vain(shop)
    recovers(shop, service, figures)


@ways((CHECKER, "mariadb"))
def test_another_instance_writes_the_row_when_the_first_was_killed(desk, way, kind, figures):
    """S2.b. A component asks at an address, not an instance: the next test has that."""
    shop = desk(way, kind)
    first, other = shop.service(), shop.service()
    placed_without_a_database(shop, first)
    first.kill()
    first_check_is_in_vain(shop)
    assert asked([first], "O2") == 0
    recovers(shop, other, figures)


@WITH_SIDE_CACHE
def test_while_no_instance_lives_nothing_is_counted_and_the_next_one_is_asked(desk, way, kind, figures):
    """S2.c, for longer than the reference would have waited before it parked it."""
    shop = desk(way, kind, max_checks=8)
    service = shop.service()
    placed_without_a_database(shop, service)
    service.kill()
    waiting = "waiting_for_checker" if way == CHECKER else "open"
    wait_until(lambda: (shown := shop.one_of("O2"))["state"] == waiting and seconds_old(shown) > 1.5 + 9 * INTERVAL_S,
               "more intervals passed than there may be checks", 30)
    shown = shop.one_of("O2")
    assert (shown["state"], shown["checks"]) == (waiting, 0), shown
    began, back = time.monotonic(), shop.service()
    back.heard(says(asked="O2"), "the one that comes back is asked")
    figures(f"asked {time.monotonic() - began:.2f} s after it was started")
    recovers(shop, back, figures)


def seconds_old(shown):
    return time.time() - datetime.fromisoformat(shown["opened_at"]).timestamp()


def command(shop, *arguments):
    return Node.admin(shop.broker, "transaction", *arguments)


def parked(shop, order, checks):
    shop.becomes(order, "parked")
    listed = [each for each in shop.broker.call("GET", f"/v1/transactions?state=parked&topic={quote(shop.topic)}")["items"]
              if each["keys"] == [order]]
    assert [each["checks"] for each in listed] == [checks], listed
    return listed[0]["id"]


def test_a_checker_that_never_knows_parks_it_once_and_an_operator_ends_it(desk):
    """S2.d, with the database down for good."""
    shop = desk(CHECKER, "postgres", immunity="100ms", interval="100ms", max_checks=15)
    service = shop.service()
    shop.database.kill()
    for order in ("O1", "O2"):
        service.tell(order=order)
        service.heard(says(order=order, told="unknown"), f"the row of {order} cannot be written")
    ids = {order: parked(shop, order, 15) for order in ("O1", "O2")}
    assert [asked([service], order) for order in ids] == [15, 15]
    wait_until(lambda: shop.metric("vouch_transactions_parked") == 2
               and shop.metric("vouch_topic_transactions_parked", topic=shop.topic) == 2, "the metrics say so")
    assert shop.broker.log().count("parked") >= 2, "and the log"
    command(shop, "resume", ids["O1"], "--by", "ann", "--reason", "the database is back, she thinks")
    assert shop.one_of("O1")["checks"] < 15, "it begins anew"
    parked(shop, "O1", 15)
    assert [asked([service], order) for order in ids] == [30, 15]
    assert shop.ledger.deliveries == {}
    command(shop, "commit", ids["O1"], "--by", "ann", "--reason", "the customer has paid")
    command(shop, "rollback", ids["O2"], "--by", "ann", "--reason", "nobody knows of it")
    command(shop, "commit", ids["O1"], "--by", "ben", "--reason", "again")
    with pytest.raises(HttpProblem) as refusal:
        shop.broker.call("POST", f"/v1/transactions/{ids['O2']}/commit", {"by": "ben"})
    assert (refusal.value.status, refusal.value.body["outcome"]) == (409, "rolled_back")
    shop.comes_once("O1")
    counted = [shop.metric(f"vouch_transaction{what}") for what in ("_commits_total", "_rollbacks_total", "s_parked")]
    assert counted == [1, 1, 0]
    shop.database.start()


def test_a_component_that_never_knows_parks_it_and_knows_after_a_resume(desk):
    """S2.d, where the row says nothing that the binding knows. With a fence nothing is parked: the last check closes."""
    shop = desk(CHECKER, "mariadb", immunity="100ms", interval="100ms", max_checks=15)
    shop.bind_without_fence("1h")
    service = shop.service(payment="row")
    service.tell(order="O1")
    service.heard(says(order="O1", told="unknown"), "it waits for payment")
    id = parked(shop, "O1", 15)
    service.tell(pay="O1")
    service.heard(says(order="O1", paid=True), "it is paid")
    session = shop.database.session()
    session.run("update orders set state = 'NEW' where id = ?", "O1")  # what the binding takes for a commit
    session.close()
    assert shop.one_of("O1")["state"] == "parked" and shop.came("O1") == 0
    command(shop, "resume", id, "--by", "ann")
    shop.comes_once("O1")
    assert shop.one_of("O1")["state"] == "committed"


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_while_the_database_is_down_a_component_counts_nothing_and_then_says_what_happened(desk, kind):
    """S2 as a component can show it: no answer is not *unknown*, so nothing is parked, however long that lasts."""
    shop = desk(COMPONENT, kind, max_checks=3, immunity="3s")
    service = shop.service()
    for order, stop in (("happened", "committed"), ("did not", "half sent")):
        service.tell(order=order, stop=stop)
        service.heard(says(order=order, at=stop), f"{order} is at {stop}")
    service.kill()
    shop.database.kill()

    def unanswered():
        return shop.metric("vouch_checks_total", binding=shop.topic, verdict="no_answer") >= 8

    wait_until(unanswered, "checks got no answer, more often than there may be", 30)
    assert [(each["state"], each["checks"]) for each in shop.transactions()] == [("open", 0)] * 2
    shop.database.start()
    shop.becomes("happened", "committed")
    shop.becomes("did not", "rolled_back")
    shop.comes_once("happened")
    assert shop.rows() == {"happened": "PLACED"}


@pytest.mark.parametrize("answer", ["commit", "rollback"])
@pytest.mark.parametrize("first", ["the sender", "the checker", "both at once"])
def test_a_late_end_and_a_check_make_one_outcome_and_the_loser_is_told(desk, first, answer):
    """S2.e. The commit of an instance that was killed was still under way when another instance was asked."""
    shop = desk(CHECKER, "postgres", immunity="100ms", interval="5s")
    sender = shop.service(answers="commit")  # and is killed before it answers
    sender.tell(order="O1", stop="committed")
    sender.heard(says(order="O1", at="committed"), "it is committed in the database")
    ids = next(said for said in sender.said if "transaction_id" in said)
    sender.kill()
    other = shop.service(answers=answer)
    other.heard(says(asked="O1"), "the other instance is asked")
    with raw_client(shop.broker) as raw, ThreadPoolExecutor(1) as pool:
        def late():
            return raw.end(shop.topic, ids["message_id"], ids["transaction_id"])

        def checked():
            other.tell(go="answer")
            return other.heard(says(of="O1"), "it has answered")

        if first == "the sender":
            told = late()
            checked()
        elif first == "the checker":
            checked()
            ended = "committed" if answer == "commit" else "rolled_back"
            shop.becomes("O1", ended)
            told = late()
        else:
            coming = pool.submit(late)
            checked()
            told = coming.result()
    conflict = int(answer == "rollback")
    wait_until(lambda: shop.metric("vouch_transaction_conflicts_total") == conflict, "the conflict is counted")
    outcome = shop.one_of("O1")["state"]
    allowed = {"the sender": ["committed"], "the checker": ["rolled_back" if conflict else "committed"]}
    assert outcome in allowed.get(first, ["committed", "rolled_back"] if conflict else ["committed"])
    assert told == (Code.OK if outcome == "committed" else Code.PRECONDITION_FAILED)
    if outcome == "committed":
        shop.comes_once("O1")
    counted = shop.metric("vouch_transaction_commits_total"), shop.metric("vouch_transaction_rollbacks_total")
    assert counted == ((1, 0) if outcome == "committed" else (0, 1))
    time.sleep(INTERVAL_S)
    assert shop.came("O1") == (outcome == "committed")


def test_a_late_end_and_a_component_make_one_outcome(desk):
    """S2.e. With a fence they cannot say different things: what the component answers was committed."""
    shop = desk(COMPONENT, "postgres", immunity="100ms", interval="100ms")
    shop.bind("1h")
    sender = shop.service()
    with raw_client(shop.broker) as raw:
        for number in range(8):
            order = f"O{number}"
            sender.tell(order=order, stop="committed")
            sender.heard(says(order=order, at="committed"), "it is committed in the database")
            said = next(said for said in sender.said if said.get("order") == order and "transaction_id" in said)
            time.sleep(0.01 * number)
            assert raw.end(shop.topic, said["message_id"], said["transaction_id"]) == Code.OK
        sender.kill()
    shop.comes_once(*(f"O{number}" for number in range(8)))
    assert shop.metric("vouch_transaction_commits_total") == 8
    assert shop.metric("vouch_transaction_conflicts_total") == 0


# ---- S4.a: waiting for payment -------------------------------------------------------------------------------------------------


@ways((CHECKER, "postgres"), (COMPONENT, "mariadb"), (COMPONENT, "sqlite"))
def test_an_order_is_announced_when_it_is_paid_and_cancelled_when_it_is_not(desk, way, kind, figures):
    """S4.a, a minute being half a second. Those that are paid at the last moment are paid or cancelled, never both."""
    minute = 0.5
    shop = desk(way, kind, immunity="500ms", interval="500ms", max_checks=10)
    if way == COMPONENT:
        shop.bind("1h", **{
            "on-rollback": shop.database.text("update orders set state = 'CANCELLED' where id = ? and state = 'UNPAID'"),
            "on-rollback-params": "{key}"})
    service = shop.service(payment="row" if way == CHECKER else "fence", checks=10)
    late = [f"late-{number}" for number in range(12)]
    for order in ("paid", "never", *late):
        service.tell(order=order)
        service.heard(says(order=order, told="unknown"), f"{order} waits for payment")
    wait_until(lambda: shop.one_of("paid")["checks"] == 3, "three checks said that nobody knows", every_s=0.02)
    assert shop.came("paid") == 0
    service.tell(pay="paid")
    service.heard(says(order="paid", paid=True), "it is paid")
    paid_at = time.monotonic()
    wait_until(lambda: shop.came("paid"), "it comes", 1.2 * minute + BUSY_S)
    figures(f"delivered {(time.monotonic() - paid_at) / minute:.2f} intervals after the payment")
    # The fourth, or, where that was asked before the payment was there, the fifth.
    assert shop.one_of("paid")["checks"] in (3, 4)
    # Around the tenth check of each, one after the other.
    wait_until(lambda: shop.one_of(late[0])["checks"] == 9, "the last check is next", every_s=0.02)
    last_at = datetime.fromisoformat(shop.one_of(late[0])["next_check_at"]).timestamp()
    time.sleep(max(0, last_at - time.time() - 0.03))
    for order in late:
        service.tell(pay=order)
    paid = {order: service.heard(lambda said: said.get("order") == order and "paid" in said, f"{order} hears")["paid"]
            for order in late}
    for order in late:
        shop.becomes(order, "committed" if paid[order] else "rolled_back")
    cancelled = shop.becomes("never", "rolled_back")
    shop.comes_once("paid", *(order for order in late if paid[order]))
    assert shop.rows() == {"paid": "PAID", "never": "CANCELLED",
                           **{order: "PAID" if paid[order] else "CANCELLED" for order in late}}
    # The last check is the tenth, and it decides: nine said that nobody knows.
    # An answer that takes longer than an interval counts as silence, before it is there.
    assert cancelled["checks"] in (9, 10) and seconds(cancelled["ended_at"], cancelled["opened_at"]) > 4.9, cancelled
    if way == CHECKER:
        assert asked([service], "never") == 10
    figures(f"at the last moment {sum(paid.values())} paid, {len(late) - sum(paid.values())} cancelled")
