"""Several real broker processes that are one cluster, made and looked after as an operator does it."""

import os
import random
import signal
import socket
import subprocess
from pathlib import Path

from broker import Broker, HttpProblem, binary, wait_until
from network import Network

# Longer than this nobody may be without a leader, in seconds; 0: it is told and not held against anything. A busy machine
# tells nothing of that.
LEADERLESS_AT_MOST_S = float(os.environ.get("VOUCH_LEADERLESS_AT_MOST", "0"))
# For waits after which something is wrong: a machine that is busy with other tests is slow.
SETTLES_WITHIN_S = 30.0
COMMAND_DEADLINE_S = 60


# Below those that the system gives to whoever asks for any: nobody gets the port of a node that is down.
PORTS = range(15_000, 32_000)
_given = set()


def free_address() -> str:
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return f"127.0.0.1:{port}"


class Node(Broker):
    """One of them. Others reach it through its door in the network, clients directly."""

    def __init__(self, id: int, folder: Path, network: Network):
        folder.mkdir(parents=True)
        super().__init__(folder)
        self.id = id
        self.network = network
        self.folder = folder
        self.door = network.door(id)
        # Chosen here: who joins is reached through its door before it tells its ports.
        self.grpc, self.http, self.peer = free_address(), free_address(), free_address()
        network.leads_to(id, self.peer)
        self.paused = False

    def __repr__(self):
        return f"node {self.id}"

    def launch(self, *arguments: str) -> "Node":
        """Starts the process and waits until it has its ports; whether there is a leader is another matter."""
        command = [
            str(binary()), "serve", "--data-dir", str(self.data_dir),
            "--grpc-addr", self.grpc, "--http-addr", self.http, "--receive-invisible-min", "1s",
            "--peer-addr", self.peer, "--peer-advertise", self.door, "--peer-insecure",
            # Small, so that many clusters fit on a disk, however full that is, and segments end while a test runs.
            "--segment-size", "4MiB", "--zero-ahead", "1MiB", "--disk-high-water", "99", *arguments,
        ]
        with open(self.output, "ab") as output:
            output.write(f"--- {' '.join(command)}\n".encode())
            output.flush()
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        endpoints = wait_until(self._endpoints, f"{self} wrote endpoints.json", SETTLES_WITHIN_S)
        self.grpc, self.http = endpoints["grpc"], endpoints["http"]
        return self

    def start(self, *arguments: str) -> "Node":
        self.launch(*arguments)
        wait_until(self.ready, f"{self} is ready", SETTLES_WITHIN_S)
        return self

    def pause(self):
        """SIGSTOP: it is there and says nothing."""
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def kill(self):
        super().kill()
        self.paused = False

    def answers(self) -> bool:
        return self.is_running() and not self.paused

    def status(self):
        """`/v1/cluster` as this node tells it; nothing where it does not answer."""
        try:
            return self.call("GET", "/v1/cluster") if self.answers() else None
        except (HttpProblem, OSError):
            return None

    def knows_of(self, other: int):
        status = self.status()
        return next((each for each in status["nodes"] if each["id"] == other), None) if status else None

    def admin(self, *arguments: str, succeeds=True) -> subprocess.CompletedProcess:
        """A command of `vouch` against this node's HTTP API."""
        done = subprocess.run([str(binary()), *arguments, "--http", self.http], capture_output=True, text=True,
                              timeout=COMMAND_DEADLINE_S)
        assert not succeeds or done.returncode == 0, f"vouch {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done


