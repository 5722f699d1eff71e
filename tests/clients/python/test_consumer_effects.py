"""What consumers do to databases, to state and to other topics, and when it counts: the scenarios S6 of the semantics, with
official clients and with components, on real databases, while services, databases and nodes are killed. On three nodes:
test_cluster_consumers.py.

S6.a, acknowledged early: test_what_is_acknowledged_before_it_is_done_is_lost_with_its_service_and_what_is_afterwards_is_not
S6.b, committed, not acknowledged: test_a_message_whose_rows_were_committed_and_whose_acknowledgement_was_not_changes_nothing_again;
      of a component: test_rows_that_were_committed_and_not_acknowledged_are_not_written_again, and at random
      test_a_message_has_its_rows_once_… and test_what_a_component_keeps_and_publishes_…
S6.c, the back-off: test_a_message_that_always_fails_comes_after_the_groups_pauses_and_is_a_dead_letter_once, of a push consumer
      and of a component; an outage is none of the message's failures: test_a_database_that_is_away_for_long_…
S6.d, renewal: test_a_lease_that_is_renewed_is_not_given_to_another_and_one_that_ran_out_is; of a component, whose lease is longer
      than its calls: test_a_call_that_outlasts_its_deadline_has_its_rows_undone_and_the_next_one_writes_them

Settings: VOUCH_DELIVERIES (300; messages of each test at random), VOUCH_DELIVERY_KILLS (4; kills meanwhile, of the node and of
the database), VOUCH_SEED (told with the figures and when a test fails). What is promised is shown by VOUCH_DELIVERIES=10000
VOUCH_DELIVERY_KILLS=60.
"""

import json
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import databases
import pytest
from broker import binary, plugin_dist, wait_until
from clients import (SHORT_LEASE, Listener, assert_nothing_arrives, message, producer, push_consumer, receive, receive_one,
                     simple_consumer)
from consuming import (SETTLES_WITHIN_S, PushedTo, Sender, StockShop, another_digest, bind_apply, counts, dead_letters, is_done,
                       pauses, row_faults, standing, table, trapping, waiting)
from databases import KINDS, Database
from races import node_with_components
from rocketmq.v5.exception import ClientException
from service_process import ServiceProcess
from wire import Code

DELIVERIES = int(os.environ.get("VOUCH_DELIVERIES", 300))
KILLS = int(os.environ.get("VOUCH_DELIVERY_KILLS", 4))
SEED = int(os.environ.get("VOUCH_SEED", random.randrange(1 << 32)))
TOLD = f"VOUCH_SEED={SEED} VOUCH_DELIVERIES={DELIVERIES} VOUCH_DELIVERY_KILLS={KILLS}"
# What a busy machine adds to a time.
BUSY_S = 2
# Whatever the pause between probes has grown to in a few seconds, it is not more than this; nor is a lease waited for.
GOES_ON_WITHIN_S = 30


@pytest.fixture(scope="session", autouse=True)
def servers():
    yield
    databases.remove_all()


@pytest.fixture
def own_broker(tmp_path):
    with node_with_components(tmp_path) as broker:
        yield broker


@pytest.fixture(params=KINDS)
def kind(request):
    return there(request.param)


def there(kind: str) -> str:
    if why := databases.obstacle(kind):
        pytest.skip(f"LEFT OUT: {why}")
    return kind


@pytest.fixture
def postgres():
    return there("postgres")


# ---- official clients ------------------------------------------------------------------------------------------------


@pytest.fixture
def service(own_broker, name):
    """Starts one; all end with the test."""
    made = []

    def start(how: str, place: dict, **more) -> ServiceProcess:
        made.append(ServiceProcess("consumer_service.py", broker=own_broker.grpc, topic=name, how=how, place=place,
                                   lease_s=SHORT_LEASE, **more))
        return made[-1].ready()

    yield start
    for each in made:
        each.finish()


def at(point):
    return lambda said: said.get("at") == point


