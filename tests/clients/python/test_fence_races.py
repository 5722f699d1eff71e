"""Business transactions and checks that close race for the same row, with the whole broker: real services, databases and
nodes, which are killed. Where the check itself stops at its points, on the crate alone: host/sql/src/fence/races.

Settings: VOUCH_RACES (200; random races on each database), VOUCH_RACE_KILLS (3; kills meanwhile, a service, a database and a
node in turn; more than that, and the directed races are killed in all ways), VOUCH_SEED (told with the figures and when a
test fails). What is promised is shown by VOUCH_RACES=10000 VOUCH_RACE_KILLS=100.
"""

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import databases
import pytest
from broker import wait_until
from databases import KINDS, Database
from races import AT_ONCE, HELD, NEVER, Field, assert_counters_agree, node_with_components

RACES = int(os.environ.get("VOUCH_RACES", 200))
KILLS = int(os.environ.get("VOUCH_RACE_KILLS", 3))
SEED = int(os.environ.get("VOUCH_SEED", random.randrange(1 << 32)))
UNDER_WAY = 24

C, R = "committed", "rolled_back"


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
    if why := databases.obstacle(request.param):
        pytest.skip(f"LEFT OUT: {why}")
    return request.param


class Fields:
    """All of a test: one ends before the next begins."""

    def __init__(self, broker, folder, kind):
        self.broker, self.folder, self.kind = broker, folder, kind
        self.all, self.truths = [], []

    def begin(self, topic, **database) -> Field:
        made = Field(self.broker, Database(self.kind, self.folder, **database), topic)
        self.all.append(made)
        return made

    def settled(self):
        truth = self.all[-1].settled()
        self.truths.append(truth)
        return truth


@pytest.fixture
def fields(own_broker, tmp_path, kind):
    made = Fields(own_broker, tmp_path, kind)
    yield made
    with ThreadPoolExecutor() as pool:  # each waits for its last poll
        list(pool.map(Field.finish, made.all))


# ---- directed -------------------------------------------------------------------------------------------------------------

# Where a service stops, and what becomes of its order when a check comes that closes, and then it goes on.
STOPS = {"half sent": R, "order row": R, "fence row": C, "commit sent": C, "committed": C, "ended": C, "rolled back": R}
BEFORE, WAITING = "before the check", "while the check waits"
WAYS = [(None, None), ("service", BEFORE), ("service", WAITING), ("database", WAITING), ("node", WAITING),
        ("database", BEFORE), ("node", BEFORE)]
IN_SQLITE = [way for way in WAYS if way[0] != "database"]  # it has no process of its own
IN_CI = 5


def test_wherever_a_service_stops_and_whoever_is_killed_there_order_and_message_agree(fields, kind, figures):
    """One service for all stops of a way, each with an order of its own."""
    began, kills = time.monotonic(), 0
    ways = WAYS if kind != "sqlite" else IN_SQLITE
    for number, (killed, when) in enumerate(ways if KILLS > 3 else ways[:IN_CI]):
        turns = _together(kind)
        if killed and KILLS <= 3:
            turns = [turns[(SEED + number) % len(turns)]]
        for turn, stops in enumerate(turns):
            _way(fields, f"{killed}-{number}-{turn}", killed, when, stops)
            kills += killed is not None
    assert_counters_agree(fields.all, fields.truths)
    orders = sum(len(each.ledger.races) for each in fields.all)
    figures(f"{orders} orders, {kills} kills, 0 disagreements, {time.monotonic() - began:.0f} s; VOUCH_SEED={SEED}")


def _together(kind):
    """In SQLite nobody else writes or closes while somebody has written and not committed."""
    writing = ["order row", "fence row"]
    return [list(STOPS)] if kind != "sqlite" else [[stop for stop in STOPS if stop not in writing], *([stop] for stop in writing)]


def _holds(kind, stop):
    """Whether the check has to wait for who stops there."""
    return stop == "fence row" or (stop == "order row" and kind == "sqlite")


def _expected(kind, stop, killed):
    """What is certain."""
    if _holds(kind, stop):
        return R if killed in ("service", "database") else C
    return {C, R} if stop == "commit sent" and killed == "database" else STOPS[stop]


