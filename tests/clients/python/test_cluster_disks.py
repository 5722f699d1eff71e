"""Three nodes whose disks fill up, hang and fail, each a file system of its own: host/docs/replication.md, and the bounds of
host/docs/retention.md where one of several is full. For root; `tests/run 'python: clusters on disks'`.
"""

import itertools
import threading
import time
from contextlib import ExitStack

import disks as small_disks
import pytest
from broker import wait_until
from clients import Checker, producer, send_half, simple_consumer
from cluster import Cluster
from load import Probes
from raw import RawClient, raw_client, raw_message
from senders import assert_probes_are_true
from wire import Code

# Longer than this nobody leads on a quiet machine; one that is busy with other tests is slow.
GOES_ON_WITHIN_S = 20
HUNG_FOR_S = 6
# A sender of these tests waits for so long.
DEADLINE_S = 5.0


@pytest.fixture(scope="session")
def obstacle():
    return small_disks.obstacle()


@pytest.fixture
def cluster(tmp_path, obstacle):
    if obstacle:
        pytest.skip(obstacle)
    with ExitStack() as disks:
        of = {id: disks.enter_context(small_disks.Disk(tmp_path / f"disk-{id}")) for id in (1, 2, 3)}
        nodes = Cluster(tmp_path, disks={id: disk.root for id, disk in of.items()})
        nodes.disks = of
        try:
            yield nodes.start()
        finally:
            nodes.finish()


def disk_of(cluster, node):
    return cluster.disks[node.id]


def is_full(node):
    return "\nvouch_disk_full 1\n" in node.call("GET", "/metrics")


def sends(probes, node=None, count=10):
    """Waits until sends that begin now are acknowledged."""
    since = time.monotonic()
    wait_until(lambda: len(probes.acknowledged(node, since)) >= count, f"sends {f'at {node} ' if node else ''}are acknowledged",
               GOES_ON_WITHIN_S)


class Enders:
    """End transactions and acknowledge messages that were there before, one after the other and at each node in turn: none of
    that may fail, whatever becomes of sends."""

    COUNT = 600

    def __init__(self, cluster, name, nodes=None):
        self.cluster, self.name = cluster, name
        self.ended, self.acked, self.failed = 0, 0, []
        self.longest_s = 0.0
        leader = cluster.leader()
        leader.create_transaction_topic(f"{name}-tx", immunity="1h", interval="1h")
        leader.create_topic(f"{name}-held", queues=1)
        self.clients = [RawClient(node) for node in nodes or cluster.nodes]
        with producer(leader, f"{name}-tx", checker=Checker()) as client:
            halves = [send_half(client, f"{name}-tx", f"half-{i}")[1] for i in range(self.COUNT)]
        with raw_client(leader) as raw:
            for first in range(0, self.COUNT, 30):
                raw.send(*(raw_message(f"{name}-held", f"held-{first + i}".encode()) for i in range(30)))
        with simple_consumer(leader, f"{name}-held", f"{name}-held") as consumer:
            held = []
            while len(held) < self.COUNT:
                held += consumer.receive(32, 600)
        self.work = [(half.transaction_id, half.message_id, each) for half, each in zip(halves, held)]
        self.running = threading.Event()

    def __enter__(self):
        self.running.set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.running.clear()
        self.thread.join(30)
        assert not self.thread.is_alive(), "an end or an acknowledgement hangs"
        for client in self.clients:
            client.channel.close()

    def _run(self):
        turns = itertools.cycle(self.clients)
        for (transaction, message, held), client in zip(self.work, turns):
            if not self.running.is_set():
                return
            self.ended += self._again(f"end of {transaction}", lambda: client.end(f"{self.name}-tx", message, transaction))
            self.acked += self._again(f"ack of {held.message_id}",
                                      lambda: client.ack(f"{self.name}-held", f"{self.name}-held", held))
            time.sleep(0.03)

    def _again(self, what, call):
        """A client tries three times; what nobody knows, it does again."""
        began, told = time.monotonic(), []
        for _ in range(3):
            try:
                code = call()
                told.append(Code.Name(code))
                if code == Code.OK:
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    return 1
            except Exception as problem:
                told.append(f"{type(problem).__name__}: {problem}"[:200])
        self.failed.append(f"{what}: {told}")
        return 0

    def go_on(self, count=30):
        ended, acked = self.ended, self.acked
        wait_until(lambda: self.ended >= ended + count and self.acked >= acked + count or not self.thread.is_alive(),
                   "ends and acknowledgements go on", GOES_ON_WITHIN_S)
        assert not self.failed, f"{len(self.failed)} failed: {self.failed[:5]}"
        assert self.thread.is_alive(), "there were too few"

    def told(self):
        return f"{self.ended} ends and {self.acked} acknowledgements, longest {self.longest_s:.2f} s"


