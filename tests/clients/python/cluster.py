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

    # Small, so that many clusters fit on a disk, however full that is, and segments end while a test runs.
    SIZES = ("--segment-size", "4MiB", "--zero-ahead", "1MiB", "--snapshot-every", "16MiB")

    def __init__(self, id: int, folder: Path, network: Network, disk: Path | None = None):
        folder.mkdir(parents=True)
        super().__init__(folder)
        if disk:
            self.data_dir = disk / "data"
        # A disk that is nobody else's is full as an operator's is.
        self.settings = self.SIZES if disk else (*self.SIZES, "--disk-high-water", "99")
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
        self._spawn(*arguments)
        endpoints = wait_until(self._endpoints, f"{self} wrote endpoints.json", SETTLES_WITHIN_S)
        self.grpc, self.http = endpoints["grpc"], endpoints["http"]
        return self

    def ends(self, *arguments: str) -> int:
        """Starts the process, which is to end by itself; its status."""
        self._spawn(*arguments)
        return self.ended()

    def ended(self) -> int:
        """Waits until the process ends by itself; its status."""
        try:
            return self.process.wait(SETTLES_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} did not end within {SETTLES_WITHIN_S} s:\n{self.log()}") from None

    def _spawn(self, *arguments: str):
        command = [
            str(binary()), "serve", "--data-dir", str(self.data_dir),
            "--grpc-addr", self.grpc, "--http-addr", self.http, "--receive-invisible-min", "1s",
            "--peer-addr", self.peer, "--peer-advertise", self.door, "--peer-insecure", *self.settings, *arguments,
        ]
        with open(self.output, "ab") as output:
            output.write(f"--- {' '.join(command)}\n".encode())
            output.flush()
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

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
    """Nodes 1 to `size`, all of them voters; node 1 leads at first, most likely. `disks`: where their data lies, by node."""

    def __init__(self, folder: Path, size: int = 3, disks: dict[int, Path] | None = None):
        self.network = Network()
        disks = disks or {}
        self.nodes = [Node(id, folder / f"node-{id}", self.network, disks.get(id)) for id in range(1, size + 1)]
        self.removed = []
        self.on_replaced = lambda node: None
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

    def remove(self, node: Node, by: Node | None = None, reason="its disk is gone"):
        """Removes it from the cluster; its process is another matter."""
        (by or self.leader()).admin("cluster", "remove", str(node.id), "--reason", reason)
        self.nodes.remove(node)
        self.removed.append(node)

    def join(self) -> Node:
        """Another node comes; whether it votes is another matter."""
        id = max(node.id for node in self.nodes + self.removed) + 1
        node = Node(id, self.folder / f"node-{id}", self.network)
        self._join(node)
        self.nodes.append(node)
        return node

    def replace(self, lost: Node) -> Node:
        """Removes a node that is not there any more, and lets a new one come."""
        self.remove(lost)
        node = self.join()
        self.all_vote()
        self.on_replaced(node)
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

    def caught_up(self):
        """Waits until all nodes follow the one that leads, closely."""
        def all_follow():
            leader = self.leads()
            status = leader and leader.status()
            others = [each for each in status["nodes"] if each["id"] != leader.id] if status else []
            return others and all(each.get("heard") and each.get("lag_bytes", 1 << 30) < 1 << 20 for each in others)

        wait_until(all_follow, "all nodes follow", SETTLES_WITHIN_S)

    # -- the end ------------------------------------------------------------------------------------------------------

    def log(self, last_bytes: int = 20_000) -> str:
        return "\n".join(f"----- {node}, {node.folder} -----\n{node.log(last_bytes // len(self.nodes))}"
                         for node in self.nodes + self.removed)

    def finish(self):
        """Stops all; each node must stop by itself, and none may have panicked."""
        self.network.heal()
        faults = []
        for node in self.nodes + self.removed:
            if node.paused:
                node.resume()
        # Whoever leads goes first, and hands over; the last one could hand over to nobody.
        leader = self.leads()
        for node in sorted(self.nodes + self.removed, key=lambda node: node is not leader):
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
