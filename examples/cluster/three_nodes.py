"""Three nodes on one machine under load, and the one that leads killed again and again: what became of every message.

Needs Python 3.9 and the broker, nothing else. Everything it writes is in one folder, which must not exist yet."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

TOPIC = "orders"
GROUP = "shipping"

# Seconds.
STARTED_WITHIN = 30
ELECTED_WITHIN = 30
SENT_WITHIN = 60
BETWEEN_LOSSES = 3


class Node:
    """One node of the cluster: a process with a folder of its own."""

    def __init__(self, vouch, folder, name):
        self.vouch, self.folder, self.name = vouch, folder / name, name
        self.process = None
        # Chosen by the system at the first start, and kept: clients and the other nodes know them.
        self.addresses = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "peer": "127.0.0.1:0"}

    def start(self, *joins):
        command = [self.vouch, "serve", "--data-dir", self.folder / "data", "--peer-insecure", *joins]
        for kind, address in self.addresses.items():
            command += [f"--{kind}-addr", address]
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.addresses = wait_for(self._endpoints, f"{self.name} says where it listens", STARTED_WITHIN)
        wait_for(self.is_ready, f"{self.name} is ready", STARTED_WITHIN)

    def _endpoints(self):
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended; see {self.folder / 'log'}")
        try:
            said = json.loads((self.folder / "data" / "endpoints.json").read_text())
        except (OSError, ValueError):
            return None
        # A killed process leaves its file behind.
        return {kind: said[kind] for kind in self.addresses} if said["pid"] == self.process.pid else None

    def is_ready(self):
        return self.get("/readyz") is not None

    def get(self, path):
        """What the node answers; None if it does not, or not well."""
        try:
            with urllib.request.urlopen(f"http://{self.addresses['http']}{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def run(self, *arguments):
        """A command of the broker's, against this node."""
        return subprocess.run(
            [self.vouch, *arguments], capture_output=True, text=True,
            env={**os.environ, "VOUCH_HTTP_ADDR": self.addresses["http"], "VOUCH_GRPC_ADDR": self.addresses["grpc"]})

    def must(self, *arguments):
        done = self.run(*arguments)
        if done.returncode != 0:
            sys.exit(f"vouch {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def wait_for(condition, what, within):
    end = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"after {within} s still not so: {what}")
        time.sleep(0.02)
    return found


def leader_of(nodes):
    """The node that leads, as one that follows says; only one that is alive can say."""
    for node in nodes:
        if node.process.poll() is None and (cluster := node.get("/v1/cluster")) and cluster["leader"]:
            leader = nodes[cluster["leader"] - 1]
            if leader.process.poll() is None:
                return leader
    return None


def begin(vouch, folder):
    """The first node is alone; the others come with a token each."""
    nodes = [Node(vouch, folder, f"node-{number}") for number in (1, 2, 3)]
    first = nodes[0]
    first.start()
    first.must("topic", "create", TOPIC)
    for node in nodes[1:]:
        token = folder / f"{node.name}.token"
        print(first.must("cluster", "add", "--token-file", token).splitlines()[0])
        node.start("--join", first.addresses["peer"], "--token-file", token)
    voting = lambda: (cluster := first.get("/v1/cluster")) and len(cluster["voters"]) == 3
    wait_for(voting, "all three vote", ELECTED_WITHIN)
    return nodes


class Sender(threading.Thread):
    """Sends through one node, whether that leads or not. What was not acknowledged is sent again: it may have been stored, and
    come twice then."""

    def __init__(self, node, acknowledged):
        super().__init__()
        self.node, self.acknowledged = node, acknowledged
        self.is_over = threading.Event()
        self.longest = 0.0

    def run(self):
        count = 0
        while not self.is_over.is_set():
            count += 1
            order = f"{self.node.name}-{count}"
            began = time.monotonic()
            while time.monotonic() - began < SENT_WITHIN:
                sent = self.node.run("message", "send", TOPIC, "--key", order, "--body", order)
                if sent.returncode == 0:
                    self.acknowledged.append(order)
                    self.longest = max(self.longest, time.monotonic() - began)
                    break
                time.sleep(0.05)


def received(node):
    """All orders that come, and how often each does."""
    lines = node.must("message", "receive", TOPIC, "--group", GROUP, "--count", "1000000", "--wait", "3s", "--json")
    return Counter(json.loads(line)["body"] for line in lines.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vouch", default="target/release/vouch", help="the broker")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vouch-cluster"), help="where all of it goes")
    parser.add_argument("--losses", type=int, default=3, help="how often the node that leads is killed")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    nodes = begin(str(Path(arguments.vouch).resolve()), arguments.folder)
    print(nodes[1].must("cluster", "status"))

    acknowledged = []
    senders = [Sender(node, acknowledged) for node in nodes]
    for loss in range(arguments.losses):
        leader = wait_for(lambda: leader_of(nodes), "somebody leads", ELECTED_WITHIN)
        if loss == 0:
            [sender.start() for sender in senders]
        time.sleep(BETWEEN_LOSSES)
        before = len(acknowledged)
        leader.kill()
        began = time.monotonic()
        successor = wait_for(lambda: leader_of(nodes), "another leads", ELECTED_WITHIN)
        print(f"{leader.name} led and was killed with {before} messages acknowledged; "
              f"{successor.name} leads {time.monotonic() - began:.1f} s later")
        leader.start()
    time.sleep(BETWEEN_LOSSES)
    for sender in senders:
        sender.is_over.set()
    for sender in senders:
        sender.join()

    found = received(nodes[0])
    lost = set(acknowledged) - set(found)
    twice = sum(times > 1 for times in found.values())
    longest = max(sender.longest for sender in senders)
    print(f"{len(acknowledged)} messages were acknowledged, the slowest after {longest:.1f} s; "
          f"{len(found)} came, {len(lost)} are lost, {twice} came more than once")
    for node in nodes:
        node.stop()
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
