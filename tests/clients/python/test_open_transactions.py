"""Very many open transactions, and one of them that the disk damaged. Of the scenarios of the semantics:

S3.e, many open transactions, and nobody knows: test_many_open_transactions_are_asked_about_as_their_schedule_says_…
S3.f, a damaged half: test_a_damaged_half_is_told_and_left_alone_… and, where no snapshot covers it, test_a_start_refuses_…

Settings: VOUCH_OPEN_AT_ONCE (5000; how many are open), VOUCH_CHECKS_PER_S (1000; how many of them fall due in a second, which
gives the interval between two checks of one), VOUCH_PASSES (2; how often each is asked about before all of them are looked
at; at 0 all those whose time it is), VOUCH_SEND_WINDOWS (2; for how many windows sends are measured, each with the open
transactions and without), VOUCH_SEND_WINDOW_S (1; for how long each). S3.e is measured so, which takes ten minutes:

    VOUCH_OPEN_AT_ONCE=1000000 VOUCH_PASSES=0 VOUCH_SEND_WINDOWS=10 VOUCH_SEND_WINDOW_S=10

An open transaction may take 1 KiB of the process's own memory (RssAnon), beside 64 MiB for all that does not grow with them.
What it takes is told as a figure, and so is by how much the p99 of sends rises: what else a machine does decides that, so
nothing is held against it here.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import time
from datetime import datetime

import pytest
from broker import Broker, HttpProblem, binary, quote, wait_until
from clients import (COMMIT, Checker, assert_nothing_arrives, message, producer, receive_and_ack, send_half,
                     simple_consumer)
from load import spread
from raw import raw_client
from senders import received_by
from undecided import Undecided
from wire import Code

OPEN_AT_ONCE = int(os.environ.get("VOUCH_OPEN_AT_ONCE", 5000))
CHECKS_PER_S = int(os.environ.get("VOUCH_CHECKS_PER_S", 1000))
PASSES = int(os.environ.get("VOUCH_PASSES", 2))
SEND_WINDOWS = int(os.environ.get("VOUCH_SEND_WINDOWS", 2))
SEND_WINDOW_S = int(os.environ.get("VOUCH_SEND_WINDOW_S", 1))
SENDS_PER_S = 1000
# The first check of a half comes this late at least, later ones as long after the one before as the topic says.
FIRST_S = 2
INTERVAL_S = max(2, OPEN_AT_ONCE // CHECKS_PER_S)
MEMORY_OF_EACH = 1 << 10
MEMORY_OF_ALL = 64 << 20
ON_TIME_WITHIN_S = 60
CATCHES_UP_WITHIN_S = 5 + 3 * SEND_WINDOW_S
BEHIND_S = 0.5
PAGE = 1000


# ---- S3.e: very many ----------------------------------------------------------------------------------------------------


def first_s(number: int) -> int:
    """As many fall due in each second of an interval; where all are sent within a moment, at once then."""
    return FIRST_S + number % INTERVAL_S


def test_many_open_transactions_are_asked_about_as_their_schedule_says_and_none_is_forgotten(tmp_path, name, figures):
    """S3.e: nobody knows, so they stay open. What was asked when, their clients noted, and the log; all of that has to be the
    same, and what the schedule allows."""
    with running(tmp_path / "with") as node, running(tmp_path / "without") as other:
        node.create_transaction_topic(name, immunity=f"{FIRST_S}s", interval=f"{INTERVAL_S}s", max_checks=1000)
        bench(node, 1)
        before = own_memory(node)
        with Undecided(node, name, INTERVAL_S, first_s) as clients:
            began = time.monotonic()
            clients.open(OPEN_AT_ONCE)
            took = time.monotonic() - began
            tells(node, "vouch_transactions_open", OPEN_AT_ONCE)
            opened = own_memory(node)
            windows = [send_window(node, other, clients, turn) for turn in range(SEND_WINDOWS)]
            wait_until(lambda: min(clients.asked) >= PASSES, f"each was asked about {PASSES} times", 3 * INTERVAL_S + 30)
            until = time.monotonic()
            wait_until(lambda: not forgotten(clients, until), "all were asked about whose time it was", ON_TIME_WITHIN_S, 1)
            asked_for, grown = time.monotonic() - began, own_memory(node)
        # Nobody is left to be asked: what was counted now stays so.
        shown = {each["id"]: each["checks"] for each in transactions(node, name)}
        tells(node, 'vouch_checks_total{binding="",verdict="unknown"}', sum(shown.values()))
        tells(node, "vouch_transactions_open", OPEN_AT_ONCE)
        tells(node, "vouch_transactions_parked", 0)
    figures(f"{OPEN_AT_ONCE} halves were sent in {took:.1f} s; {clients.questions} questions in {asked_for:.0f} s; they came "
            f"after they were due: {spread(clients.behind)}")
    figures(f"memory: {before >> 20} MiB before, {opened >> 20} MiB with all open, {grown >> 20} MiB after the questions; "
            f"{(grown - before) / OPEN_AT_ONCE:.0f} bytes each")
    tell_p99(figures, windows)
    assert not clients.early, f"{len(clients.early)} too early: {clients.early[:10]}"
    assert not clients.strange, f"{len(clients.strange)}: {clients.strange[:10]}"
    assert grown - before <= MEMORY_OF_ALL + OPEN_AT_ONCE * MEMORY_OF_EACH
    answers = answers_in_log(node)
    assert_counted_as_asked(clients, shown, answers)
    assert_as_scheduled(clients, answers)


def forgotten(clients, until: float):
    """Those whose next question was due before this time and has not come since."""
    return [number for number in range(OPEN_AT_ONCE) if clients.due(number) < until]


def assert_counted_as_asked(clients, shown, answers):
    """Clients, node and log tell of each transaction the same count; only a last question may have been asked and not
    counted, as its client went."""
    assert shown.keys() == clients.ids.keys(), "the node has the very transactions that were sent"
    faults = [f"{id} was asked about {clients.asked[number]} times, {shown[id]} counted, {len(answers[id])} in the log"
              for id, number in clients.ids.items()
              if len(answers[id]) != shown[id] or clients.asked[number] - shown[id] not in (0, 1)]
    assert not faults, f"{len(faults)}: {faults[:10]}"


def assert_as_scheduled(clients, answers):
    """In the node's own times, to the millisecond."""
    faults = []
    for id, (stored_at, asked_at) in answers.stored_and_asked():
        first = first_s(clients.ids[id])
        pauses = [later - earlier for earlier, later in zip([stored_at, *asked_at], asked_at)]
        if any(pause < wanted * 1000 for pause, wanted in zip(pauses, [first] + [INTERVAL_S] * len(pauses))):
            faults.append(f"{id}, first after {first} s, then each {INTERVAL_S} s: pauses of {pauses} ms")
    assert not faults, f"{len(faults)}: {faults[:10]}"