def _way(fields, topic, killed, when, stops):
    field = fields.begin(topic)
    kind, database = fields.kind, field.database
    field.bind(NEVER)
    service = field.service()
    # Who holds something comes last: in SQLite nobody else gets on then.
    races = {}
    for stop in sorted(stops, key=lambda stop: stop in ("order row", "fence row")):
        plan = {"stop": stop, "rolls_back": stop == "rolled back", "commit": "unread" if stop == "commit sent" else "",
                "rows": "order first" if stop == "order row" else "fence first"}
        races[stop] = field.order(service, f"{topic} {stop}", **plan)
        field.arrives(races[stop])

    def kill():
        if killed == "service":
            field.kill(service)
        elif killed == "database":
            database.kill()
            database.start()
        elif killed == "node":
            field.kill_node()
            fields.broker.start()

    if when == BEFORE:
        kill()
    field.bind(AT_ONCE)
    held = next((stop for stop in stops if _holds(kind, stop)), None)
    if held and (when != BEFORE or killed == "node"):
        wait_until(lambda: HELD in str(field.shown(races[held])["last_error"]), f"{held}: held")
        assert field.is_open(races[held])
    if when == WAITING:
        if held and kind != "sqlite":
            wait_until(database.somebody_waits, "the check waits for the row", every_s=0.01)
        kill()
    for stop in stops:
        if stop != held:
            wait_until(lambda: not field.is_open(races[stop]), f"{stop}: settled although nobody goes on")
    if killed != "service":
        for race in races.values():
            service.tell(go=race.order)
        field.all_told()
    truth = fields.settled()
    faults = field.ledger.faults(truth, field.node_was_killed)
    assert not faults, f"{topic}, {len(faults)} faults:\n" + "\n".join(faults)
    for stop, race in races.items():
        (half,) = truth.halves[race.order]
        expected = _expected(kind, stop, killed)
        assert half["state"] in expected, f"{killed} {when}: expected {expected}; {field.ledger.told(race.order, truth)}"
        if stop == "half sent" and killed != "service":
            assert race.told in ("settled otherwise",), race
    if killed != "service":
        service.finish()


def test_a_row_that_an_open_transaction_holds_is_told_as_held_with_the_limits_that_a_binding_has_by_itself(fields):
    field = fields.begin("held")
    field.bind(NEVER, {})
    holds = field.order(field.service(), "holds", stop="fence row")
    field.arrives(holds)
    field.bind(AT_ONCE, {})
    error = wait_until(lambda: field.shown(holds)["last_error"], "a check got no answer")
    holds.service.tell(go=holds.order)
    truth = fields.settled()
    assert field.ledger.faults(truth) == []
    assert HELD in error["error"], error


# ---- what the fence and its trigger are for -----------------------------------------------------------------------------------


def test_without_the_fence_an_order_is_there_whose_message_was_dropped(fields):
    """The same race; the check asks for the order, finds none, and guesses."""
    field = fields.begin("guessed")
    field.bind_without_fence(NEVER)
    late = field.order(field.service(), "late", stop="half sent" if fields.kind == "sqlite" else "order row",
                       fence="none", rows="order first", silent=True)
    field.arrives(late)
    field.bind_without_fence(AT_ONCE)
    wait_until(lambda: not field.is_open(late), "it was guessed")
    late.service.tell(go=late.order)
    field.all_told()
    found = field.ledger.disagreements(fields.settled())
    assert len(found) == 1 and found[0].startswith("late: 1 rows, deliveries []"), found


@pytest.mark.parametrize("trigger", [False, True], ids=["without_the_trigger", "with_the_trigger"])
def test_an_upsert_of_the_fence_contradicts_the_check_unless_a_trigger_forbids_it(fields, trigger):
    field = fields.begin("upserts", trigger=trigger)
    field.bind(NEVER)
    upserts = field.order(field.service(), "upserts", stop="half sent", fence="upsert", silent=True)
    field.arrives(upserts)
    field.bind(AT_ONCE)
    wait_until(lambda: not field.is_open(upserts), "it was closed")
    upserts.service.tell(go=upserts.order)
    field.all_told()
    truth = fields.settled()
    found = field.ledger.disagreements(truth)
    if trigger:
        assert (upserts.told, field.ledger.faults(truth)) == ("settled otherwise", []), upserts
    else:
        assert len(found) == 1 and found[0].startswith("upserts: 1 rows, deliveries []"), found