def send_much(node, topic, mib):
    """Bodies of a quarter of a MiB; each is acknowledged."""
    with raw_client(node) as raw:
        for number in range(mib * 4):
            answer = raw.send(raw_message(topic, bytes([number % 256]) * (256 << 10)))
            assert answer.status.code == Code.OK, answer.status


# ---- full -----------------------------------------------------------------------------------------------------------------


def test_a_leader_whose_disk_is_full_lets_another_one_lead_ends_go_on_and_it_votes_and_catches_up(cluster, name, figures):
    cluster.leader().create_topic(name)
    cluster.leader().create_topic(f"{name}-much")
    with Enders(cluster, name) as enders, Probes(cluster, name, DEADLINE_S) as probes:
        full = cluster.leader()
        sends(probes)
        filled_at = time.monotonic()
        disk_of(cluster, full).fill()
        leader = cluster.leader(but=full)
        led_after = time.monotonic() - filled_at
        sends(probes)
        sends(probes, full)
        enders.go_on()
        wait_until(lambda: is_full(full), "it says that it is full")
        assert "high-water mark" in full.log() and not is_full(leader)

        # It takes no more than it has room for, and its leader does not take it for lost.
        send_much(leader, f"{name}-much", 12)
        wait_until(lambda: cluster.leader().knows_of(full.id)["lag_bytes"] > 4 << 20, "it falls behind")
        assert cluster.leader().knows_of(full.id)["heard"]
        enders.go_on()

        # It votes: of the other two one is there.
        leader = cluster.leader()
        term = leader.status()["term"]
        killed_at = time.monotonic()
        leader.kill()
        other = cluster.leader(but=leader)
        assert other is not full and other.status()["term"] > term, "it has not all that is committed, and voted"
        leader.start()
        sends(probes)
        back_at = time.monotonic()
        assert not enders.failed or all("held" not in each for each in enders.failed), enders.failed
        disk_of(cluster, full).empty()
        emptied_at = time.monotonic()
        wait_until(lambda: not is_full(full), "it has room")
        cluster.caught_up()
        caught_up_after = time.monotonic() - emptied_at
        enders.failed.clear()
    failed = [probe for probe in probes.not_acknowledged() if probe.began > filled_at]
    # With one full and one away sends would take the room of ends and acknowledgements, and are refused.
    late = [probe for probe in failed if probe.told == "TOO_MANY_REQUESTS" and probe.ended > filled_at + led_after + 1
            and not killed_at < probe.ended < back_at]
    assert not late, f"{len(late)} were refused for want of room though one leads that has some: {late[:5]}"
    figures(f"full leader: another one led after {led_after:.2f} s; longest without an acknowledgement "
            f"{probes.longest_gap():.2f} s; sends {probes.told()}; {enders.told()}; caught up {caught_up_after:.2f} s after "
            f"there was room; {len(failed)} not acknowledged")
    assert_probes_are_true(probes, full, name, full=True)
    cluster.one_log()