class Answers(dict):
    """Of each transaction, the answers *unknown* in the log: when each was asked for, in the node's time."""

    def __init__(self):
        super().__init__()
        self.stored = {}

    def __missing__(self, _):
        return []

    def stored_and_asked(self):
        return ((id, (self.stored[id], asked_at)) for id, asked_at in self.items())


ANSWER = re.compile(r"CheckAnswered \{ transaction: HalfPosition\((\d+)\), check_number: (\d+), asked_at: Millis\((\d+)\)")


def answers_in_log(node) -> Answers:
    """Read from the folder of a node that is stopped, with the command for it."""
    answers = Answers()
    dump = subprocess.Popen([str(binary()), "log", "dump", "--json", "--data-dir", str(node.data_dir)], stdout=subprocess.PIPE,
                            text=True)
    for line in dump.stdout:
        if "Transaction " not in line and "CheckAnswered" not in line:
            continue
        entry = json.loads(line)
        for each in entry["records"]:
            if each["record"].startswith("Transaction "):
                answers.stored[transaction_at(each["position"])] = millis(entry["time"])
            elif found := ANSWER.search(each["record"]):
                # An answer to a check that was answered already, as where silence was counted meanwhile, counts nothing.
                asked_at = answers.setdefault(transaction_at(int(found[1])), [])
                assert int(found[2]) <= len(asked_at) + 1, f"a check was left out: {each['record']}"
                if int(found[2]) == len(asked_at) + 1:
                    asked_at.append(int(found[3]))
    assert dump.wait() == 0
    return answers


def transaction_at(position: int) -> str:
    return f"T{position:020X}"