# ---- at random ----------------------------------------------------------------------------------------------------------------


def test_in_random_races_with_kills_order_and_message_always_agree(fields, kind, figures):
    began, rng = time.monotonic(), random.Random(f"{SEED} {kind}")
    wal = rng.random() < 0.5
    field = fields.begin("races", wal=wal)
    field.bind("300ms")
    waits = field.database.waits()
    services = [field.service() for _ in range(2)]
    kills, closes_at_s = _kills(rng, kind), 0.3
    for number in range(RACES):
        for who in kills.pop(number, []):
            _kill(field, services, who, rng)
        field.order(rng.choice(services), f"order-{number}", **_plan(rng, kind, closes_at_s))
        field.all_told(UNDER_WAY)
        # Whoever wins more often comes later, and so neither does always on a machine that is busy.
        told = Counter(race.told for race in list(field.ledger.races.values())[-100:])
        closes_at_s *= 1.01 if told["committed"] > told["settled otherwise"] else 0.99
    field.all_told()
    truth = fields.settled()
    told = f"VOUCH_SEED={SEED} VOUCH_RACES={RACES} VOUCH_RACE_KILLS={KILLS}" + (", write-ahead" if wal and kind == "sqlite" else "")
    faults = field.ledger.faults(truth, field.node_was_killed)
    assert not faults, f"{told}, {len(faults)} faults:\n" + "\n".join(faults[:20])
    assert_counters_agree(fields.all, fields.truths)
    waits = field.database.waits() - waits
    figures(f"{_sides(field, truth)}; {waits} waits for locks; {KILLS} kills, 0 disagreements, {time.monotonic() - began:.0f} s; {told}")


def _kills(rng, kind) -> dict:
    """Before which race who is killed."""
    victims = ["service", "database", "node"] if kind != "sqlite" else ["service", "node"]
    rng.shuffle(victims)
    at = {}
    for number in range(KILLS):
        at.setdefault(RACES * (number + 1) // (KILLS + 1), []).append(victims[number % len(victims)])
    return at


def _kill(field, services, who, rng):
    if who == "service":
        field.kill(services.pop(rng.randrange(len(services))))
        services.append(field.service())
        return
    kill, start = (field.kill_node, field.broker.start) if who == "node" else (field.database.kill, field.database.start)
    kill()
    time.sleep(rng.uniform(0, 0.3))  # for so long it is away
    start()


def _plan(rng, kind, closes_at_s) -> dict:
    """Most come to the row at about the time at which it is closed. In SQLite nobody may hold up all others for long."""
    often, usually = (0.2, 0.02) if kind != "sqlite" else (0.03, 0.002)
    between = rng.uniform(0, 0.5 if rng.random() < often else usually)
    return {
        "rows": rng.choice(["fence first", "fence first", "fence first", "order first"]),
        "level": rng.choice({"postgres": databases.PostgresSession, "mariadb": databases.MariaDbSession,
                             "sqlite": databases.SqliteSession}[kind].LEVELS),
        "rolls_back": rng.random() < 0.1, "silent": rng.random() < 0.4,
        "commit": "unread" if rng.random() < 0.1 else "",
        "delays": {"begin": max(0.0, rng.gauss(closes_at_s, 0.15)), "order row": between, "commit": between},
    }


def _sides(field, truth) -> str:
    """Who won, and how many met. Races in which hardly anybody meets prove nothing."""
    races = list(field.ledger.races.values())
    business = sum(each["state"] == C for halves in truth.halves.values() for each in halves)
    check = sum(outcome == R for outcome in truth.fences.values())
    found = {race.order for race in races if race.told == "settled otherwise"}
    held = {order for order, (half, *_) in truth.halves.items() if HELD in str(half["last_error"])}
    told = (f"{len(races)} races: {business} won by the business, {check} by the check, {len(found | held)} met "
            f"({len(found)} found the key, {len(held)} were held)")
    assert min(business, check) >= len(races) / 5 and len(found | held) >= len(races) / 20, f"empty: {told}; VOUCH_SEED={SEED}"
    return told
