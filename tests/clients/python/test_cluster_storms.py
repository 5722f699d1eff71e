"""Faults of all kinds in quick order, for as long as somebody wants: whatever any client was told has to be true.

Three nodes, of which a majority bears the loss of one, and five, of which two may go at once. Settings: VOUCH_STORMS (0; how
many faults there are, one after the other; none: both tests are left out), VOUCH_SEED (what the load and the faults are; told
when a test fails). Count with 5 s for each fault, and with a minute or two at the end, in which everything must come.
"""

import os
import shutil
import time

import pytest
from broker import wait_until
from under_load import under_load

STORMS = int(os.environ.get("VOUCH_STORMS", 0))


@pytest.mark.skipif(not STORMS, reason="VOUCH_STORMS says how many faults of all kinds there are")
@pytest.mark.parametrize("cluster", [3, 5], indirect=True, ids=["three_nodes", "five_nodes"])
def test_nothing_that_was_acknowledged_is_lost_in_faults_of_all_kinds(cluster, name):
    under_load(cluster, name, STORMS, Storm(cluster))


class Storm:
    """One fault of some kind after the other, some of them while another one lasts."""

    KINDS = ("kill", "kill_two", "kill_all", "pause", "isolate", "one_way", "between_two", "transfer", "stop",
             "pause_then_kill", "isolate_then_kill", "lose_disk", "damage_log", "damage_snapshots")
    # Two nodes at once, which a majority of five bears, and three, which it does not.
    KINDS_OF_FIVE = ("pause_two", "isolate_two", "isolate_two_apart", "kill_and_pause", "kill_and_isolate", "kill_three")

    def __init__(self, cluster):
        self.cluster = cluster
        self.kinds = self.KINDS + (self.KINDS_OF_FIVE if len(cluster.nodes) >= 5 else ())

    def __call__(self, number, rng, going_on):
        kind = rng.choice(self.kinds)
        leader = self.cluster.leader()
        others = [node for node in self.cluster.nodes if node is not leader]
        rng.shuffle(others)
        node = leader if rng.random() < 0.7 else others[0]
        told = f"{kind} of {node}, {leader} leads"
        print(f"{time.strftime('%H:%M:%S')} {number}: {told}", flush=True)
        getattr(self, kind)(rng, node, others if node is leader else [leader, *others[1:]])
        return told

    def kill(self, rng, node, others):
        node.kill()
        time.sleep(rng.uniform(0, 4))
        node.start()

    def kill_two(self, rng, node, others):
        for each in (node, others[0]):
            each.kill()
            time.sleep(rng.choice((0, 0, 1)))
        time.sleep(rng.uniform(0, 4))
        for each in (node, others[0]):
            each.launch()

    def kill_all(self, rng, node, others):
        for each in (node, *others):
            each.kill()
            time.sleep(rng.choice((0, 0, 0.2)))
        for each in (others[0], node, *others[1:]):
            each.launch()
            time.sleep(rng.choice((0, 0, 1)))

    def pause(self, rng, node, others):
        node.pause()
        time.sleep(rng.uniform(0.5, 8))
        node.resume()

    def isolate(self, rng, node, others):
        self.cluster.isolate(node)
        time.sleep(rng.uniform(0.5, 10))
        self.cluster.network.heal()

    def one_way(self, rng, node, others):
        outwards = rng.random() < 0.5
        for other in others:
            self.cluster.network.cut(*((node.id, other.id) if outwards else (other.id, node.id)))
        time.sleep(rng.uniform(0.5, 10))
        self.cluster.network.heal()

    def between_two(self, rng, node, others):
        self.cluster.network.cut(node.id, others[0].id)
        if rng.random() < 0.5:
            self.cluster.network.cut(others[0].id, node.id)
        time.sleep(rng.uniform(0.5, 10))
        self.cluster.network.heal()

    def transfer(self, rng, node, others):
        for _ in range(3):
            rng.choice(self.cluster.nodes).admin("cluster", "transfer-leader", "--to", str(rng.choice(self.cluster.ids())),
                                                 succeeds=False)
            time.sleep(rng.choice((0, 0, 0.5)))

    def stop(self, rng, node, others):
        assert node.stop() == 0
        node.start()

    def pause_then_kill(self, rng, node, others):
        node.pause()
        time.sleep(rng.uniform(1, 3))
        others[0].kill()
        node.resume()
        time.sleep(rng.uniform(0, 2))
        others[0].start()

    def isolate_then_kill(self, rng, node, others):
        self.cluster.isolate(node)
        time.sleep(rng.uniform(1, 4))
        others[0].kill()
        time.sleep(rng.uniform(0, 2))
        self.cluster.network.heal()
        others[0].start()

    def lose_disk(self, rng, node, others):
        """It is removed, and a new one comes in its place."""
        node.kill()
        shutil.rmtree(node.data_dir)
        time.sleep(rng.uniform(0, 2))
        self.cluster.replace(node)

    def damage_log(self, rng, node, others):
        """Some bytes of a segment turn while it is down: it takes that from the others."""
        self._damage(rng, node, "log/*.log")

    def damage_snapshots(self, rng, node, others):
        self._damage(rng, node, "snapshots/*.snapshot*", "snapshots/*.part*")

    def _damage(self, rng, node, *names):
        node.kill()
        shard = node.data_dir / "shards" / "0"
        files = sorted(path for name in names for path in shard.glob(name))
        # The segment that is written may end anywhere, and the one behind it holds nothing yet: what is wrong there may be what a crash
        # leaves, or not be read at all; and what is written there meanwhile is no damage.
        files = files[:-2] if names[0].startswith("log") else files
        whole = {path: path.read_bytes() for path in files} if names[0].startswith("log") else {}
        for path in files if len(names) > 1 else rng.sample(files, min(len(files), 1)):
            with open(path, "r+b") as file:
                file.seek(rng.randrange(path.stat().st_size))
                file.write(rng.randbytes(4096))
        node.start()
        # Until it is whole again nobody else may lose the same. Who has just begun to lead lets nobody go for half a minute.
        wait_until(lambda: all(not path.exists() or path.read_bytes() == bytes for path, bytes in whole.items()),
                   f"{node} has mended its log", 180, 0.5)
        self.cluster.all_vote()

    def pause_two(self, rng, node, others):
        pair = (node, others[0])
        for each in pair:
            each.pause()
            time.sleep(rng.choice((0, 0, 1)))
        time.sleep(rng.uniform(0.5, 8))
        for each in rng.sample(pair, 2):
            each.resume()

    def isolate_two(self, rng, node, others):
        """They hear each other, and are no majority."""
        for each in (node, others[0]):
            for other in others[1:]:
                self.cluster.network.cut_both(each.id, other.id)
        time.sleep(rng.uniform(0.5, 10))
        self.cluster.network.heal()

    def isolate_two_apart(self, rng, node, others):
        for each in (node, others[0]):
            self.cluster.isolate(each)
            time.sleep(rng.choice((0, 0, 1)))
        time.sleep(rng.uniform(0.5, 10))
        self.cluster.network.heal()

    def kill_and_pause(self, rng, node, others):
        node.kill()
        others[0].pause()
        time.sleep(rng.uniform(0.5, 6))
        back = [node.launch, others[0].resume]
        rng.shuffle(back)
        for each in back:
            each()

    def kill_and_isolate(self, rng, node, others):
        self.cluster.isolate(others[0])
        node.kill()
        time.sleep(rng.uniform(0.5, 6))
        back = [node.launch, self.cluster.network.heal]
        rng.shuffle(back)
        for each in back:
            each()

    def kill_three(self, rng, node, others):
        three = (node, *others[:2])
        for each in three:
            each.kill()
            time.sleep(rng.choice((0, 0, 0.5)))
        time.sleep(rng.uniform(0, 3))
        for each in rng.sample(three, 3):
            each.launch()
            time.sleep(rng.choice((0, 0, 1)))
