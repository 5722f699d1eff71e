"""What all clients of a cluster were told is held against what came, while faults are made between: load on all nodes, one
disturbance after the other, and a ledger at the end."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

from broker import quote, wait_until
from load import OK, Load, Probes
from senders import assert_probes_are_true

SEED = int(os.environ.get("VOUCH_SEED", random.randrange(1 << 32)))
LEASE_AND_A_POLL_S = 8


def under_load(cluster, name, times, disturb, tell=lambda probes: None, leaderless_at_most_s=None):
    """Producers and consumers on all nodes, and faults between: whatever anybody was told has to be true."""
    rng = random.Random(SEED)
    told = f"VOUCH_SEED={SEED}"
    cluster.leader().create_topic(f"{name}-probes")
    load = Load(cluster, name, SEED).start()
    ledger = load.ledger
    try:
        with Probes(cluster, f"{name}-probes") as probes:
            for number in range(times):
                progresses(ledger, told)
                told += ", " + disturb(number, rng, lambda: progresses(ledger, told))
                cluster.caught_up()
            progresses(ledger, told)
            load.stop_sending()
            tell(probes.stop())
        # The Python client has no stream for minutes after its node was lost: another instance is asked instead.
        for node in cluster.nodes:
            load.transactional_producer(node)
        told = settle(cluster, load, told)
        assert_nothing_open(cluster, load, told)
    finally:
        load.stop()
    summary = f"{told}; {ledger.summary(load.groups)}"
    faults = ledger.faults(load.groups)
    gap = probes.longest_gap()
    if leaderless_at_most_s and gap > leaderless_at_most_s:
        faults.append(f"nobody led for {gap:.1f} s")
    assert not faults, f"{len(faults)} faults; {summary}\n" + "\n".join(faults[:30])
    assert_probes_are_true(probes, cluster.leader(), f"{name}-probes")
    cluster.one_log()
    print(f"{summary}; {probes.told()}; longest without a leader {gap:.2f} s")


def progresses(ledger, told, sends=60):
    """The load pauses the losses: some sends are acknowledged between them."""
    before = ledger.sent
    wait_until(lambda: ledger.sent >= before + sends, f"{sends} more sends were acknowledged; {told}", 60)


def settle(cluster, load, told):
    """Waits until every half that was acknowledged has ended, and all that must come has come to each group."""
    ledger = load.ledger
    leader = cluster.leader()

    def open_transactions():
        return [each["id"] for state in ("open", "waiting_for_checker", "parked")
                for each in leader.call("GET", f"/v1/transactions?state={state}&topic={quote(load.transactional)}")["items"]]

    try:
        wait_until(lambda: not open_transactions(), "all transactions ended", 90, 0.5)
    except AssertionError:
        left = open_transactions()
        shown = [f"{node}: {node.transaction(id)}" for id in left[:5] for node in cluster.nodes]
        raise AssertionError(f"{len(left)} transactions stay open; {told}\n" + "\n".join(shown)) from None
    for group in load.groups:
        def missing():
            return ledger.must_come() - ledger.came(group)

        try:
            # What a lost node did not tell its push consumer stays with that: see the test of its own.
            if group == load.groups[1]:
                end = time.monotonic() + 10
                while missing() and time.monotonic() < end:
                    time.sleep(0.2)
                if late := missing():
                    told += f"; {len(late)} only came when the push consumers were replaced"
                    load.replace_push_consumers()
            wait_until(lambda: not missing(), "everything came", 90, 0.5)
        except AssertionError:
            missed = [str(ledger.told(body)) for body in sorted(missing())]
            raise AssertionError(f"{group} never got {len(missed)} messages; {told}; {ledger.summary(load.groups)}\n"
                                 + "\n".join(missed[:20])) from None
    time.sleep(LEASE_AND_A_POLL_S)  # what would come again, would come here
    return told


def assert_nothing_open(cluster, load, told):
    """All nodes tell the same outcome of each transaction, and it is the one that its producer was told."""
    halves = [half for half in load.ledger.halves.values() if half.outcome == OK]
    came_to = [load.ledger.came(group) for group in load.groups]

    def outcomes(half):
        return [node.transaction(half.transaction_id)["state"] for node in cluster.nodes]

    with ThreadPoolExecutor(8) as pool:
        for half, states in zip(halves, pool.map(outcomes, halves)):
            assert len(set(states)) == 1 and states[0] in ("committed", "rolled_back"), f"{half}: {states}; {told}"
            if half.ended in ("committed", "rolled_back"):
                assert states[0] == half.ended, f"{half}: {states}; {told}"
            came = [half.body in bodies for bodies in came_to]
            assert came == [states[0] == "committed"] * len(came), f"{half}: {states}, came {came}; {told}"