@pytest.mark.parametrize("how, kind", [("push", "postgres"), *(("simple", kind) for kind in KINDS)])
def test_what_is_acknowledged_before_it_is_done_is_lost_with_its_service_and_what_is_afterwards_is_not(
        own_broker, name, tmp_path, service, kind, how):
    """S6.a: a listener that hands the work on and returns success has acknowledged; one that keeps the handle has not."""
    database = Database(there(kind), tmp_path)
    own_broker.create_topic(name)
    first = service(how, database.place(), stop="received")
    with producer(own_broker, name) as client:
        sent = client.send(message(name, b"O1")).message_id
    first.heard(at("received"), "the work begins")
    if how == "push":
        wait_until(lambda: lag(own_broker, name) == 0, "it is acknowledged")
    first.kill()
    service(how, database.place())
    if how == "push":
        with simple_consumer(own_broker, name, name) as late:
            assert_nothing_arrives(late, SHORT_LEASE + 1)
        assert not database.ask("select id from orders")
    else:
        wait_until(lambda: lag(own_broker, name) == 0, "it is done")
        assert [tuple(row) for row in database.ask("select id from orders")] == [(sent,)]


def lag(broker, group):
    """Messages that are not done."""
    return sum(each["lag"] for each in broker.call("GET", f"/v1/groups/{group}/progress")["items"])


def test_a_message_whose_rows_were_committed_and_whose_acknowledgement_was_not_changes_nothing_again(
        own_broker, name, tmp_path, service, kind):
    """S6.b"""
    database = Database(kind, tmp_path)
    own_broker.create_topic(name)
    first = service("simple", database.place(), stop="committed")
    with producer(own_broker, name) as client:
        sent = client.send(message(name, b"O1")).message_id
    first.heard(at("committed"), "the row is committed")
    first.kill()
    second = service("simple", database.place())
    second.heard(at("acknowledged"), "it is acknowledged")
    told = [said for said in second.said if said.get("message") == sent]
    assert [said["attempt"] for said in told if said.get("at") == "received"] == [2]
    assert [said["wrote"] for said in told if "wrote" in said] == [False]
    assert [tuple(row) for row in database.ask("select id from orders")] == [(sent,)]
    wait_until(lambda: lag(own_broker, name) == 0, "nothing is left")


def test_a_lease_that_is_renewed_is_not_given_to_another_and_one_that_ran_out_is(own_broker, name, tmp_path, postgres):
    """S6.d"""
    database = Database(postgres, tmp_path)
    own_broker.create_topic(name)

    def works(session, held):
        session.run("insert into orders (id, state, message_id) values (?, 'DONE', ?)", held.body.decode(), held.message_id)

    session = database.session()
    with producer(own_broker, name) as client, simple_consumer(own_broker, name, name, poll=1) as owner, \
            simple_consumer(own_broker, name, name, poll=1) as other:
        client.send(message(name, b"renewed"))
        held = receive_one(owner, SHORT_LEASE)
        over = threading.Event()

        def renews():
            while not over.wait(SHORT_LEASE / 4):
                owner.change_invisible_duration(held, SHORT_LEASE)

        renewing = threading.Thread(target=renews)
        renewing.start()
        assert_nothing_arrives(other, 2 * SHORT_LEASE + 1)
        works(session, held)
        over.set()
        renewing.join()
        owner.ack(held)

        client.send(message(name, b"not renewed"))
        held = receive_one(owner, SHORT_LEASE)
        again = receive_one(other)
        assert (again.message_id, again.delivery_attempt) == (held.message_id, 2)
        works(session, again)
        with pytest.raises(databases.Taken):
            works(session, held)
        with pytest.raises(ClientException) as refused:
            owner.ack(held)
        assert refused.value.code == Code.INVALID_RECEIPT_HANDLE
        other.ack(again)
    session.close()
    assert sorted(id for id, in database.ask("select id from orders")) == ["not renewed", "renewed"]
    assert lag(own_broker, name) == 0


# ---- the back-off ----------------------------------------------------------------------------------------------------

