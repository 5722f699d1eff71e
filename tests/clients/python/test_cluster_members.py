"""Nodes that are removed from a cluster, and such as only listen: host/docs/cluster.md, as an operator does it, while clients
send, receive and are connected to the node that goes."""

import json
import subprocess
import threading
import time

import grpc
import pytest
from broker import HttpProblem, binary, wait_until
from clients import message, producer
from cluster import SETTLES_WITHIN_S, Cluster
from load import UNKNOWN_OUTCOMES, Probes
from raw import raw_client
from senders import Senders, assert_all_came_once, assert_probes_are_true
from wire import Code

# From when on nobody is ready who knows of no leader (host/docs/cluster.md), and how exactly that is looked at here.
NO_LEADER_AFTER_S, ABOUT_S = 5.0, 2.5


def assert_starts_no_more(node):
    """Neither does `vouch serve` take its folder, nor would it, as `vouch config check` says; both say why and what to do."""
    assert (node.data_dir / "removed").exists()
    length = len(node.log(1 << 30))
    assert node.ends() != 0
    said = node.log(1 << 30)[length:]
    assert "was removed from its cluster" in said and "vouch cluster add" in said and "panicked" not in said, said
    check = subprocess.run([str(binary()), "config", "check", "--data-dir", str(node.data_dir)], capture_output=True, text=True,
                           timeout=30)
    assert check.returncode != 0, f"it says that it would start: {check.stdout}"
    assert "was removed from its cluster" in check.stdout + check.stderr, check.stdout + check.stderr


class Receiver:
    """A consumer of one node, until that is gone."""

    def __init__(self, node, topic):
        self.node, self.topic = node, topic
        self.received, self.ended = 0, None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(20)
        assert not self.thread.is_alive(), "a consumer of a node that is gone hangs"

    def _run(self):
        with raw_client(self.node) as raw:
            while self.ended is None:
                try:
                    status, messages = raw.receive(self.topic, f"{self.topic}-at-it", poll_s=1)
                except grpc.RpcError as problem:
                    self.ended = problem.code().name
                    return
                self.received += len(messages)
                for each in messages:
                    try:
                        raw.ack(self.topic, f"{self.topic}-at-it", each)
                    except grpc.RpcError:
                        break


@pytest.mark.parametrize("which", ["leader", "follower"])
def test_a_node_that_is_removed_under_load_stops_by_itself_and_starts_no_more(cluster, name, figures, which):
    cluster.leader().create_topic(name)
    gone = cluster.leader() if which == "leader" else cluster.followers()[0]
    by = next(node for node in cluster.nodes if node is not gone)
    with Senders(cluster, name) as senders, Probes(cluster, name) as probes, Receiver(gone, name) as receiver:
        senders.progress()
        wait_until(lambda: receiver.received, "a consumer of the node gets messages", 20)
        removed_at = time.monotonic()
        cluster.remove(gone, by, reason="it is sold")
        told_after = time.monotonic() - removed_at
        status = gone.ended()
        ended_after = time.monotonic() - removed_at
        assert status == 0, f"it ended with {status}"
        ended_at = time.monotonic()
        cluster.leader()
        senders.progress()
        for node in cluster.nodes:
            wait_until(lambda: probes.acknowledged(node, ended_at), f"sends at {node} go on", 20)
    assert_starts_no_more(gone)
    assert receiver.ended in ("UNAVAILABLE", "CANCELLED"), receiver.ended
    # What its clients had under way when it went is unknown to them, and they send again elsewhere.
    unknown = {Code.Name(code) for code in UNKNOWN_OUTCOMES}
    failed = [probe for probe in senders.failed + probes.not_acknowledged()
              if probe.node != gone.id or probe.ended < ended_at - 1 and probe.told not in unknown]
    figures(f"removed {which}: the command took {told_after:.2f} s, the node ended {ended_after:.2f} s after it began; longest "
            f"without an acknowledgement {probes.longest_gap():.2f} s; {probes.told()}; {len(failed)} failed")
    at_others = [probe for probe in failed if probe.node != gone.id]
    told = "\n".join(str(probe)[:400] for probe in (at_others or failed)[:5])
    assert not at_others, f"{len(at_others)} sends failed at nodes that stay: {told}"
    assert not failed, f"{len(failed)} sends failed at the node that goes: {told}"
    assert_probes_are_true_with_senders(senders, probes, cluster, name)
    assert [each["id"] for each in cluster.leader().status()["nodes"]] == sorted(cluster.ids())
    cluster.one_log()


def assert_probes_are_true_with_senders(senders, probes, cluster, name):
    """Both sent to one topic."""
    senders.sent += [probe.body for probe in probes.acknowledged()]
    assert_all_came_once(senders, cluster.leader(), name)