def test_a_follower_whose_disk_is_full_stops_nobody_and_catches_up(cluster, name, figures):
    cluster.leader().create_topic(name)
    leader, (full, _) = cluster.leader(), cluster.followers()
    leader.create_topic(f"{name}-much")
    term = leader.status()["term"]
    with Probes(cluster, name, DEADLINE_S) as probes:
        sends(probes)
        filled_at = time.monotonic()
        disk_of(cluster, full).fill()
        wait_until(lambda: is_full(full), "it says that it is full")
        send_much(full, f"{name}-much", 12)  # others have room for that
        wait_until(lambda: leader.knows_of(full.id)["lag_bytes"] > 4 << 20, "it falls behind")
        sends(probes, full)
        assert leader.knows_of(full.id)["heard"]
        disk_of(cluster, full).empty()
        cluster.caught_up()
        sends(probes, full)
    failed = [probe for probe in probes.not_acknowledged() if probe.began > filled_at]
    assert not failed, f"{len(failed)} sends failed: {failed[:5]}"
    assert (cluster.leader(), leader.status()["term"]) == (leader, term)
    assert f"the disk of a node is at its high-water mark: it will fall behind node={full.id}" in leader.log(), leader.log()
    figures(f"full follower: longest without an acknowledgement {probes.longest_gap():.2f} s")
    assert_probes_are_true(probes, full, name)
    cluster.one_log()


def test_while_a_majority_is_full_sends_are_refused_at_once_and_ends_and_acknowledgements_go_on(cluster, name, figures):
    cluster.leader().create_topic(name)
    with Enders(cluster, name) as enders:
        for node in cluster.nodes:
            disk_of(cluster, node).fill()
        wait_until(lambda: all(is_full(node) for node in cluster.nodes), "all say that they are full")

        def refused(node):
            with raw_client(node) as raw:
                began = time.monotonic()
                status = raw.send(raw_message(name)).status
                took = time.monotonic() - began
            assert took < 2, f"{Code.Name(status.code)} after {took:.1f} s"
            return status.code == Code.TOO_MANY_REQUESTS

        for node in cluster.nodes:
            wait_until(lambda: refused(node), f"sends at {node} are refused")
        enders.go_on()  # what filled the disks kept them busy: one was taken for one that hangs, maybe
        term = cluster.leader().status()["term"]
        enders.go_on(100)
        assert cluster.leader().status()["term"] == term, "nobody has room, so nobody is better"
        for node in cluster.nodes:
            assert refused(node)
            disk_of(cluster, node).empty()
        with raw_client(cluster.leader()) as raw:
            wait_until(lambda: raw.send(raw_message(name)).status.code == Code.OK, "sends are taken again", GOES_ON_WITHIN_S)
        enders.go_on()
    figures(f"all full: {enders.told()}")
    cluster.one_log()


def test_while_one_is_down_and_another_full_sends_are_refused_and_ends_and_acknowledgements_go_on(cluster, name):
    """A majority has room for what ends something, in what the full one keeps for that, and sends leave it alone."""
    cluster.leader().create_topic(name)
    leader, (down, full) = cluster.leader(), cluster.followers()
    with Enders(cluster, name, [leader, full]) as enders, raw_client(leader) as raw:
        down.kill()
        disk_of(cluster, full).fill()
        wait_until(lambda: is_full(full), "it says that it is full")
        wait_until(lambda: f"it will fall behind node={full.id}" in leader.log(), "the leader has heard of it")
        for number in range(16):
            status = raw.send(raw_message(name, bytes([number]) * (256 << 10))).status
            assert status.code in (Code.OK, Code.TOO_MANY_REQUESTS), f"send {number} after all: {status}"
        assert status.code == Code.TOO_MANY_REQUESTS, status
        enders.go_on(100)
        disk_of(cluster, full).empty()
        wait_until(lambda: raw.send(raw_message(name)).status.code == Code.OK, "sends are taken again", GOES_ON_WITHIN_S)
    down.start()
    cluster.one_log()