# Of §8.2, in seconds.
TABLE = [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200]


def test_a_message_that_always_fails_comes_after_the_groups_pauses_and_is_a_dead_letter_once(own_broker, name, figures):
    """S6.c: of a push consumer, which knows whole seconds, and of a component, with the table two thousand times as fast."""
    official, bound = [1, 2, 3], [seconds / 2000 for seconds in TABLE]
    own_broker.create_topic(name)
    own_broker.create_group(name, max_attempts=len(official) + 1, backoff=[f"{seconds}s" for seconds in official])
    own_broker.create_group("bound", max_attempts=len(bound) + 1, backoff=[f"{seconds // 2}ms" for seconds in TABLE])

    class Noting(Listener):
        times = []

        def consume(self, message):
            self.times.append(time.monotonic())
            return super().consume(message)

    listener = Noting(fails=lambda _: True)
    with producer(own_broker, name) as client, push_consumer(own_broker, name, name, listener), \
            PushedTo(lambda _: 500) as service:
        service.bind(own_broker, "bound", name)
        sent = client.send(message(name, b"poison", keys=["poison"])).message_id
        for group in (name, "bound"):
            wait_until(lambda: dead_letters(own_broker, group), f"it is a dead letter of {group}", 60)
        assert [each.delivery_attempt for each in listener.deliveries] == list(range(1, len(official) + 2))
        came = service.times("/bound/poison")
        assert len(came) == len(bound) + 1
        for pauses_of, times in ((official, listener.times), (bound, came)):
            came = [later - earlier for earlier, later in zip(times, times[1:])]
            figures(f"after {', '.join(f'{pause:.2f}' for pause in came)} s")
            for wanted, pause in zip(pauses_of, came):
                assert 0.9 * wanted <= pause <= 1.1 * wanted + BUSY_S, (pauses_of, came)
        for group in (name, "bound"):
            assert [each.message_id for each in dead_letters(own_broker, group)] == [sent], group
        told = counts(own_broker, "bound")
    assert (told["retry"], told["dead_letter"], told["ack"]) == (len(bound) + 1, 1, 0), told
    assert own_broker.stop() == 0
    reasons = dead_letter_reasons(own_broker)
    own_broker.start()
    assert len(reasons) == 2 and any("500" in reason for reason in reasons), reasons


def dead_letter_reasons(broker) -> list[str]:
    """As the log has them; the node is down."""
    dumped = subprocess.run([str(binary()), "log", "dump", "--json", "--data-dir", str(broker.data_dir)], capture_output=True,
                            text=True, check=True).stdout
    records = [each["record"] for line in dumped.splitlines() for each in json.loads(line).get("records", [])]
    return [record.split("reason: ", 1)[1] for record in records if record.startswith("DeadLetter")]


@pytest.mark.parametrize("lost", ["node", "answer"])
def test_rows_that_were_committed_and_not_acknowledged_are_not_written_again(own_broker, name, tmp_path, postgres, lost):
    """S6.b, of a component: its COMMIT has happened, and nobody was told so when the node was killed, or the session ended."""
    database = table(postgres, tmp_path)
    own_broker.create_topic(name)
    own_broker.create_group("rows", backoff=["100ms"])
    bind_apply(own_broker, database, "rows", name)
    waits = "from pg_stat_activity where usename = 'vouch' and wait_event = 'SyncRep'"
    with database.server.connected() as administrator, commits_wait(administrator):
        with producer(own_broker, name) as client:
            client.send(message(name, b'{"amount": 7}', keys=["O1"]))
        wait_until(lambda: administrator.execute(f"select pid {waits}").fetchall(), "it has committed, and waits for a replica")
        if lost == "node":
            own_broker.kill()
        administrator.execute(f"select pg_terminate_backend(pid) {waits}")
    if lost == "node":
        own_broker.start()
    is_done(own_broker, "rows")
    assert row_faults(database, {"O1": 7}) == [] and dead_letters(own_broker, "rows") == []
    told = counts(own_broker, "rows")
    assert (told["ack"], told["failed"] + told["retry"]) == (1, 0 if lost == "node" else 1), told


