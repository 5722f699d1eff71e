"""Several nodes that are one broker, with official clients on all of them: what is promised in host/docs/replication.md
while nodes are killed, paused, cut off, stopped and restarted. Faults of all kinds for as long as somebody wants, on three nodes
and on five: test_cluster_storms.py. Disks that fill up, hang and fail: test_cluster_disks.py; nodes that are removed, or only
listen: test_cluster_members.py.

Which test shows which scenario of the semantics (S3: faults inside a transaction, S5: flush and replication):

S3.a, the leader is killed between half and end: test_a_transaction_that_was_begun_with_a_lost_leader_ends_with_the_next
S3.b, it is killed with the final appended, before it answered: test_an_end_whose_answer_was_lost_with_the_leader_is_known_to_…
S3.c, all nodes at once, right after the answer: test_what_was_answered_is_there_after_all_nodes_were_killed_at_once; what is
      not synced is lost with power in host/commitlog/src/tests (power_cuts.rs, block_layer), of groups in tests/simulation
S3.d, a pass over many open transactions: test_open_transactions_are_asked_about_at_most_once_more_when_the_leader_is_lost
S3.e, a million open transactions: test_many_open_transactions_are_asked_about_as_their_schedule_says_and_none_is_forgotten in
      test_open_transactions.py, with 5 000 and with a million; the p99 of sends is told there and not held against anything
S3.f, a damaged half: test_a_damaged_half_is_told_and_left_alone_and_… in test_open_transactions.py, where a snapshot covers it;
      where none does a start refuses, or only reads: test_a_start_refuses_a_damaged_half_that_no_snapshot_covers_and_… there
S5.a, one node and power cuts: host/commitlog/src/tests/power_cuts.rs and block_layer
S5.b, both followers are stopped after an append: test_what_only_the_leader_has_is_unknown_and_seen_by_nobody_and_commits_…
S5.c, a hundred uncommitted entries: test_what_a_leader_that_was_cut_off_had_not_committed_is_gone_after_healing
S5.d, leaders are lost again and again: test_leaders_are_lost_under_load_and_nothing_that_was_acknowledged_is
S5.e, nothing uncommitted is served: the test of S5.b; host/shard/src/core/tests/following.rs, and I3 in tests/simulation
S5.f, a sync fails: test_a_disk_that_fails_takes_its_node_out_… in test_cluster_disks.py; that the file is not synced again:
      host/commitlog/src/tests/faults.rs and block_layer/failing.rs; host/shard/src/core/tests/following.rs
S5.g, a vote is durable: host/storage/src/replica/tests.rs (whatever_a_power_cut_does_a_vote_that_was_told_stands_…),
      host/shard/src/core/tests/group.rs (a_vote_is_saved_before_it_is_told_…)

Settings: VOUCH_LEADER_LOSSES (4; how often the leader is lost under load), VOUCH_TRANSFERS (5; how often leadership is handed
over), VOUCH_OPEN_TRANSACTIONS (200; of these the leader is lost in the middle of a pass), VOUCH_SLOW_LINKS_S (10; for how long
the links are slow), VOUCH_SEED (what the load and the faults are; told when a test fails).
"""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest
from broker import HttpProblem, quote, wait_until
from clients import (COMMIT, Checker, Listener, assert_nothing_arrives, message, producer, push_consumer,
                     receive_and_ack, receive_one, send_half, simple_consumer)
from cluster import LEADERLESS_AT_MOST_S, SETTLES_WITHIN_S, Cluster
from load import OK, Probes, spread
from raw import raw_client, raw_message
from rocketmq import ClientConfiguration, Credentials, Producer
from rocketmq.v5.exception import ClientException
from senders import Senders, assert_all_came_once, assert_probes_are_true, received_by
from under_load import SEED, under_load
from wire import ClientType, Code

LEADER_LOSSES = int(os.environ.get("VOUCH_LEADER_LOSSES", 4))
TRANSFERS = int(os.environ.get("VOUCH_TRANSFERS", 5))
OPEN_TRANSACTIONS = int(os.environ.get("VOUCH_OPEN_TRANSACTIONS", 200))
PASSES_WITHIN_S = 60 + OPEN_TRANSACTIONS / 20
SLOW_LINKS_S = float(os.environ.get("VOUCH_SLOW_LINKS_S", 10))
# How long a plain call of these clients may take.
CLIENT_DEADLINE_S = 3
UNKNOWN = {Code.MASTER_PERSISTENCE_TIMEOUT, Code.SLAVE_PERSISTENCE_TIMEOUT}
REFUSED_OR_UNKNOWN = {Code.HA_NOT_AVAILABLE} | UNKNOWN


# ---- leaders are lost ---------------------------------------------------------------------------------------------------


def test_leaders_are_lost_under_load_and_nothing_that_was_acknowledged_is(cluster, name, figures):
    losses = Losses()

    def lose(loss, rng, going_on):
        lost = cluster.leader()
        # All three are had in the short mode.
        kind = ("killed", "paused", "killed", "cut off")[(loss + SEED) % 4]
        with losses.of(kind):
            {"killed": lost.kill, "paused": lost.pause, "cut off": lambda: cluster.isolate(lost)}[kind]()
            cluster.leader(but=lost)
        if kind == "killed":
            going_on()
            lost.start()
        else:
            time.sleep(rng.uniform(0, 3))
            lost.resume() if kind == "paused" else cluster.network.heal()
        return f"{lost} {kind}"

    def tell(probes):
        for line in losses.told(probes):
            figures(line)

    under_load(cluster, name, LEADER_LOSSES, lose, tell, LEADERLESS_AT_MOST_S)


class Losses:
    """When leaders were lost, and when another one led."""

    def __init__(self):
        self.times = []

    @contextmanager
    def of(self, kind):
        lost_at = time.monotonic()
        yield
        self.times.append((kind, lost_at, time.monotonic()))

    def told(self, probes):
        """How long it took, of each kind: until another node led, and until a send was acknowledged that began afterwards."""
        acknowledged = sorted((probe.ended, probe.began) for probe in probes.acknowledged())
        for kind in sorted({kind for kind, _, _ in self.times}):
            times = [(lost_at, led_at) for each, lost_at, led_at in self.times if each == kind]
            first = [next(ended for ended, began in acknowledged if began >= lost_at) - lost_at for lost_at, _ in times]
            led = [led_at - lost_at for lost_at, led_at in times]
            yield (f"a leader was {kind} {len(times)} times: another one led after {spread(led)}, the first send that began "
                   f"then was acknowledged after {spread(first)}")


