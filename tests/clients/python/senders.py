"""Official producers on all nodes, and whether what senders were told is true."""

import threading
import time
from collections import Counter

from broker import wait_until
from clients import LONG_LEASE, message, producer, simple_consumer
from load import Probe, outcome_of


class Senders:
    """Official producers, one at each node."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic = cluster, topic
        self.sent, self.failed = [], []
        self.sending = threading.Event()

    def __enter__(self):
        self.sending.set()
        self.threads = [threading.Thread(target=self._send, args=(node,), daemon=True) for node in self.cluster.nodes]
        for thread in self.threads:
            thread.start()
        return self

    def _send(self, node):
        with producer(node, self.topic) as client:
            number = 0
            while self.sending.is_set():
                number += 1
                probe = Probe(node.id, f"from-{node.id}-{number}", time.monotonic())
                try:
                    client.send(message(self.topic, probe.body.encode()))
                    self.sent.append(probe.body)
                    time.sleep(0.02)
                except Exception as problem:
                    probe.ended, probe.told, probe.why = time.monotonic(), outcome_of(problem), str(problem)
                    self.failed.append(probe)
                    time.sleep(0.1)

    def __exit__(self, *_):
        self.sending.clear()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive(), "a producer hangs"

    def progress(self, sends=100):
        before = len(self.sent)
        wait_until(lambda: len(self.sent) >= before + sends, f"{sends} more sends", 30)


def received_by(node, group, topic, wanted):
    """Bodies that a new group receives, until all of `wanted` came and then nothing more."""
    bodies, missing = [], set(wanted)
    with simple_consumer(node, group, topic, poll=1) as consumer:
        quiet_since = time.monotonic()
        # However many there are: it goes on for as long as some come.
        while time.monotonic() - quiet_since < (60 if missing else 2):
            try:
                received = consumer.receive(32, LONG_LEASE)
            except Exception:
                continue
            for each in received:
                body = each.body.decode()
                bodies.append(body)
                missing.discard(body)
                consumer.ack(each)
                quiet_since = time.monotonic()
    return bodies


def assert_probes_are_true(probes, node, group, full=False):
    """What the probes were told is what is stored."""
    bodies = received_by(node, group, probes.topic, {probe.body for probe in probes.acknowledged()})
    faults = probes.faults(bodies, full)
    assert not faults, f"{len(faults)} faults; {probes.told()}\n" + "\n".join(faults[:20])


def assert_all_came_once(senders, node, group):
    """What the producers were told is stored, is, and nothing twice."""
    bodies = received_by(node, group, senders.topic, set(senders.sent))
    lost, twice = set(senders.sent) - set(bodies), [body for body, count in Counter(bodies).items() if count > 1]
    assert not lost and not twice, f"lost {lost}, stored twice {twice}"