@contextmanager
def commits_wait(administrator):
    """What writes commits, and then waits for a replica that there is not, until its session is ended."""
    administrator.execute("alter system set synchronous_standby_names = 'nobody'")
    administrator.execute("select pg_reload_conf()")
    try:
        yield
    finally:
        administrator.execute("alter system reset synchronous_standby_names")
        administrator.execute("select pg_reload_conf()")


def test_a_call_that_outlasts_its_deadline_has_its_rows_undone_and_the_next_one_writes_them(own_broker, name, tmp_path, postgres):
    """S6.d, of a component: nobody has its lease while it is called, and what it did too late is not done."""
    database = table(postgres, tmp_path)
    own_broker.create_topic(name)
    own_broker.create_group("late", backoff=["100ms"])
    bind_apply(own_broker, database, "late", name, limits={"deadline": "1s"})
    with Held(database):
        with producer(own_broker, name) as client:
            client.send(message(name, b'{"amount": 7}', keys=["held"]))
        wait_until(lambda: counts(own_broker, "late")["failed"] >= 2, "two calls were too late", 20)
    is_done(own_broker, "late")
    # What was abandoned may go on in the database now, and finds nobody to commit it.
    at_work = "select pid from pg_stat_activity where usename = 'vouch' and state = 'active'"
    wait_until(lambda: not database.ask(at_work), "nobody works in the database")
    assert row_faults(database, {"held": 7}) == []
    told = counts(own_broker, "late")
    assert (told["ack"], told["late"], told["dead_letter"]) == (1, 0, 0), told


class Held:
    """The table of rows is somebody else's meanwhile."""

    def __init__(self, database):
        self.session = database.session()

    def __enter__(self):
        self.session.begin()
        self.session.run("lock table applied in exclusive mode")
        return self

    def __exit__(self, *_):
        self.session.roll_back()
        self.session.close()


# ---- exactly once, at random -----------------------------------------------------------------------------------------