class Cluster:
    """Nodes 1 to `size`, all of them voters; node 1 leads at first, most likely."""

    def __init__(self, folder: Path, size: int = 3):
        self.network = Network()
        self.nodes = [Node(id, folder / f"node-{id}", self.network) for id in range(1, size + 1)]
        self.folder = folder

    def start(self) -> "Cluster":
        self.nodes[0].start()
        for node in self.nodes[1:]:
            self._join(node)
        self.all_vote()
        return self

    def _join(self, node: Node):
        by = self.leader()
        token = self.folder / f"node-{node.id}.token"
        by.admin("cluster", "add", "--token-file", str(token))
        node.launch("--join", by.door, "--token-file", str(token))

    def all_vote(self):
        ids = self.ids()
        wait_until(lambda: all((status := node.status()) and status["voters"] == ids for node in self.nodes), "all vote",
                   SETTLES_WITHIN_S)
        for node in self.nodes:
            wait_until(node.ready, f"{node} is ready", SETTLES_WITHIN_S)

    def replace(self, lost: Node, new_id: int) -> Node:
        """Removes a node that is not there any more, and lets a new one come."""
        self.leader().admin("cluster", "remove", str(lost.id), "--reason", "its disk is gone")
        self.nodes.remove(lost)
        node = Node(new_id, self.folder / f"node-{new_id}", self.network)
        self._join(node)
        self.nodes.append(node)
        self.all_vote()
        return node

    def ids(self):
        return [node.id for node in self.nodes]

    def answering(self):
        return [node for node in self.nodes if node.answers()]

    # -- who leads ----------------------------------------------------------------------------------------------------

    def leads(self):
        """The node that says of itself that it leads, of the latest term that anybody knows; or nothing."""
        statuses = [(node, status) for node in self.answering() if (status := node.status())]
        latest = max((status["term"] for _, status in statuses), default=0)
        return next((node for node, status in statuses if status["leader"] == node.id and status["term"] == latest), None)

    def leader(self, but: Node | None = None, deadline_s: float = SETTLES_WITHIN_S) -> Node:
        """Whoever leads, and is not `but`; waits for it."""
        def another():
            node = self.leads()
            return node if node is not but else None

        return wait_until(another, f"a node leads{f' that is not {but}' if but else ''}", deadline_s)

    def followers(self):
        leader = self.leader()
        return [node for node in self.answering() if node is not leader]

    def isolate(self, node: Node):
        """Neither it nor the others hear each other."""
        self.network.isolate(node.id, self.ids())

    # -- how far they are ---------------------------------------------------------------------------------------------

    def positions(self):
        """Of each node that answers, what it says of its own log."""
        told = {}
        for node in self.answering():
            own = node.knows_of(node.id) or {}
            told[node.id] = tuple(own.get(what) for what in ("appended", "durable", "committed", "applied"))
        return told

    def one_log(self, deadline_s: float = SETTLES_WITHIN_S):
        """Waits until all that answer have the same log, all of it committed and applied; nothing may be written
        meanwhile. Returns its position."""
        last = {}

        def equal():
            last.clear()
            last.update(self.positions())
            positions = {position for node in last.values() for position in node}
            return positions.pop() if len(positions) == 1 and None not in positions else None

        try:
            return wait_until(equal, "all nodes have the same log", deadline_s)
        except AssertionError as late:
            raise AssertionError(f"{late}; appended, durable, committed, applied: {last}") from None

    # -- the end ------------------------------------------------------------------------------------------------------

    def log(self, last_bytes: int = 20_000) -> str:
        return "\n".join(f"----- {node}, {node.folder} -----\n{node.log(last_bytes // len(self.nodes))}"
                         for node in self.nodes)

    def finish(self):
        """Stops all; each node must stop by itself, and none may have panicked."""
        self.network.heal()
        faults = []
        for node in self.nodes:
            if node.paused:
                node.resume()
        # Whoever leads goes first, and hands over; the last one could hand over to nobody.
        leader = self.leads()
        for node in sorted(self.nodes, key=lambda node: node is not leader):
            if node.is_running():
                try:
                    status = node.stop()
                except AssertionError as late:
                    faults.append(f"{node}: {late}")
                else:
                    if status != 0:
                        faults.append(f"{node} ended with status {status} after SIGTERM")
            if "panicked at" in node.log(1 << 30):
                faults.append(f"{node} panicked")
        self.network.close()
        for room in self.folder.glob("node-*/data/shards/*/snapshots/*.room"):
            room.unlink()  # kept for later, and much of it: nothing to look at
        assert not faults, "\n".join(faults) + "\n" + self.log()
