"""Components that consume on three nodes: the leader, which delivers to them, is killed. On one node, and with databases:
test_consumer_effects.py.

Settings: VOUCH_DELIVERIES (300), VOUCH_LEADER_LOSSES (2), VOUCH_SEED (told with the figures and when a test fails)."""

import os
import random
import threading
import time

from broker import wait_until
from cluster import SETTLES_WITHIN_S
from consuming import PushedTo, Sender, StockShop, counts, dead_letters, is_done, waiting

DELIVERIES = int(os.environ.get("VOUCH_DELIVERIES", 300))
LOSSES = int(os.environ.get("VOUCH_LEADER_LOSSES", 2))
SEED = int(os.environ.get("VOUCH_SEED", random.randrange(1 << 32)))
TOLD = f"VOUCH_SEED={SEED} VOUCH_DELIVERIES={DELIVERIES} VOUCH_LEADER_LOSSES={LOSSES}"
# The lease of a delivery is 30 s longer than a call may take; another leader does not wait for that.
TAKEN_OVER_WITHIN_S = 10


def test_what_a_component_keeps_and_publishes_is_there_once_whichever_leader_is_killed(cluster, figures):
    began, rng = time.monotonic(), random.Random(f"{SEED} stock")
    shop = StockShop(cluster.leader, rng, DELIVERIES, lambda: random.choice(cluster.answering()))
    dead, count = [], LOSSES + 1
    for number in range(count):
        sending = shop.begin_sending(shop.plan[number * len(shop.plan) // count:(number + 1) * len(shop.plan) // count])
        if number < LOSSES:
            leader = cluster.leader()
            wait_until(lambda: waiting(leader, "stock") > 0, "it has something to do", every_s=0.001)
            time.sleep(rng.uniform(0, 0.05))
            dead.append((leader.id, waiting(leader, "stock"), counts(leader, "stock")["ack"]))
            leader.kill()
            cluster.leader(but=leader)
            leader.start()
        shop.sent(sending)
    shop.settles()
    faults = shop.faults()
    shop.finish()
    assert not faults, f"{TOLD}, killed {dead}, {len(faults)} faults:\n" + "\n".join(faults[:20])
    figures(f"{shop.told}; killed leaders, what was left and what each had done: {dead}; "
            f"{dict(counts(cluster.leader(), 'stock'))} of the last one; {time.monotonic() - began:.0f} s; {TOLD}")


def test_what_a_lost_leader_had_in_hand_is_delivered_within_seconds_and_a_pause_outlives_leaders(cluster, name, figures):
    hangs = threading.Event()
    hangs.set()
    leader = cluster.leader()
    sender = Sender(cluster.leader)

    def answers(_):
        end = time.monotonic() + SETTLES_WITHIN_S
        while hangs.is_set() and time.monotonic() < end:
            time.sleep(0.01)
        return 200

    with PushedTo(answers) as service:
        leader.create_topic(name)
        leader.create_group("held", max_attempts=1)
        for binding in ("held", "beside"):
            service.bind(leader, binding, name, limits={"deadline": "30s"})
        sender.send(name, "O1", {})
        wait_until(lambda: service.times("/held/O1") and service.times("/beside/O1"), "both are called")
        leader.kill()
        led = cluster.leader(but=leader)
        led_at = time.monotonic()
        hangs.clear()
        is_done(led, "held", TAKEN_OVER_WITHIN_S)
        is_done(led, "beside", TAKEN_OVER_WITHIN_S)
        again = service.times("/held/O1")
        assert len(again) == 2, again
        assert dead_letters(led, "held") == [], "it was its only attempt, and is that still"
        figures(f"delivered again {again[1] - led_at:.2f} s after another node led")

        led.call("POST", "/v1/bindings/held/pause")
        leader.start()
        led.kill()
        third = cluster.leader(but=led)
        assert third.call("GET", "/v1/bindings/held")["paused"]
        sender.send(name, "O2", {})
        # Whoever does not pause has it.
        wait_until(lambda: service.times("/beside/O2"), "the other one goes on", SETTLES_WITHIN_S)
        is_done(third, "beside")
        assert (waiting(third, "held"), service.times("/held/O2")) == (1, [])
        third.call("POST", "/v1/bindings/held/resume")
        is_done(third, "held", TAKEN_OVER_WITHIN_S)
        assert len(service.times("/held/O2")) == 1 and not third.call("GET", "/v1/bindings/held")["paused"]
        led.start()
    sender.close()