def chunks(things: list, count: int) -> list[list]:
    return [things[number * len(things) // count:(number + 1) * len(things) // count] for number in range(count)]


def works(broker, binding, sending: list):
    """Waits until it has something to do, so that who is killed then is killed at work; or until all of these are sent, and it may
    have been quicker than this look."""
    wait_until(lambda: waiting(broker, binding) > 0 or all(each.done() for each in sending), f"{binding} has something to do",
               every_s=0.001)


VICTIMS = {"postgres": ["node", "database killed", "node", "database stopped"],
           "mariadb": ["database killed", "database stopped"], "sqlite": ["node"]}


def test_a_message_has_its_rows_once_whoever_is_killed_meanwhile(own_broker, name, tmp_path, kind, figures):
    """S6.b, with `sql-apply`."""
    began, rng = time.monotonic(), random.Random(f"{SEED} {kind}")
    database = table(kind, tmp_path)
    own_broker.create_topic(name)
    own_broker.create_group("rows", backoff=["100ms"])
    bind_apply(own_broker, database, "rows", name)
    # A file takes one writer at a time, and each waits for the disk.
    amounts = {f"m{number}": rng.randint(1, 100) for number in range(DELIVERIES // (3 if kind == "sqlite" else 1))}
    sender, senders, victims = Sender(lambda: own_broker), ThreadPoolExecutor(4), VICTIMS[kind]
    node_was_killed = "node" in victims
    dead = []
    for number, chunk in enumerate(chunks(list(amounts), KILLS + 1)):
        sending = [senders.submit(sender.send, name, key, {"amount": amounts[key]}) for key in chunk]
        if number < KILLS:
            works(own_broker, "rows", sending)
            time.sleep(rng.uniform(0, 0.1))
            dead.append((victims[number % len(victims)], waiting(own_broker, "rows")))
            {"node": own_broker.kill, "database killed": database.kill, "database stopped": database.stop}[dead[-1][0]]()
            time.sleep(rng.uniform(0, 0.3))  # for so long it is away
            (own_broker if dead[-1][0] == "node" else database).start()
        for each in sending:
            each.result(SETTLES_WITHIN_S)
    senders.shutdown()
    sender.close()
    is_done(own_broker, "rows")
    faults, told = row_faults(database, amounts), counts(own_broker, "rows")
    faults += [f"{len(letters)} dead letters" for letters in [dead_letters(own_broker, "rows")] if letters]
    if told["reject"] or told["dead_letter"] or not node_was_killed and (told["ack"], told["late"]) != (len(amounts), 0):
        faults.append(f"counted is {dict(told)}")
    assert not faults, f"{TOLD}, killed {dead}, {len(faults)} faults:\n" + "\n".join(faults[:20])
    assert any(left for _, left in dead) or not KILLS, f"nobody was killed at work: {dead}; {TOLD}"
    figures(f"{len(amounts)} messages, each once; killed, and left then: {dead}; {dict(told)} since the last start of the node; "
            f"{time.monotonic() - began:.0f} s; {TOLD}")


def test_what_a_component_keeps_and_publishes_is_there_once_whenever_its_node_is_killed(own_broker, figures):
    """With `stock`: goods that came are on the shelf or reserved, and each order that was paid for has one message."""
    began, rng = time.monotonic(), random.Random(f"{SEED} stock")
    shop = StockShop(lambda: own_broker, rng, DELIVERIES)
    dead = []
    for number, chunk in enumerate(chunks(shop.plan, KILLS + 1)):
        sending = shop.begin_sending(chunk)
        if number < KILLS:
            works(own_broker, "stock", sending)
            time.sleep(rng.uniform(0, 0.05))
            dead.append((waiting(own_broker, "stock"), counts(own_broker, "stock")["ack"]))
            own_broker.kill()
            own_broker.start()
        shop.sent(sending)
    shop.settles()
    faults = shop.faults()
    shop.finish()
    assert not faults, f"{TOLD}, killed {dead}, {len(faults)} faults:\n" + "\n".join(faults[:20])
    assert any(left for left, _ in dead) or not KILLS, f"nobody was killed at work: {dead}; {TOLD}"
    figures(f"{shop.told}; killed with so many left, and so many done since the start: {dead}; "
            f"{dict(counts(own_broker, 'stock'))} since the last start; {time.monotonic() - began:.0f} s; {TOLD}")


def test_without_kills_the_counters_say_what_the_ledger_says(own_broker):
    shop = StockShop(lambda: own_broker, random.Random(f"{SEED} counters"), DELIVERIES)
    shop.sent(shop.begin_sending(shop.plan))
    shop.settles()
    assert shop.faults() == []
    told = counts(own_broker, "stock")
    paid = sum(order.is_paid for order in shop.orders.values())
    wanted = {"ack": DELIVERIES // 3 + 2 * paid, "retry": 0, "reject": 0, "failed": 0, "dead_letter": 0, "late": 0}
    assert {outcome: told[outcome] for outcome in wanted} == wanted, told
    shop.finish()


# ---- whose fault it is -----------------------------------------------------------------------------------------------


POISONED = ("create table applied (id varchar(255) not null check (id <> 'poison'), delivery varchar(255) not null, "
            "try int not null); create sequence tries; "
            "create table totals (n int not null, amount int not null); insert into totals values (0, 0)")


def tries(database):
    """How often rows were tried: a sequence takes nothing back."""
    (count, is_called), = database.ask("select last_value, is_called from tries")
    return count if is_called else 0


def test_a_database_that_is_away_for_long_costs_no_message_an_attempt_and_a_poison_message_goes_after_its_own(
        own_broker, name, tmp_path, postgres, figures):
    database = Database(postgres, tmp_path)
    database.add(POISONED, {"applied": "insert", "totals": "select, update", "vouch_once": "insert", "sequence tries": "usage"})
    own_broker.create_topic(name)
    own_broker.create_group("rows", max_attempts=3, backoff=["0s"])
    statement = "insert into applied (id, delivery, try) values ($1, $2, nextval('tries'))"
    config = {"database": "shop", "statement": statement, "params": "{key}, {delivery}",
              "statement-2": "update totals set n = n + 1, amount = amount + $1", "params-2": "{json./amount}"}
    bind_apply(own_broker, database, "rows", name, config=config)
    amounts = {f"m{number}": number for number in range(20)}
    sender = Sender(lambda: own_broker)
    database.stop()
    sender.send(name, "poison", {"amount": 1})
    for key, amount in amounts.items():
        sender.send(name, key, {"amount": amount})
    wait_until(lambda: pauses(own_broker, "rows"), "it pauses", 30)
    assert standing(own_broker, "rows")["last_error"]
    is_probed(own_broker, 2)
    assert pauses(own_broker, "rows") and dead_letters(own_broker, "rows") == []
    assert waiting(own_broker, "rows") == len(amounts) + 1
    database.start()
    back = time.monotonic()
    wait_until(lambda: not pauses(own_broker, "rows"), "it goes on by itself", GOES_ON_WITHIN_S)
    went_on = time.monotonic() - back
    # Among good ones that come all the time.
    number = 1000
    while not counts(own_broker, "rows")["dead_letter"]:
        key = f"m{number}"
        amounts[key] = number
        sender.send(name, key, {"amount": number})
        number += 1
        assert time.monotonic() < back + 120, standing(own_broker, "rows")
    is_done(own_broker, "rows")
    assert row_faults(database, amounts) == []
    letters = dead_letters(own_broker, "rows")
    assert [each.keys for each in letters] == [{"poison"}], letters
    # All three attempts were made with a database that was there.
    of_poison = tries(database) - len(amounts)
    assert 3 <= of_poison <= 12, of_poison
    told = counts(own_broker, "rows")
    assert (told["ack"], told["dead_letter"], told["reject"]) == (len(amounts), 1, 0), told
    figures(f"went on {went_on:.1f} s after the database was back; the poison message was tried {of_poison} times; {dict(told)}")
    sender.close()


def is_probed(broker, times: int):
    """Waits for so many probes, after 1, 2, 4 … s. What was under way when the pause began is none."""
    def failures():
        told = counts(broker, "rows")
        return told["retry"] + told["failed"]

    wait_until(lambda: standing(broker, "rows")["in_flight"] == 0, "nothing is under way", every_s=0.01)
    before = failures()
    wait_until(lambda: failures() >= before + times, f"it is probed {times} times", 2 ** times - 1 + 5 * BUSY_S)


@pytest.mark.parametrize("how", ["traps", "fails"])
def test_a_component_that_never_succeeds_loses_nothing_and_a_good_one_does_what_waited(own_broker, name, tmp_path, postgres, how):
    database = table(postgres, tmp_path)
    own_broker.create_topic(name)
    own_broker.create_group("rows", max_attempts=3, backoff=["0s"])
    wasm = (plugin_dist() / "sql-apply.wasm").read_bytes()
    own_broker.push_component("sql-apply", "bad", trapping(wasm) if how == "traps" else wasm)
    bad = {"statement": "insert into applied (nobody_knows) values ($1)", "params": "{key}", "database": "shop"}
    wrong = {"config": bad} if how == "fails" else {}
    bind_apply(own_broker, database, "rows", name, plugin="sql-apply:bad", unchecked=True, **wrong)
    before = own_broker.call("GET", "/v1/bindings/rows")["digest"]
    amounts = {f"m{number}": number for number in range(20)}
    sender = Sender(lambda: own_broker)
    for key, amount in amounts.items():
        sender.send(name, key, {"amount": amount})
    wait_until(lambda: pauses(own_broker, "rows"), "it pauses", 30)
    assert {"traps": "unreachable", "fails": "nobody_knows"}[how] in standing(own_broker, "rows")["last_error"]
    is_probed(own_broker, 1)
    own_broker.push_component("sql-apply", "good", another_digest(wasm, b"good"))
    bind_apply(own_broker, database, "rows", name, plugin="sql-apply:good")
    assert own_broker.call("GET", "/v1/bindings/rows")["digest"] != before
    began = time.monotonic()
    is_done(own_broker, "rows")
    assert time.monotonic() - began < GOES_ON_WITHIN_S, "what waited was not delivered at once"
    assert row_faults(database, amounts) == [] and dead_letters(own_broker, "rows") == []
    assert counts(own_broker, "rows")["ack"] == len(amounts)
    sender.close()


def test_a_node_that_is_killed_while_a_binding_pauses_goes_on_within_seconds_when_the_database_is_back(
        own_broker, name, tmp_path, postgres):
    database = table(postgres, tmp_path)
    own_broker.create_topic(name)
    own_broker.create_group("rows", max_attempts=3, backoff=["0s"])
    bind_apply(own_broker, database, "rows", name)
    database.stop()
    amounts = {f"m{number}": number for number in range(20)}
    sender = Sender(lambda: own_broker)
    for key, amount in amounts.items():
        sender.send(name, key, {"amount": amount})
    wait_until(lambda: pauses(own_broker, "rows"), "it pauses", 30)
    own_broker.kill()
    database.start()
    own_broker.start()
    began = time.monotonic()
    is_done(own_broker, "rows")
    took = time.monotonic() - began
    assert row_faults(database, amounts) == [] and dead_letters(own_broker, "rows") == []
    assert took < GOES_ON_WITHIN_S, f"it took {took:.1f} s"
    sender.close()


# ---- beside client members -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["push", "simple"])
def test_a_client_in_the_group_of_a_binding_shares_its_messages(own_broker, name, tmp_path, postgres, service, how):
    """Each is done once, by the one or by the other."""
    database = table(postgres, tmp_path)
    own_broker.create_topic(name)
    bind_apply(own_broker, database, "rows", name, group=name)
    member = service(how, database.place())
    sender, sent = Sender(lambda: own_broker), 0

    def by_each():
        return len(database.ask("select id from applied")), len(database.ask("select id from orders"))

    while sent < 100 or min(by_each()) == 0:
        for _ in range(20):
            sender.send(name, f"m{sent}", {"amount": sent})
            sent += 1
        assert sent < 5000, f"one does it all: {by_each()}"
    wait_until(lambda: lag(own_broker, name) == 0, "all is done", 30)
    wait_until(lambda: sum(by_each()) == sent, f"{sent} are done: {by_each()}", 20)
    by_client = {json.loads(said["body"])["amount"] for said in member.said if said.get("at") == "received"}
    by_binding = {int(id[1:]) for id, in database.ask("select id from applied")}
    assert by_client | by_binding == set(range(sent)) and not by_client & by_binding
    assert row_faults(database, {f"m{number}": number for number in by_binding}) == []
    assert dead_letters(own_broker, name) == []
    sender.close()


def test_a_client_in_the_group_of_a_binding_with_another_filter_gets_its_own_and_takes_nothing_away(
        own_broker, name, tmp_path, postgres):
    database = table(postgres, tmp_path)
    own_broker.create_topic(name)
    bind_apply(own_broker, database, "rows", name, group=name, filter="paid")
    tags = ("paid", "open", "neither")
    with producer(own_broker, name) as client, simple_consumer(own_broker, name, name, "open", poll=1) as member:
        assert member.receive(32, SHORT_LEASE) == []
        for number in range(60):
            client.send(message(name, json.dumps({"amount": number}).encode(), tags[number % 3], [f"m{number}"]))
        received = receive(member, 20)
        for each in received:
            member.ack(each)
        assert_nothing_arrives(member, 2)
    assert {each.tag for each in received} == {"open"} and len({each.message_id for each in received}) == 20
    wait_until(lambda: len(database.ask("select id from applied")) == 20, "the binding has done its own")
    assert row_faults(database, {f"m{number}": number for number in range(0, 60, 3)}) == []