def millis(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def running(folder):
    """A node of its own, which is stopped at the end."""
    folder.mkdir()
    return Running(folder)


class Running(Broker):
    SMALL = {}  # it is measured

    def __enter__(self):
        return self.start()

    def __exit__(self, failed, *_):
        if failed:
            return self.kill()
        end(self)


def transactions(node, topic):
    """All that are open, page by page."""
    path, next = f"/v1/transactions?topic={quote(topic)}&limit={PAGE}", None
    while True:
        page = node.call("GET", path + (f"&after={quote(next)}" if next else ""))
        yield from page["items"]
        if not (next := page.get("next")):
            return


def tells(node, metric: str, value: int):
    """Waits until the node does: what it tells may be a second old."""
    def told():
        lines = node.call("GET", "/metrics").splitlines()
        last[:] = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{metric} ")]
        return last == [value]

    last = []
    try:
        wait_until(told, f"{metric} is {value}", 10, 0.2)
    except AssertionError as late:
        raise AssertionError(f"{late}: {last}") from None


def own_memory(node) -> int:
    """Bytes of the process that no file is behind."""
    with open(f"/proc/{node.process.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


# -- by how much sends wait longer -------------------------------------------------------------------------------------------


def bench(node, seconds: int) -> dict:
    """Sends at a fixed pace for so long, as `vouch bench` measures them."""
    done = subprocess.run(
        [str(binary()), "bench", "send", "--grpc", node.grpc, "--http", node.http, "--without-peers", "--json", "--rounds", "1",
         "--rate", str(SENDS_PER_S), "--seconds", str(seconds), "--warmup", "300ms", "--producers", "16", "--connections", "2"],
        capture_output=True, text=True, timeout=seconds + 60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rounds"][0]["vouch"]


def send_window(node, other, clients, turn):
    """Sends to the node with the transactions; and to one with nothing open, while the first is paused and takes nothing of the
    machine. They take turns in who is first. Returns both p99, in microseconds, and how late the questions came when the window
    of the first began."""
    def beside():
        behind = catch_up(clients)
        return bench(node, SEND_WINDOW_S), behind

    def without():
        node.process.send_signal(signal.SIGSTOP)
        try:
            return bench(other, SEND_WINDOW_S)
        finally:
            node.process.send_signal(signal.SIGCONT)

    if turn % 2:
        told = without(), *beside()
    else:
        sent, behind = beside()
        told = without(), sent, behind
    print(f"{time.strftime('%H:%M:%S')} without {told[0]}, beside {told[1]}, questions {told[2]:.2f} s late", flush=True)
    return told[0]["p99_us"], told[1]["p99_us"], told[2]


def catch_up(clients) -> float:
    """Waits until what fell due while the node was paused was asked. A machine that is too slow is measured as it is."""
    before, end = clients.questions, time.monotonic() + CATCHES_UP_WITHIN_S
    while clients.questions < before + CHECKS_PER_S // 5 or clients.latest_behind() > BEHIND_S:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return clients.latest_behind()


def tell_p99(figures, windows):
    if not windows:
        return
    ratios = sorted(beside / without for without, beside, _ in windows)
    without, beside, behind = (statistics.median(each) for each in zip(*windows))
    figures(f"p99 of sends at {SENDS_PER_S}/s, medians of {len(windows)} windows of {SEND_WINDOW_S} s: {beside / 1000:.1f} ms "
            f"beside {OPEN_AT_ONCE} open transactions, {without / 1000:.1f} ms without; ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} – {ratios[-1]:.2f}), aim ≤ 1.2; questions were {behind:.2f} s late when a window began")


# ---- S3.f: one is damaged -----------------------------------------------------------------------------------------------

# Small, so that a few messages fill the first segment and a snapshot lies behind it, and the scrubber reads it at once.
SMALL = ("--segment-size", "4MiB", "--zero-ahead", "1MiB", "--snapshot-every", "1MiB", "--scrub-rate", "1GiB")
ORDERS = [f"order-{number}" for number in range(6)]
DAMAGED = "order-3"


@pytest.mark.parametrize("decided", ["by_its_checker_when_it_is_put_back", "by_its_sender_while_it_is_damaged"])
def test_a_damaged_half_is_told_and_left_alone_and_all_others_are_asked_about_and_delivered(tmp_path, name, decided):
    """S3.f, where a snapshot covers it, as it does all but the latest."""
    node = Broker(tmp_path).start(*SMALL)
    try:
        halves = open_halves(node, name)
        cover_with_a_snapshot(node, name)
        assert node.stop() == 0
        file = flip(node, DAMAGED)
        node.start(*SMALL)
        lost = halves[DAMAGED]
        told = wait_until(lambda: node.call("GET", "/v1/damage")["damage"], "the damage is told")
        assert [(each["file"], each["lost"]["open_transactions"], each["lost"]["messages"]) for each in told] == \
            [(str(file), [lost.transaction_id], [])]
        tells(node, "vouch_scrub_damaged", 1)
        counted = node.transaction(lost.transaction_id)["checks"]
        checker = Checker({key: COMMIT for key in ORDERS})
        with producer(node, name, checker=checker) as client, simple_consumer(node, name, name) as consumer, \
                raw_client(node) as raw:
            came = receive_and_ack(consumer, len(ORDERS) - 1, 30)
            assert sorted((each.message_id, each.body) for each in came) == \
                sorted((half.message_id, body(key)) for key, half in halves.items() if key != DAMAGED)
            reported = wait_until(lambda: node.transaction(lost.transaction_id)["last_error"], "the ask is reported")
            assert "cannot be read" in reported["error"]
            if decided == "by_its_sender_while_it_is_damaged":
                # What was decided holds, and for that nobody has to read it.
                assert raw.end(name, lost.message_id, lost.transaction_id) == Code.OK
            transaction, _ = send_half(client, name, "new")
            transaction.commit()
            assert [each.body for each in receive_and_ack(consumer, 1)] == [b"new"]
            assert_nothing_arrives(consumer)
            shown = node.transaction(lost.transaction_id)
            left = [each["id"] for each in transactions(node, name) if not each["ended_at"]]
            if decided == "by_its_sender_while_it_is_damaged":
                assert (shown["state"], left) == ("committed", []), shown
            else:
                assert (shown["state"], shown["checks"], left) == ("open", counted, [lost.transaction_id]), shown
        assert not checker.asked[DAMAGED], "nobody is asked about what nobody can read"
        assert node.stop() == 0
        # The segment is put back as it was: that one goes on as if nothing had been.
        flip(node, DAMAGED, back=True)
        node.start(*SMALL)
        with producer(node, name, checker=checker):
            all_of_it = sorted([*(body(key).decode() for key in ORDERS), "new"])
            # A group of its own, which does not wait for the leases of the other one.
            assert sorted(received_by(node, f"{name}-later", name, set(all_of_it))) == all_of_it
        assert node.call("GET", "/v1/damage")["damage"] == []
    finally:
        end(node)


def test_a_start_refuses_a_damaged_half_that_no_snapshot_covers_and_goes_on_when_it_is_put_back(tmp_path, name):
    """Nothing behind it is certain then: host/docs/damage.md. What is before it can be read meanwhile."""
    node = Broker(tmp_path).start(*SMALL)
    try:
        halves = open_halves(node, name)
        assert node.stop() == 0
        file = flip(node, DAMAGED)
        before = contents(node)
        with pytest.raises(AssertionError, match="ended with status 1") as refused:
            node.start(*SMALL)
        assert str(file) in str(refused.value) and "--on-damage read-only" in str(refused.value)
        unchanged = contents(node) == before
        assert unchanged, "a start that refuses changes nothing"
        node.launch(*SMALL, "--on-damage", "read-only")
        tells(node, "vouch_read_only", 1)
        told = node.call("GET", "/v1/damage")
        assert (told["mode"], [each["file"] for each in told["damage"]]) == ("read-only", [str(file)])
        whole = ORDERS[:ORDERS.index(DAMAGED)]
        assert [each["id"] for each in transactions(node, name)] == [halves[key].transaction_id for key in whole]
        with pytest.raises(HttpProblem) as refusal:
            node.call("POST", f"/v1/transactions/{halves[whole[0]].transaction_id}/commit", {"by": "ann"})
        assert refusal.value.status == 503
        assert node.stop() == 0
        flip(node, DAMAGED, back=True)
        node.start(*SMALL)
        with producer(node, name, checker=Checker({key: COMMIT for key in ORDERS})), \
                simple_consumer(node, name, name) as consumer:
            came = receive_and_ack(consumer, len(ORDERS), 30)
            assert sorted(each.body for each in came) == sorted(map(body, ORDERS))
            assert_nothing_arrives(consumer)
    finally:
        end(node)


def body(key: str) -> bytes:
    """To be found in the log's files."""
    return f"<{key} of this test>".encode() * 50


def open_halves(node, name):
    """Halves that nobody is asked about any more."""
    node.create_transaction_topic(name, max_checks=1000)
    with producer(node, name, checker=Checker()) as client:
        return {key: send_half(client, name, key, body(key))[1] for key in ORDERS}


def cover_with_a_snapshot(node, name):
    """Other messages, until the segment of the halves is full and a snapshot lies behind it."""
    node.create_topic(f"{name}-others")
    with producer(node, f"{name}-others") as client:
        for _ in range(12):
            client.send(message(f"{name}-others", os.urandom(500_000)))
    snapshots = node.data_dir / "shards/0/snapshots"
    wait_until(lambda: any(int(file.stem) > 4 << 20 for file in snapshots.glob("*.snapshot")), "a snapshot lies behind it")


def flip(node, key, back=False):
    """Changes one byte of the body of this half, wherever it lies; or changes it back. Returns the file."""
    wanted = body(key)
    at = len(wanted) // 2
    if back:
        wanted = wanted[:at] + bytes([wanted[at] ^ 1]) + wanted[at + 1:]
    found = [(file, offset) for file in (node.data_dir / "shards/0/log").iterdir()
             if (offset := file.read_bytes().find(wanted)) >= 0]
    assert len(found) == 1, f"{key} lies in {found}"
    file, offset = found[0]
    with open(file, "r+b") as log:
        log.seek(offset + at)
        log.write(bytes([wanted[at] ^ 1]))
    return file


def contents(node):
    files = [file for folder in ("log", "snapshots") for file in sorted((node.data_dir / "shards/0" / folder).iterdir())]
    return [(file.name, file.read_bytes()) for file in files]


def end(node):
    if node.is_running():
        assert node.stop() == 0
    assert "panicked at" not in node.log(1 << 30), node.log()