def test_a_node_that_was_removed_while_it_was_down_hears_of_it_when_it_is_back(cluster, name, figures):
    cluster.leader().create_topic(name)
    gone = cluster.followers()[0]
    gone.kill()
    cluster.remove(gone)
    with Probes(cluster, name) as probes:
        wait_until(lambda: len(probes.acknowledged()) > 20, "sends are acknowledged")
        began = time.monotonic()
        assert gone.ends() == 0
        figures(f"a node that was removed while it was down ended {time.monotonic() - began:.2f} s after its start")
        assert_starts_no_more(gone)
        came = time.monotonic()
        wait_until(lambda: probes.acknowledged(since=came), "sends go on")
    assert not probes.not_acknowledged(), probes.told()
    assert_probes_are_true(probes, cluster.leader(), name)
    cluster.one_log()


def test_a_node_that_is_cut_off_when_it_is_removed_hears_of_it_when_it_is_reached(cluster, name):
    cluster.leader().create_topic(name)
    gone = cluster.followers()[0]
    cluster.isolate(gone)
    by = next(node for node in cluster.nodes if node is not gone)
    cluster.leader(but=gone)
    cluster.remove(gone, by)
    assert gone.is_running()
    cluster.network.heal()
    assert gone.ended() == 0
    assert_starts_no_more(gone)
    with producer(cluster.leader(), name) as client:
        client.send(message(name))
    cluster.one_log()


# ---- a node that only listens ---------------------------------------------------------------------------------------------


def readiness(node):
    """Whether it is ready; else the type of the problem that it tells."""
    try:
        node.call("GET", "/readyz")
        return True
    except HttpProblem as problem:
        assert problem.status == 503, problem
        return problem.body["type"] if isinstance(problem.body, dict) else json.loads(problem.body)["type"]


@pytest.fixture
def with_a_learner(request, tmp_path):
    """One voter or three, and one more that makes them an even number."""
    nodes = Cluster(tmp_path, request.param)
    try:
        yield nodes.start()
    finally:
        nodes.finish()


def role_of(cluster, node):
    known = cluster.leader().knows_of(node.id)
    return known and known["role"]


@pytest.mark.parametrize("with_a_learner", [1], indirect=True)
def test_a_learner_says_that_nobody_leads_while_the_only_voter_is_lost_and_is_ready_again(with_a_learner, name, figures):
    cluster = with_a_learner
    leader = cluster.leader()
    leader.create_topic(name)
    learner = cluster.join()
    wait_until(lambda: role_of(cluster, learner) == "learner", "it listens", SETTLES_WITHIN_S)
    wait_until(learner.ready, "it is ready", SETTLES_WITHIN_S)
    for lose, back in ((leader.kill, leader.start), (leader.pause, leader.resume),
                       (lambda: cluster.isolate(leader), cluster.network.heal)):
        lost_at = time.monotonic()
        lose()
        wait_until(lambda: readiness(learner) == "urn:vouch:error:no-leader", "it says that nobody leads", 20)
        after = time.monotonic() - lost_at
        back()
        back_at = time.monotonic()
        wait_until(lambda: readiness(learner) is True, "it is ready again", 20)
        figures(f"a learner said that nobody leads {after:.2f} s after the leader was lost, and was ready "
                f"{time.monotonic() - back_at:.2f} s after it was back")
        assert NO_LEADER_AFTER_S <= after <= NO_LEADER_AFTER_S + ABOUT_S + 2, f"after {after:.1f} s"
        with producer(learner, name) as client:
            client.send(message(name))


@pytest.mark.parametrize("with_a_learner", [3], indirect=True)
def test_a_learner_follows_the_next_leader_and_votes_when_another_node_comes(with_a_learner, name):
    cluster = with_a_learner
    leader = cluster.leader()
    leader.create_topic(name)
    learner = cluster.join()
    wait_until(lambda: role_of(cluster, learner) == "learner", "it listens", SETTLES_WITHIN_S)
    wait_until(learner.ready, "it is ready", SETTLES_WITHIN_S)
    with Probes(cluster, name) as probes:
        wait_until(lambda: probes.acknowledged(learner), "its clients send")
        leader.kill()
        another = cluster.leader(but=leader)
        assert another is not learner
        lost_at = time.monotonic()
        wait_until(lambda: probes.acknowledged(learner, lost_at), "its clients send again")
        leader.start()
        cluster.join()
        cluster.all_vote()
    told = {probe.told for probe in probes.not_acknowledged() if probe.node == learner.id}
    assert told <= {"MASTER_PERSISTENCE_TIMEOUT", "SLAVE_PERSISTENCE_TIMEOUT", "HA_NOT_AVAILABLE"}, probes.told()
    assert_probes_are_true(probes, learner, name)
    cluster.one_log()