def test_open_transactions_are_asked_about_at_most_once_more_when_the_leader_is_lost(cluster, name):
    """S3.d: in the middle of a pass over many; none is skipped, none parked, and each ends as is answered at last."""
    leader, (node, _) = cluster.leader(), cluster.followers()
    # So many that one client is not behind with its answers.
    leader.create_transaction_topic(name, immunity="1s", interval=f"{max(2, OPEN_TRANSACTIONS // 100)}s", max_checks=100)
    checker = Checker()
    with producer(node, name, checker=checker) as client, simple_consumer(node, name, name) as consumer:
        ids = {f"order-{i}": send_half(client, name, f"order-{i}")[1].transaction_id for i in range(OPEN_TRANSACTIONS)}
        asked = lambda: sum(map(len, list(checker.asked.values())))  # noqa: E731
        wait_until(lambda: asked() > OPEN_TRANSACTIONS // 2, "a pass goes on", PASSES_WITHIN_S)
        leader.kill()
        cluster.leader(but=leader)
        wait_until(lambda: all(len(checker.asked[key]) >= 3 for key in ids), "each is asked again", PASSES_WITHIN_S)
        for key, id in ids.items():
            # Asked first, counted then: in this order no ask is missed.
            counted = node.transaction(id)
            more = len(checker.asked[key]) - counted["checks"]
            assert counted["state"] == "open" and more <= 2, f"{key}: {more} more asked than counted: {counted}"
        checker.answers = {key: COMMIT for key in ids}
        came = receive_and_ack(consumer, OPEN_TRANSACTIONS, PASSES_WITHIN_S)
        assert {each.body.decode() for each in came} == ids.keys()
        assert_nothing_arrives(consumer)
    leader.start()


def test_a_transaction_that_was_begun_with_a_lost_leader_ends_with_the_next(cluster, name):
    """S3.a"""
    leader, (node, _) = cluster.leader(), cluster.followers()
    leader.create_transaction_topic(name, immunity="1h", interval="1h")
    with producer(node, name, checker=Checker()) as client, simple_consumer(node, name, name) as consumer:
        committed, _ = send_half(client, name, "committed")
        rolled_back, _ = send_half(client, name, "rolled-back")
        leader.kill()
        ends_for_certain(committed.commit)
        ends_for_certain(rolled_back.rollback)
        assert [each.body for each in receive_and_ack(consumer, 1)] == [b"committed"]
        assert_nothing_arrives(consumer)
    leader.start()
    cluster.one_log()


def ends_for_certain(end):
    """As an application ends a transaction whose leader may have been lost: again, until it hears the outcome."""
    def ended():
        try:
            end()
            return True
        except ClientException as problem:
            assert problem.code in REFUSED_OR_UNKNOWN, problem
            return False

    wait_until(ended, "the transaction ends", SETTLES_WITHIN_S)


def test_an_end_whose_answer_was_lost_with_the_leader_is_known_to_the_next(cluster, name):
    """S3.b: it was committed, and nobody heard of that."""
    leader, (node, other) = cluster.leader(), cluster.followers()
    leader.create_transaction_topic(name, immunity="1h", interval="1h")
    with producer(leader, name, checker=Checker()) as client:
        halves = {commit: send_half(client, name, f"half-{commit}")[1] for commit in (True, False)}
    way = (f"clients of {leader}", "a client")
    cluster.network.leads_to(way[0], leader.grpc)
    access = SimpleNamespace(grpc=cluster.network.door(*way))
    with raw_client(access) as raw, ThreadPoolExecutor(2) as pool:
        assert raw.route(name).status.code == Code.OK
        cluster.network.cut(*way)
        waiting = [pool.submit(raw.end, name, half.message_id, half.transaction_id, commit) for commit, half in halves.items()]
        for commit, half in halves.items():
            outcome = "committed" if commit else "rolled_back"
            wait_until(lambda: node.transaction(half.transaction_id)["state"] == outcome, f"it is {outcome}")
        leader.kill()
        cluster.network.heal(lose=True)
        for each in waiting:
            assert isinstance(each.exception(20), grpc.RpcError), "nobody was answered"
    cluster.leader(but=leader)
    with raw_client(node) as raw, simple_consumer(other, name, name) as consumer:
        for commit, half in halves.items():
            for _ in range(2):
                assert raw.end(name, half.message_id, half.transaction_id, commit) == Code.OK
                assert raw.end(name, half.message_id, half.transaction_id, not commit) == Code.PRECONDITION_FAILED
        assert [each.body for each in receive_and_ack(consumer, 1)] == [b"half-True"]
        assert_nothing_arrives(consumer)
    leader.start()
    cluster.one_log()


def test_what_was_answered_is_there_after_all_nodes_were_killed_at_once(cluster, name):
    """S3.c; what a power cut takes beyond that, the log on a virtual disk is held against."""
    node = cluster.followers()[0]
    node.create_transaction_topic(name, immunity="1h", interval="1h")
    node.create_topic(f"{name}-plain", "normal")
    rng = random.Random(SEED)
    told, half = {}, None
    for round in range(3):
        with producer(node, name, f"{name}-plain", checker=Checker()) as client:
            for number in range(rng.randrange(1, 20)):
                transaction, half = send_half(client, name, f"half-{round}-{number}")
                end = rng.choice(("commit", "rollback"))
                getattr(transaction, end)()
                told[f"half-{round}-{number}"] = half.transaction_id, {"commit": "committed", "rollback": "rolled_back"}[end]
            for each in cluster.nodes:
                each.process.kill()
        for each in rng.sample(cluster.nodes, 3):
            each.kill()
            each.launch()
        for each in cluster.nodes:
            wait_until(each.ready, f"{each} is ready", SETTLES_WITHIN_S)
        cluster.caught_up()
    for each in cluster.nodes:
        assert {key: each.transaction(id)["state"] for key, (id, _) in told.items()} == \
            {key: outcome for key, (_, outcome) in told.items()}, f"VOUCH_SEED={SEED}"
    committed = {key for key, (_, outcome) in told.items() if outcome == "committed"}
    assert sorted(received_by(node, name, name, committed)) == sorted(committed), f"VOUCH_SEED={SEED}"
    cluster.one_log()


# ---- a client that knows a follower only ----------------------------------------------------------------------------------


def test_a_client_of_a_follower_sends_receives_acknowledges_and_changes_leases(cluster, name):
    follower, other = cluster.followers()
    follower.create_topic(name, queues=2)
    with producer(follower, name) as client, simple_consumer(follower, name, name) as consumer:
        sent = {client.send(message(name, f"{i}".encode())).message_id for i in range(20)}
        assert {each.message_id for each in receive_and_ack(consumer, 20)} == sent
        receipt = client.send(message(name, b"again"))
        held = receive_one(consumer)
        consumer.change_invisible_duration(held, 1)
        again = receive_one(consumer)
        assert (again.message_id, again.delivery_attempt) == (receipt.message_id, 2)
        with pytest.raises(ClientException) as late:
            consumer.ack(held)
        assert late.value.code == Code.INVALID_RECEIPT_HANDLE
        consumer.ack(again)
        assert_nothing_arrives(consumer)
    # Nor is anything left for somebody of the same group elsewhere.
    with simple_consumer(other, name, name) as consumer:
        assert_nothing_arrives(consumer)
    with raw_client(follower) as raw:
        again = raw_message(name, b"once")
        first, second = (raw.send(again) for _ in range(2))
        assert first.status.code == second.status.code == Code.OK
        assert first.entries[0].offset == second.entries[0].offset, "a retry gets the first answer"


def test_a_client_of_a_follower_has_its_failures_retried_and_put_aside(cluster, name):
    follower, other = cluster.followers()
    follower.create_topic(name)
    follower.create_group(name, max_attempts=2, backoff=["1s"])
    listener = Listener(fails=lambda m: True)
    with producer(other, name) as client, push_consumer(follower, name, name, listener):
        receipt = client.send(message(name, b"poison", "t", ["k"]))
        wait_until(lambda: len(listener.deliveries) >= 2, "two deliveries", 30)
        wait_until(lambda: exists(follower, f"%DLQ%{name}"), "the dead letter topic is there", 30)
        with simple_consumer(other, f"{name}-undertaker", f"%DLQ%{name}") as undertaker:
            dead = receive_one(undertaker)
            undertaker.ack(dead)
    assert [each.delivery_attempt for each in listener.deliveries] == [1, 2]
    assert (dead.message_id, dead.body, dead.tag, dead.keys) == (receipt.message_id, b"poison", "t", {"k"})


def exists(node, topic):
    try:
        return node.call("GET", f"/v1/topics/{quote(topic)}")
    except HttpProblem as problem:
        assert problem.status == 404
        return None


def test_a_client_of_a_follower_ends_transactions_and_is_asked_about_them(cluster, name):
    follower, other = cluster.followers()
    follower.create_transaction_topic(name)
    checker = Checker({"silent": COMMIT})
    with producer(follower, name, checker=checker) as client, simple_consumer(other, name, name) as consumer:
        committed, _ = send_half(client, name, "committed")
        rolled_back, rolled_back_receipt = send_half(client, name, "rolled-back")
        committed.commit()
        rolled_back.rollback()
        with pytest.raises(ClientException) as refusal:
            rolled_back.commit()
        assert refusal.value.code == Code.PRECONDITION_FAILED
        send_half(client, name, "silent")
        assert {each.body for each in receive_and_ack(consumer, 2, 30)} == {b"committed", b"silent"}
        assert_nothing_arrives(consumer)
    assert len(checker.asked["silent"]) == 1 and len(checker.asked["rolled-back"]) == 0
    assert follower.transaction(rolled_back_receipt.transaction_id)["state"] == "rolled_back"


def test_what_is_made_through_a_follower_is_there_at_once_wherever_one_asks(cluster, name):
    follower, other = cluster.followers()
    for number in range(10):
        topic = f"{name}-{number}"
        follower.create_topic(topic)
        assert other.call("GET", f"/v1/topics/{topic}")["name"] == topic
        with raw_client(other) as raw:
            assert raw.route(topic).status.code == Code.OK
            assert raw.send(raw_message(topic)).status.code == Code.OK
        follower.create_group(topic)
        assert other.call("GET", f"/v1/groups/{topic}")["name"] == topic
    for node in cluster.nodes:
        with pytest.raises(HttpProblem) as missing:
            node.call("GET", f"/v1/topics/{name}-none")
        assert missing.value.status == 404
        with raw_client(node) as raw:
            assert raw.route(f"{name}-none").status.code == Code.TOPIC_NOT_FOUND
            assert raw.send(raw_message(f"{name}-none")).status.code == Code.TOPIC_NOT_FOUND


def test_a_secret_is_sealed_by_the_node_that_takes_it_and_one_that_can_open_it_leads(cluster, name):
    """These nodes show each other no certificates: a key stays where it was made, which shows who sealed."""
    follower, leader = cluster.followers()[0], cluster.leader()
    value = b"a-value-that-is-easy-to-find"
    told = follower.call("PUT", f"/v1/secrets/{name}", value, content_type="application/octet-stream")
    assert "copied to each node that has none" in told["warnings"][0]
    keys = [node.id for node in cluster.nodes if (node.data_dir / "secrets.key").exists()]
    assert keys == [follower.id], "it was passed on as it came"
    assert follower.call("GET", f"/v1/secrets/{name}")["opens_here"] is True
    assert leader.call("GET", f"/v1/secrets/{name}")["opens_here"] is False
    wait_until(lambda: cluster.leader().id == follower.id, "one leads that has the key", 20)
    for node in cluster.nodes:
        for segment in (node.data_dir / "shards/0/log").iterdir():
            assert value not in segment.read_bytes(), segment


def test_an_operator_lists_and_ends_transactions_through_a_follower(cluster, name):
    follower, other = cluster.followers()
    follower.create_transaction_topic(name, immunity="1h", interval="1h")
    why = {"by": "test", "reason": "looked into the database"}
    with producer(other, name, checker=Checker()) as client, simple_consumer(other, name, name) as consumer:
        _, kept = send_half(client, name, "kept")
        _, dropped = send_half(client, name, "dropped")
        ids = {kept.transaction_id, dropped.transaction_id}
        wait_until(lambda: {each["id"] for each in follower.call("GET", f"/v1/transactions?topic={name}")["items"]} == ids,
                   "the follower lists both")
        assert follower.transaction(kept.transaction_id)["state"] == "open"
        for _ in range(2):
            follower.call("POST", f"/v1/transactions/{kept.transaction_id}/commit", why)
            other.call("POST", f"/v1/transactions/{dropped.transaction_id}/rollback", why)
        with pytest.raises(HttpProblem) as conflict:
            follower.call("POST", f"/v1/transactions/{kept.transaction_id}/rollback", why)
        assert (conflict.value.status, conflict.value.body["outcome"]) == (409, "committed")
        assert [each.body for each in receive_and_ack(consumer, 1)] == [b"kept"]
        assert_nothing_arrives(consumer)


@pytest.fixture
def cluster_that_leads_clients(tmp_path):
    nodes = Cluster(tmp_path)
    for node in nodes.nodes:
        node.settings = (*node.settings, "--routes-to-leader")
    try:
        yield nodes.start()
    finally:
        nodes.finish()


def test_clients_that_hold_several_addresses_are_led_to_the_leader_and_all_others_stay_where_they_are(
        cluster_that_leads_clients, name):
    cluster = cluster_that_leads_clients
    cluster.leader().create_topic(name)

    def route(node, language):
        with raw_client(node, language=language) as client:
            queues = client.route(name).message_queues
        routes = {tuple(f"{each.host}:{each.port}" for each in queue.broker.endpoints.addresses) for queue in queues}
        assert len(routes) == 1, routes
        return list(routes.pop())

    for _ in range(2):
        leader = cluster.leader()
        for node in cluster.nodes:
            wait_until(lambda: node.status()["leader"] == leader.id, f"{node} knows who leads")
            others = [each.grpc for each in cluster.nodes if each is not leader]
            assert route(node, "JAVA") == [leader.grpc, *others]
            for language in ["PYTHON", "GO", "HTTP", "RUST", "CPP"]:
                assert route(node, language) == [node.grpc], language
        cluster.leader().admin("cluster", "transfer-leader")
        cluster.leader(but=leader)


@pytest.mark.xfail(strict=True, reason="the authority that gRPC makes of several addresses is refused as malformed")
def test_a_client_may_be_given_the_addresses_of_all_nodes(cluster, name):
    cluster.leader().create_topic(name)
    points = ";".join(node.grpc for node in cluster.nodes)
    client = Producer(ClientConfiguration(points, Credentials()), [name])
    client.startup()
    try:
        client.send(message(name))
    finally:
        client.shutdown()


# ---- partitions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["is_cut_off", "is_not_heard", "hears_nothing"])
def test_a_leader_that(cluster, name, way):
    """…loses its place, its clients are told the truth within their deadlines, and all nodes have one log after healing."""
    cluster.leader().create_topic(name)
    leader = cluster.leader()
    with Probes(cluster, name) as probes:
        wait_until(lambda: len(probes.acknowledged()) >= 30, "sends are acknowledged")
        for other in cluster.followers():
            if way != "hears_nothing":
                cluster.network.cut(leader.id, other.id)
            if way != "is_not_heard":
                cluster.network.cut(other.id, leader.id)
        cut_at = time.monotonic()
        rest = [node for node in cluster.nodes if node is not leader]
        wait_until(lambda: all(probes.acknowledged(node, cut_at + 1) for node in rest), "the others go on", 20)
        time.sleep(3)  # some load on both sides
        tried = [probe for probe in probes.answered() if probe.node == leader.id and probe.began > cut_at + 0.5]
        assert tried and all(probe.told != OK for probe in tried), "who is cut off acknowledges nothing"
        cluster.network.heal()
        healed_at = time.monotonic()
        wait_until(lambda: probes.acknowledged(leader, healed_at), "the old leader's clients go on", 20)
        time.sleep(1)
    gap = probes.longest_gap()
    assert not LEADERLESS_AT_MOST_S or gap < LEADERLESS_AT_MOST_S, f"nobody led for {gap:.1f} s"
    late = [probe for probe in probes.not_acknowledged() if probe.told == "DEADLINE_EXCEEDED" and probe.node == leader.id]
    assert not late, f"{len(late)} heard nothing within their deadline; {probes.told()}; {late[:5]}"
    assert_probes_are_true(probes, leader, name)
    cluster.one_log()
    assert len({(status["leader"], status["term"]) for status in (node.status() for node in cluster.nodes)}) == 1


def test_clients_of_followers_hear_within_their_deadline_that_the_leader_was_lost_in_silence(cluster, name):
    cluster.leader().create_topic(name)
    leader = cluster.leader()
    try:
        with Probes(cluster, name, deadline_s=4) as probes:
            wait_until(lambda: len(probes.acknowledged()) >= 30, "sends are acknowledged")
            leader.pause()
            paused_at = time.monotonic()
            cluster.leader(but=leader)
            time.sleep(3)
    finally:
        leader.resume()
    late = [probe for probe in probes.not_acknowledged() if probe.told == "DEADLINE_EXCEEDED" and probe.node != leader.id
            and probe.began > paused_at]
    assert not late, f"{len(late)} heard nothing within their deadline; {probes.told()}; {late[:5]}"


def test_a_follower_that_is_cut_off_stops_nobody_and_catches_up(cluster, name):
    cluster.leader().create_topic(name)
    leader, (lost, other) = cluster.leader(), cluster.followers()
    with Probes(cluster, name) as probes:
        wait_until(lambda: len(probes.acknowledged()) >= 30, "sends are acknowledged")
        cluster.isolate(lost)
        time.sleep(6)  # long enough for it to want an election, more than once
        cluster.network.heal()
        healed_at = time.monotonic()
        wait_until(lambda: probes.acknowledged(lost, healed_at), "its clients go on", 20)
        time.sleep(1)
    elsewhere = [probe for probe in probes.not_acknowledged() if probe.node != lost.id]
    assert not elsewhere, f"{len(elsewhere)} sends failed at those who had a majority: {elsewhere[:5]}"
    assert cluster.leader() is leader, "it came back and disturbed nobody"
    assert_probes_are_true(probes, lost, name)
    cluster.one_log()


def test_a_follower_that_only_the_leader_does_not_reach_disturbs_nobody(cluster, name):
    """It hears of no leader and wants to be one; whoever hears the leader does not vote for it."""
    cluster.leader().create_topic(name)
    leader, (lost, other) = cluster.leader(), cluster.followers()
    term = leader.status()["term"]
    with Probes(cluster, name) as probes:
        wait_until(lambda: len(probes.acknowledged()) >= 30, "sends are acknowledged")
        cluster.network.cut_both(leader.id, lost.id)
        time.sleep(6)  # long enough for it to want an election, more than once
        cluster.network.heal()
        healed_at = time.monotonic()
        wait_until(lambda: probes.acknowledged(lost, healed_at), "its clients go on", 20)
        time.sleep(1)
    elsewhere = [probe for probe in probes.not_acknowledged() if probe.node != lost.id]
    assert not elsewhere, f"{len(elsewhere)} sends failed at those who had a majority: {elsewhere[:5]}"
    assert (cluster.leader(), leader.status()["term"]) == (leader, term)
    assert_probes_are_true(probes, lost, name)
    cluster.one_log()


def test_what_a_leader_that_was_cut_off_had_not_committed_is_gone_after_healing(cluster, name):
    """S5.c: entries of the old leader that no majority has are cut off, and none of them was acknowledged."""
    cluster.leader().create_topic(name, queues=1)
    leader = cluster.leader()
    cluster.isolate(leader)
    told = []
    with raw_client(leader) as raw, ThreadPoolExecutor(100) as pool:
        raw_id = raw.client_id
        made = [raw_message(name, f"lost-{i}".encode()) for i in range(100)]

        def send(each):
            began = time.monotonic()
            answer = raw.send(each)
            code = answer.entries[0].status.code if answer.entries else answer.status.code
            return code, time.monotonic() - began

        told = list(pool.map(send, made))
    assert {code for code, _ in told} <= REFUSED_OR_UNKNOWN, {Code.Name(code) for code, _ in told}
    assert max(took for _, took in told) < 5
    appended, _, committed, _ = cluster.positions()[leader.id]
    assert appended - committed > 100 * len("lost-") and {code for code, _ in told} != {Code.HA_NOT_AVAILABLE}, \
        f"there is something to cut off: {appended} of which {committed} are committed"
    another = cluster.leader(but=leader)
    with raw_client(another) as raw:
        for number in range(20):
            assert raw.send(raw_message(name, f"kept-{number}".encode())).status.code == Code.OK
    cluster.network.heal()
    cluster.caught_up()
    cluster.one_log()
    bodies = received_by(leader, name, name, {f"kept-{number}" for number in range(20)})
    assert sorted(bodies) == sorted(f"kept-{number}" for number in range(20))
    # Sent again as the client would, under the same ids, each is stored once.
    with raw_client(leader, raw_id) as raw:
        for _ in range(2):
            assert all(raw.send(each).status.code == Code.OK for each in made)
    assert sorted(received_by(another, name, name, {f"lost-{i}" for i in range(100)})) == sorted(f"lost-{i}" for i in range(100))


# ---- slow links -----------------------------------------------------------------------------------------------------------

LINK_BYTES_PER_S = 20_000_000
# Two of them are what one request may have, 8 MiB; what several send at once becomes one entry of up to 16 MiB.
LARGE_BODY_BYTES = (4 << 20) - (64 << 10)
LARGE_SENDERS = 2


@pytest.fixture
def cluster_of_large_segments(tmp_path):
    nodes = Cluster(tmp_path)
    for node in nodes.nodes:
        node.settings = ("--segment-size", "64MiB", "--zero-ahead", "16MiB", "--snapshot-every", "16MiB",
                         "--disk-high-water", "99")
    try:
        yield nodes.start()
    finally:
        nodes.finish()


@pytest.mark.parametrize("through", ["the_leader", "a_follower"])
def test_large_entries_on_slow_links_cost_no_election_and_small_sends_go_on(cluster_of_large_segments, name, figures, through):
    cluster = cluster_of_large_segments
    cluster.leader().create_topic(name)
    cluster.leader().create_topic(f"{name}-large")
    leader = cluster.leader()
    node = leader if through == "the_leader" else cluster.followers()[0]
    terms = {each.id: each.status()["term"] for each in cluster.nodes}
    took = []

    def send_large(until):
        with raw_client(node) as raw:
            while (began := time.monotonic()) < until:
                status = raw.send(*(raw_message(f"{name}-large", bytes([n]) * LARGE_BODY_BYTES) for n in range(2))).status
                assert status.code == Code.OK, status
                took.append(time.monotonic() - began)

    cluster.network.slow(LINK_BYTES_PER_S)
    with Probes(cluster, name) as probes, ThreadPoolExecutor(LARGE_SENDERS) as pool:
        began = time.monotonic()
        for sending in [pool.submit(send_large, began + SLOW_LINKS_S) for _ in range(LARGE_SENDERS)]:
            sending.result(SLOW_LINKS_S + 30)
        large_bytes_per_s = len(took) * 2 * LARGE_BODY_BYTES / (time.monotonic() - began)
    small = [probe.took() for probe in probes.acknowledged()]
    figures(f"links of {LINK_BYTES_PER_S / 1e6:.0f} MB/s, {LARGE_SENDERS} large senders through {through}: {len(took)} of "
            f"{2 * LARGE_BODY_BYTES / (1 << 20):.1f} MiB, {large_bytes_per_s / 1e6:.1f} MB/s, each took {spread(took)}; "
            f"{len(small)} small ones took {spread(small)}")
    assert large_bytes_per_s < LINK_BYTES_PER_S * 1.1, "the links are not slow"
    assert {each.id: each.status()["term"] for each in cluster.nodes} == terms and cluster.leader() is leader
    assert not probes.not_acknowledged(), f"{probes.told()}: {probes.not_acknowledged()[:5]}"
    cluster.network.slow(None)
    assert_probes_are_true(probes, leader, name)
    cluster.one_log()


# ---- no majority ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["the_leader", "a_follower"])
def test_with_one_node_left_nothing_is_written_all_can_be_looked_at_and_one_more_is_enough(cluster, name, left):
    leader, (follower, _) = cluster.leader(), cluster.followers()
    leader.create_topic(name, queues=2)
    leader.create_transaction_topic(f"{name}-tx", immunity="1h", interval="1h")
    with producer(leader, name, f"{name}-tx", checker=Checker()) as client:
        before = {client.send(message(name, f"before-{i}".encode())).message_id for i in range(5)}
        _, half = send_half(client, f"{name}-tx", "half")
    cluster.one_log()
    alone = leader if left == "the_leader" else follower
    killed = [node for node in cluster.nodes if node is not alone]
    for node in killed:
        node.kill()

    # Straight away, and when it has long known that it is alone.
    unknown = []
    with raw_client(alone) as raw:
        for _ in range(2):
            made = raw_message(name, f"meanwhile-{len(unknown)}".encode())
            began = time.monotonic()
            answer = raw.send(made)
            took = time.monotonic() - began
            code = answer.entries[0].status.code if answer.entries else answer.status.code
            assert code in REFUSED_OR_UNKNOWN and took < 4.9, (Code.Name(code), took)
            unknown.append(made)
        began = time.monotonic()
        status, messages = raw.receive(name, name, poll_s=1)
        assert messages == [] and time.monotonic() - began < 5
        assert status.code in REFUSED_OR_UNKNOWN, Code.Name(status.code)
    with pytest.raises(HttpProblem) as refused:
        alone.create_topic(f"{name}-new")
    assert refused.value.status in (503, 504), refused.value
    with pytest.raises(HttpProblem) as refused:
        alone.call("POST", f"/v1/transactions/{half.transaction_id}/commit", {"by": "test", "reason": "test"})
    assert refused.value.status in (503, 504), refused.value

    assert name in {topic["name"] for topic in alone.call("GET", "/v1/topics")["items"]}
    assert alone.call("GET", f"/v1/topics/{name}")["name"] == name
    assert alone.transaction(half.transaction_id)["state"] in ("open", "waiting_for_checker")
    assert half.transaction_id in {each["id"] for each in alone.call("GET", f"/v1/transactions?topic={name}-tx")["items"]}
    for id in before:
        assert alone.call("GET", f"/v1/messages/{name}/{id}")
    assert alone.status()["leader"] is None
    alone.call("GET", "/v1/groups")
    alone.call("GET", "/metrics")
    alone.admin("cluster", "status")

    back = killed[0].launch()
    wait_until(lambda: all(node.ready() for node in (alone, back)) and cluster.leads(), "both are ready", SETTLES_WITHIN_S)
    # Sent again by the same client, who has found another node.
    with raw_client(back, raw.client_id) as raw:
        assert all(raw.send(each).status.code == Code.OK for each in unknown)
    wanted = {f"before-{i}" for i in range(5)} | {f"meanwhile-{i}" for i in range(2)}
    assert sorted(received_by(back, f"{name}-after", name, wanted)) == sorted(wanted)
    killed[1].start()
    cluster.one_log()


def test_what_only_the_leader_has_is_unknown_and_seen_by_nobody_and_commits_with_one_follower(cluster, name):
    """S5.b: both followers are lost when it is appended."""
    cluster.leader().create_topic(name, queues=1)
    leader, followers = cluster.leader(), cluster.followers()
    with raw_client(leader) as raw:
        assert raw.receive(name, name, poll_s=1)[1] == []
        for node in followers:
            node.process.kill()
        made = raw_message(name, b"undecided")
        status = raw.send(made).status
        assert status.code in UNKNOWN, f"it was appended, and nobody knows: {Code.Name(status.code)}, {status.message}"
        appended, _, committed, _ = cluster.positions()[leader.id]
        assert appended > committed
        assert raw.receive(name, name, poll_s=1)[1] == [], "what is not committed is seen by nobody"
        for node in followers:
            node.kill()
        back = followers[0].launch()
        wait_until(lambda: back.ready() and leader.ready(), "both are ready", SETTLES_WITHIN_S)
        with simple_consumer(back, name, name) as consumer:
            assert [each.body for each in receive_and_ack(consumer, 1)] == [b"undecided"]
            assert raw.send(made).status.code == Code.OK
            assert_nothing_arrives(consumer)
    followers[1].start()
    cluster.one_log()


def test_what_is_not_found_while_nobody_leads_is_not_said_to_be_missing(cluster, name):
    """A node that starts knows of less than it has on its disk to be committed."""
    cluster.leader().create_transaction_topic(name, immunity="1h", interval="1h")
    alone = cluster.followers()[0]
    with producer(alone, name, checker=Checker()) as client:
        halves = [send_half(client, name, f"half-{i}")[1] for i in range(5)]
        for node in cluster.nodes:
            node.process.kill()
    for node in cluster.nodes:
        node.kill()
    alone.launch()
    for half in halves:
        try:
            assert alone.transaction(half.transaction_id)["state"] == "open"
        except HttpProblem as problem:
            assert problem.status == 503, problem
    for node in cluster.nodes:
        if node is not alone:
            node.launch()
    cluster.caught_up()


# ---- planned stops ----------------------------------------------------------------------------------------------------------


RECONNECTS_WITHIN_S = 4


def assert_no_send_failed(senders, probes, gone):
    """`gone` are the times, by node, when its process was not there: its port can answer nobody then."""
    def nobody_was_there(probe):
        # gRPC waits for up to some seconds before it tries to connect again, and meanwhile tells what it knows.
        told = "onnection refused" in probe.why or "this node is recovering" in probe.why
        return told and any(
            node == probe.node and since <= probe.ended and probe.began <= until + RECONNECTS_WITHIN_S
            for node, since, until in gone)

    failed = [probe for probe in senders.failed + probes.not_acknowledged() if not nobody_was_there(probe)]
    assert not failed, f"{len(failed)} sends failed, {probes.told()}; nobody was there: {gone}\n" + \
        "\n".join(str(probe)[:400] for probe in failed[:10])


def test_a_leader_that_is_stopped_under_load_fails_no_send(cluster, name):
    cluster.leader().create_topic(name)
    gone = []
    with Senders(cluster, name) as senders, Probes(cluster, name) as probes:
        senders.progress()
        for _ in range(2):
            leader = cluster.leader()
            since = time.monotonic()
            assert leader.stop() == 0
            cluster.leader(but=leader)
            senders.progress()
            leader.start()
            gone.append((leader.id, since, time.monotonic()))
            cluster.caught_up()
    assert_no_send_failed(senders, probes, gone)
    assert_all_came_once(senders, cluster.leader(), name)


def test_leadership_that_is_handed_over_under_load_fails_no_send(cluster, name, figures):
    cluster.leader().create_topic(name)
    with Senders(cluster, name) as senders, Probes(cluster, name) as probes:
        senders.progress()
        for number in range(TRANSFERS):
            leader = cluster.leader()
            to = next(node for node in cluster.nodes if node is not leader)
            by = cluster.nodes[number % len(cluster.nodes)]
            by.admin("cluster", "transfer-leader", "--to", str(to.id))
            assert cluster.leader() is to
            senders.progress(20)
            cluster.caught_up()
    figures(f"leadership was handed over {TRANSFERS} times: longest without an acknowledgement {probes.longest_gap():.2f} s; "
            f"{len(senders.failed)} of {len(senders.sent)} sends of official clients failed, and "
            f"{len(probes.not_acknowledged())} of {len(probes.probes)} that are tried once")
    assert_no_send_failed(senders, probes, [])
    senders.sent += [probe.body for probe in probes.acknowledged()]
    assert_all_came_once(senders, cluster.leader(), name)


def test_a_rolling_restart_under_load_fails_no_send_and_loses_nothing(cluster, name):
    cluster.leader().create_topic(name)
    gone = []
    with Senders(cluster, name) as senders, Probes(cluster, name) as probes:
        senders.progress()
        for node in cluster.nodes:
            since = time.monotonic()
            assert node.stop() == 0
            node.start()
            gone.append((node.id, since, time.monotonic()))
            cluster.caught_up()
            senders.progress()
    assert_no_send_failed(senders, probes, gone)
    assert_all_came_once(senders, cluster.leader(), name)
    cluster.one_log()


def test_a_node_that_is_gone_for_good_is_replaced_under_load(cluster, name):
    cluster.leader().create_topic(name)
    lost = cluster.followers()[0]
    with Senders(cluster, name) as senders, Probes(cluster, name) as probes:
        senders.progress()
        gone = [(lost.id, time.monotonic())]
        lost.kill()
        new = cluster.replace(lost)
        senders.progress()
        # The new one counts: with it and one other there is a majority.
        leader = cluster.leader()
        other = next(node for node in cluster.nodes if node not in (leader, new))
        gone.append((other.id, time.monotonic()))
        other.kill()
        senders.progress(50)
    failed = [probe for probe in senders.failed + probes.not_acknowledged()
              if probe.told != "UNAVAILABLE" or not any(probe.node == node and probe.ended >= at for node, at in gone)]
    assert not failed, "\n".join(str(probe)[:400] for probe in failed[:10])
    assert_all_came_once(senders, new, name)
    other.start()
    cluster.one_log()


# ---- five nodes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True], ids=["asked", "forced"])
@pytest.mark.parametrize("killed", ["with_the_leader", "without_the_leader"])
def test_five_nodes_bear_a_partition_three_losses_and_a_removal_in_quick_order(five_nodes, name, killed, force):
    cluster = five_nodes
    leader = cluster.leader()
    leader.create_topic(name)
    followers = cluster.followers()
    with Probes(cluster, name, deadline_s=4) as probes:
        wait_until(lambda: len(probes.acknowledged()) >= 30, "sends are acknowledged")
        apart, *others = followers
        cluster.isolate(apart)
        victims = [leader, *others[:2]] if killed == "with_the_leader" else others[:3]
        left = next(node for node in cluster.nodes if node is not apart and node not in victims)
        for node in victims:
            node.kill()
        gone = victims[-1]
        removal = left.admin("cluster", "remove", str(gone.id), *["--force"] * force, succeeds=False)
        cluster.network.heal()
        for node in victims:
            node.launch()
        wait_until(lambda: cluster.leads(), "a node leads again", SETTLES_WITHIN_S)
        started = time.monotonic()
        wait_until(lambda: probes.acknowledged(since=started), "sends are acknowledged again", SETTLES_WITHIN_S)
    assert removal.returncode != 0, f"nobody could decide it: {removal.stdout}"

    def one_membership():
        voters = [tuple(node.status()["voters"]) for node in cluster.nodes if node is not gone and node.status()]
        return voters[0] if len(voters) == 4 and len(set(voters)) == 1 else None

    voters = wait_until(one_membership, "all agree who votes", SETTLES_WITHIN_S)
    assert set(voters) in ({1, 2, 3, 4, 5}, {1, 2, 3, 4, 5} - {gone.id}), voters
    removed = gone.id not in voters
    assert not removed or "outcome is unknown" in removal.stderr, f"refused and done: {removal.stderr}"
    if removed:
        assert gone.ended() == 0
    assert_probes_are_true(probes, cluster.leader(), name)
    cluster.one_log()


# ---- sessions ---------------------------------------------------------------------------------------------------------------


def test_members_with_different_tags_at_two_nodes_get_all_of_theirs_when_the_leader_is_lost(cluster, name):
    leader, (one, two) = cluster.leader(), cluster.followers()
    leader.create_topic(name, queues=2)
    of_a, of_b = Listener(), Listener()
    sent = {"a": set(), "b": set()}

    def send(client, count):
        for _ in range(count):
            for tag, ids in sent.items():
                ids.add(client.send(message(name, tag.encode(), tag)).message_id)

    with push_consumer(one, name, name, of_a, "a"), push_consumer(two, name, name, of_b, "b"), \
            producer(one, name) as client:
        send(client, 10)
        wait_until(lambda: len(of_a.deliveries) >= 10 and len(of_b.deliveries) >= 10, "both have some", 20)
        leader.kill()
        send(client, 30)
        cluster.leader(but=leader)
        send(client, 30)
        leader.start()
        send(client, 10)

        def missing():
            came = {"a": {each.message_id for each in of_a.deliveries}, "b": {each.message_id for each in of_b.deliveries}}
            return {tag: len(ids - came[tag]) for tag, ids in sent.items() if ids - came[tag]}

        try:
            wait_until(lambda: not missing(), "everything came", 60)
        except AssertionError:
            raise AssertionError(f"never came: {missing()} of {len(sent['a'])} each") from None
    assert {each.tag for each in of_a.deliveries} == {"a"} and {each.tag for each in of_b.deliveries} == {"b"}


@pytest.mark.parametrize("lost", ["the_leader", "a_follower"])
def test_what_a_lost_node_had_not_told_its_push_consumer_comes_to_it_again(cluster, name, lost):
    """It was leased and never arrived: the consumer lives, and nobody extends that lease, which lasts for a minute."""
    node = cluster.leader() if lost == "the_leader" else cluster.followers()[0]
    other = next(each for each in cluster.nodes if each is not node)
    node.create_topic(name, queues=1)
    listener, way = Listener(), (f"clients of {node}", "a client")
    cluster.network.leads_to(way[0], node.grpc)
    access = SimpleNamespace(grpc=cluster.network.door(*way))
    with push_consumer(access, name, name, listener), producer(other, name) as client:
        client.send(message(name, b"first"))
        wait_until(lambda: listener.deliveries, "it consumes", 20)
        wait_until(lambda: in_flight(other, name) == 0, "that is acknowledged", 20)
        cluster.network.cut(*way)
        receipt = client.send(message(name, b"second"))
        wait_until(lambda: in_flight(other, name) == 1, "the second is on its way", 20)
        node.kill()
        cluster.network.heal(lose=True)
        node.start()
        wait_until(lambda: len(listener.deliveries) > 1, "the second came", 90)
    assert receipt.message_id in {each.message_id for each in listener.deliveries}


def test_what_a_lost_node_had_not_told_its_push_consumer_comes_to_it_again_though_leaders_change_meanwhile(cluster, name):
    """Whoever leads next but one does not extend that lease either: it lasts for a minute."""
    node = cluster.leader()
    other = cluster.followers()[0]
    node.create_topic(name, queues=1)
    node.create_topic(f"{name}-meanwhile")
    listener, way = Listener(), (f"clients of {node}", "a client")
    cluster.network.leads_to(way[0], node.grpc)
    access = SimpleNamespace(grpc=cluster.network.door(*way))
    with push_consumer(access, name, name, listener), producer(other, name, f"{name}-meanwhile") as client:
        client.send(message(name, b"first"))
        wait_until(lambda: listener.deliveries, "it consumes", 20)
        wait_until(lambda: in_flight(other, name) == 0, "that is acknowledged", 20)
        cluster.network.cut(*way)
        receipt = client.send(message(name, b"second"))
        wait_until(lambda: in_flight(other, name) == 1, "the second is on its way", 20)
        leased_at = time.monotonic()
        node.kill()
        cluster.network.heal(lose=True)
        node.start()
        cluster.caught_up()
        # More than the 5 s by the log's time after which a new leader doubts no lease, and before this one ends.
        wait_until(lambda: time.monotonic() - leased_at > 15, "a quarter of the lease is over", 40)
        client.send(message(f"{name}-meanwhile"))
        cluster.leader().admin("cluster", "transfer-leader")
        wait_until(lambda: len(listener.deliveries) > 1, "the second came", 75 - (time.monotonic() - leased_at))
    assert receipt.message_id in {each.message_id for each in listener.deliveries}


def in_flight(node, group):
    return sum(item["in_flight"] for item in node.call("GET", f"/v1/groups/{group}/progress")["items"])


def test_what_a_push_consumer_of_a_lost_node_had_comes_to_another_member(cluster, name):
    leader, (lost, other) = cluster.leader(), cluster.followers()
    leader.create_topic(name, queues=1)
    busy, second, done = threading.Event(), Listener(), threading.Event()

    class Hanging(Listener):
        def consume(self, message):
            busy.set()
            done.wait(180)
            return super().consume(message)

    first = push_consumer(lost, name, name, Hanging())
    first.__enter__()
    try:
        with producer(other, name) as client:
            receipt = client.send(message(name, b"held"))
            wait_until(busy.is_set, "the first member has it", 20)
            lost.kill()
            with push_consumer(other, name, name, second):
                wait_until(lambda: second.deliveries, "it came to the other member", 150, 0.5)
    finally:
        done.set()
        lost.start()
        first.__exit__(None, None, None)
    assert [(each.message_id, each.delivery_attempt) for each in second.deliveries] == [(receipt.message_id, 2)]


def test_what_came_to_a_consumer_before_its_node_was_restarted_is_held_by_nobody_else_while_it_lives(cluster, name):
    """The next leader but one is told of a receive of the same consumer that was lost with the leader between, and gives back
    what that may have leased; what came is not among it."""
    restarted = cluster.leader()
    restarted.create_topic(name, queues=1)
    sender = cluster.followers()[0]
    with raw_client(restarted) as first, raw_client(sender) as send:
        first.heartbeat(ClientType.PUSH_CONSUMER, name)
        assert send.send(raw_message(name, b"held")).status.code == Code.OK
        held = first.receive(name, name, poll_s=5, renew=True)[1]
        assert [each.body for each in held] == [b"held"]
        restarted.kill()
        between = cluster.leader(but=restarted)
        restarted.start()
        wait_until(lambda: restarted.status()["leader"] == between.id, "it knows who leads")
        with raw_client(restarted, first.client_id) as again, ThreadPoolExecutor(1) as pool:
            again.heartbeat(ClientType.PUSH_CONSUMER, name)
            receiving = pool.submit(again.receive, name, name, poll_s=10, renew=True)
            time.sleep(0.3)  # until the leader has it, which nothing tells
            between.pause()
            cluster.leader(but=between)
            assert receiving.result(20)[0].code in UNKNOWN
            between.resume()
            other = next(node for node in cluster.nodes if node not in (restarted, between))
            with raw_client(other) as second:
                for _ in range(3):
                    second.heartbeat(ClientType.PUSH_CONSUMER, name)
                    came = second.receive(name, name, poll_s=3, renew=True)[1]
                    assert not came, f"attempt {came[0].system_properties.delivery_attempt}"
            assert again.ack(name, name, held[0]) == Code.OK