# ---- hanging --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["frozen", "hanging"])
@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_a_disk_that_hangs_stops_nobody_but_its_node_which_follows_when_it_goes_on(cluster, name, figures, whose, how):
    cluster.leader().create_topic(name)
    leader = cluster.leader()
    hung = leader if whose == "leader" else cluster.followers()[0]
    others = [node for node in cluster.nodes if node is not hung]
    with Probes(cluster, name, DEADLINE_S) as probes:
        sends(probes)
        with getattr(disk_of(cluster, hung), how)():
            hung_at = time.monotonic()
            if whose == "leader":
                wait_until(lambda: any(node.status()["leader"] not in (hung.id, None) for node in others), "another one leads",
                           GOES_ON_WITHIN_S)
                led_after = time.monotonic() - hung_at
            else:
                led_after = 0
            for node in others:
                sends(probes, node)
            goes_on_after = min(probe.ended for probe in probes.acknowledged() if probe.began > hung_at) - hung_at
            wait_until(lambda: time.monotonic() - hung_at > HUNG_FOR_S, "it hangs for a while")
        thawed_at = time.monotonic()
        sends(probes, hung)
        cluster.caught_up()
        caught_up_after = time.monotonic() - thawed_at
    late = [probe for probe in probes.not_acknowledged() if probe.told == "DEADLINE_EXCEEDED"]
    late_elsewhere = [probe for probe in late if probe.node != hung.id]
    figures(f"{how} disk of the {whose}: another one led after {led_after:.2f} s, the first send that began then was "
            f"acknowledged after {goes_on_after:.2f} s; longest without an acknowledgement {probes.longest_gap():.2f} s; "
            f"{probes.told()}; {len(late)} heard nothing within {DEADLINE_S} s, {len(late_elsewhere)} of them at other nodes; "
            f"followed {caught_up_after:.2f} s after it went on")
    assert not late_elsewhere, f"{len(late_elsewhere)} heard nothing within their deadline: {late_elsewhere[:5]}"
    if whose == "follower":
        failed = [probe for probe in probes.not_acknowledged() if probe.node != hung.id]
        assert not failed, f"{len(failed)} failed at nodes whose disks are sound: {failed[:5]}"
        assert cluster.leader() is leader
    assert_probes_are_true(probes, hung, name)
    cluster.one_log()
    assert not late, f"{len(late)} heard nothing within their deadline at the node whose disk hangs: {late[:5]}"


# ---- failing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_a_disk_that_fails_takes_its_node_out_and_nothing_that_was_acknowledged(cluster, name, figures, whose):
    """S5.f: a failed sync ends what its node acknowledges; another one leads, and the node is as good as new when it starts on a
    sound disk."""
    cluster.leader().create_topic(name)
    failed = cluster.leader() if whose == "leader" else cluster.followers()[0]
    others = [node for node in cluster.nodes if node is not failed]
    with Probes(cluster, name, DEADLINE_S) as probes:
        sends(probes)
        with disk_of(cluster, failed).failing():
            failed_at = time.monotonic()
            for node in others:
                sends(probes, node)
            goes_on_after = min(probe.ended for probe in probes.acknowledged() if probe.began > failed_at) - failed_at
            assert cluster.leader() is not failed
            was = failed.process.poll(), failed.status() and failed.status()["leader"]
        if failed.is_running():
            failed.kill()
        failed.start()
        sends(probes, failed)
        cluster.caught_up()
    late = [probe for probe in probes.not_acknowledged() if probe.told == "DEADLINE_EXCEEDED"]
    figures(f"failing disk of the {whose}: acknowledged again after {goes_on_after:.2f} s; longest without an acknowledgement "
            f"{probes.longest_gap():.2f} s; {probes.told()}; {len(late)} heard nothing within {DEADLINE_S} s; its status, and "
            f"who led as it told: {was}")
    assert not late, f"{len(late)} heard nothing within their deadline: {late[:5]}"
    assert_probes_are_true(probes, failed, name)
    cluster.one_log()
    refused = [probe for probe in probes.not_acknowledged() if probe.node != failed.id and probe.told == "HA_NOT_AVAILABLE"
               and probe.took() < 2]
    assert not refused, f"{len(refused)} were refused at sound nodes, whose calls wait for a leader for 2.5 s: {refused[:5]}"
