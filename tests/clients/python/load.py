"""Official clients under load while a cluster loses nodes, and a ledger that compares what they were told with what came."""

import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from clients import (COMMIT, ROLLBACK, UNKNOWN, Checker, Listener, configuration, message)
from raw import RawClient, raw_message
from rocketmq import FilterExpression, Producer, PushConsumer, SimpleConsumer
from wire import Code, SendMessageRequest

OK = "ok"
LEASE_S = 6
POLL_S = 1
PROBE_EVERY_S = 0.1
# What a call may be told while leaders change; of the first, nothing was stored (host/docs/replication.md).
REFUSED = Code.HA_NOT_AVAILABLE
UNKNOWN_OUTCOMES = {Code.MASTER_PERSISTENCE_TIMEOUT, Code.SLAVE_PERSISTENCE_TIMEOUT, Code.PROXY_TIMEOUT}
# What a node that is killed, stopped or paused with a call under way makes of it.
TRANSPORT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def outcome_of(problem: Exception) -> str:
    """A short name for why a call failed."""
    if isinstance(problem, grpc.RpcError):
        return problem.code().name
    code = getattr(problem, "code", None)
    return Code.Name(code) if isinstance(code, int) else f"{type(problem).__name__}: {problem}"


def spread(seconds) -> str:
    """Of many times, the three that tell most."""
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {ordered[-1]:.2f} s"


EXPECTED = {Code.Name(code) for code in UNKNOWN_OUTCOMES | {REFUSED}} | {code.name for code in TRANSPORT}


@dataclass
class Send:
    """One body, which is sent once (its client may try again under the same message id)."""

    body: str
    outcome: str | None = None
    message_id: str | None = None


@dataclass
class Half(Send):
    """A half message: what its producer does about it, and what it was told."""

    plan: str = ""
    transaction_id: str | None = None
    ended: str | None = None


@dataclass
class Delivery:
    group: str
    member: str
    body: str
    message_id: str
    attempt: int
    asked_at: float
    came_at: float
    acks: list = field(default_factory=list)

    def acked_at(self):
        """When its consumer had been told that it is acknowledged."""
        return min((at for outcome, at in self.acks if outcome == OK), default=None)


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.sends = {}
        self.halves = {}
        self.deliveries = []
        self.by_handle = {}
        self.answers = {}
        self.errors = Counter()
        self.sent = 0

    def note_error(self, what: str, problem: Exception):
        with self.lock:
            self.errors[f"{what}: {outcome_of(problem)}"] += 1

    def note_sent(self):
        with self.lock:
            self.sent += 1

    def delivered(self, group, member, messages, asked_at):
        came_at = time.monotonic()
        noted = []
        with self.lock:
            for each in messages:
                delivery = Delivery(group, member, each.body.decode(), each.message_id, each.delivery_attempt, asked_at,
                                    came_at)
                self.deliveries.append(delivery)
                self.by_handle[each.receipt_handle] = delivery
                noted.append(delivery)
        return noted

    def note_acks(self, client):
        """Notes what this consumer is told when it acknowledges, also where the client keeps it to itself."""
        acknowledge = client.rpc_client.ack_message_async

        def noting(endpoints, request, *more, **named):
            future = acknowledge(endpoints, request, *more, **named)
            handle = request.entries[0].receipt_handle

            def note(done):
                try:
                    answer = done.result()
                    code = answer.entries[0].status.code if answer.entries else answer.status.code
                    outcome = OK if code == Code.OK else Code.Name(code)
                except Exception as problem:
                    outcome = outcome_of(problem)
                with self.lock:
                    if delivery := self.by_handle.get(handle):
                        delivery.acks.append((outcome, time.monotonic()))

            future.add_done_callback(note)
            return future

        client.rpc_client.ack_message_async = noting

    # -- what has to be ---------------------------------------------------------------------------------------------

    def must_come(self):
        """Bodies that every group has to get."""
        plain = {send.body for send in self.sends.values() if send.outcome == OK}
        committed = {half.body for half in self.halves.values()
                     if half.ended == "committed" or (half.outcome == OK and half.ended not in ("rolled_back", "conflict")
                                                      and self.settles_as(half) == COMMIT)}
        return plain | committed

    def must_not_come(self):
        """Bodies that nobody may get."""
        refused = {send.body for send in self.sends.values() if send.outcome == "refused"}
        rolled_back = {half.body for half in self.halves.values()
                       if half.ended in ("rolled_back", "conflict")
                       or (half.ended != "committed" and self.settles_as(half) == ROLLBACK)}
        return refused | rolled_back

    def settles_as(self, half):
        """What the checker says about it in the end; nothing, where producer and checker race and nobody knows."""
        if half.plan == "race" and half.ended is None:
            return None
        answer = self.answers[half.body]
        return answer[-1] if isinstance(answer, list) else answer

    def came(self, group):
        with self.lock:
            return {delivery.body for delivery in self.deliveries if delivery.group == group}

    def faults(self, groups):
        """Everything that should not be, in sentences."""
        faults = []
        must, must_not = self.must_come(), self.must_not_come()
        known = self.sends.keys() | self.halves.keys()
        for group in groups:
            mine = [delivery for delivery in self.deliveries if delivery.group == group]
            bodies = {delivery.body for delivery in mine}
            faults += [f"{group} never got {self.told(body)}" for body in sorted(must - bodies)]
            faults += [f"{group} got {self.told(body)}, which nobody may get" for body in sorted(bodies & must_not)]
            faults += [f"{group} got {body}, which nobody sent" for body in sorted(bodies - known)]
            faults += self.redelivered(mine)
        faults += [f"an unexpected answer, {count} times: {what}" for what, count in self.errors.items()
                   if what.split(": ", 1)[1] not in EXPECTED]
        return faults

    def told(self, body):
        return self.sends.get(body) or self.halves[body]

    def redelivered(self, deliveries):
        faults = []
        by_body = defaultdict(list)
        for delivery in sorted(deliveries, key=lambda each: each.came_at):
            by_body[delivery.body].append(delivery)
        for body, all_of_it in by_body.items():
            ids = {each.message_id for each in all_of_it}
            if known := getattr(self.sends.get(body) or self.halves.get(body), "message_id", None):
                ids.add(known)
            if len(ids) > 1:
                faults.append(f"{body} was stored under several ids: {ids}")
            for earlier, later in zip(all_of_it, all_of_it[1:]):
                if later.attempt <= earlier.attempt:
                    faults.append(f"the count of attempts did not go up: {earlier}, then {later}")
                acked_at = earlier.acked_at()
                if acked_at is not None and acked_at < later.came_at:
                    faults.append(f"delivered again though it was acknowledged: {earlier}, then {later}")
                elif earlier.member.startswith("simple") and later.came_at < earlier.asked_at + LEASE_S:
                    faults.append(f"delivered again while the lease lived: {earlier}, then {later}")
                elif acked_at is not None and later.acked_at() is not None and acked_at < later.acked_at():
                    faults.append(f"acknowledged by who had it before: {earlier}, then {later}")
                elif earlier.member.startswith("push") and not earlier.acks:
                    faults.append(f"delivered again while its consumer had it: {earlier}, then {later}")
        return faults

    def summary(self, groups):
        outcomes = Counter(send.outcome or "open" for send in self.sends.values())
        ended = Counter(f"{half.plan}: {half.ended or half.outcome}" for half in self.halves.values())
        again = {group: sum(1 for delivery in self.deliveries if delivery.group == group and delivery.attempt > 1)
                 for group in groups}
        came = {group: len(self.came(group)) for group in groups}
        return f"sends {dict(outcomes)}, halves {dict(ended)}, came {came}, again {again}, errors {dict(self.errors)}"


class Load:
    """Producers and consumers on all nodes. Threads of their own until `stop_sending` and `stop`."""

    PLANS = ("commit", "commit", "rollback", "silent-commit", "silent-rollback", "silent-late", "race")

    def __init__(self, cluster, name: str, seed: int):
        self.cluster = cluster
        self.seed = seed
        self.ledger = Ledger()
        self.plain, self.transactional = f"{name}-plain", f"{name}-tx"
        self.groups = [f"{name}-simple", f"{name}-push"]
        self.sending, self.receiving = threading.Event(), threading.Event()
        self.sending.set()
        self.receiving.set()
        self.threads = []
        self.clients = []
        self.pushed = []
        self.count = 0

    def start(self) -> "Load":
        leader = self.cluster.leader()
        leader.create_topic(self.plain, queues=2)
        leader.create_topic(self.transactional, "transaction", queues=2,
                            transaction={"immunity": "1s", "interval": "1s", "max_checks": 1000})
        for node in self.cluster.nodes:
            self.produce_on(node)
        # Not on all nodes: a member of each group is on a node that others of it are not on.
        for node in self.cluster.nodes[1:]:
            self.consume_on(node)
        self.cluster.on_replaced = self.move
        return self

    def move(self, node):
        """A node came in the place of one whose clients have nobody to talk to any more: these end."""
        self.produce_on(node)
        self.consume_on(node)

    def produce_on(self, node):
        self.run(self.send_plain, node)
        self.run(self.send_raw, node)
        self.run(self.send_halves, node, self.transactional_producer(node))

    def consume_on(self, node):
        simple, push = self.groups
        for topic in (self.plain, self.transactional):
            self.run(self.receive, node, simple, topic)
        self.receive_by_push(node, push)

    def sends_to(self, node):
        return self.sending.is_set() and node in self.cluster.nodes

    def receives_from(self, node):
        return self.receiving.is_set() and node in self.cluster.nodes

    def run(self, what, *arguments):
        self.count += 1
        rng = random.Random(f"{self.seed}-{self.count}")
        thread = threading.Thread(target=what, args=(rng, *arguments), daemon=True)
        self.threads.append((what, thread))
        thread.start()

    def started(self, client):
        client.startup()
        self.clients.append(client)
        return client

    def transactional_producer(self, node):
        checker = Checker()
        checker.answers = self.ledger.answers  # the very same, which fills with time
        return self.started(Producer(configuration(node), [self.transactional], checker=checker))

    # -- producers --------------------------------------------------------------------------------------------------

    def send_plain(self, rng, node):
        client = self.started(Producer(configuration(node), [self.plain]))
        number = 0
        while self.sends_to(node):
            number += 1
            send = Send(f"plain-{node.id}-{number}")
            self.ledger.sends[send.body] = send
            try:
                receipt = client.send(message(self.plain, send.body.encode()))
                send.message_id, send.outcome = receipt.message_id, OK
                self.ledger.note_sent()
                time.sleep(0.03)
            except Exception as problem:
                send.outcome = "failed"
                self.ledger.note_error("send", problem)
                time.sleep(0.2)

    def send_raw(self, rng, node):
        """One try each, so that what one answer says can be held against what came; some are sent again where nobody
        knows, under their first id."""
        client = RawClient(node)
        number = 0
        while self.sends_to(node):
            number += 1
            made = raw_message(self.plain, f"raw-{node.id}-{number}".encode())
            send = Send(made.body.decode(), message_id=made.system_properties.message_id)
            self.ledger.sends[send.body] = send
            again = rng.random() < 0.5
            while True:
                told = self.try_once(client, made)
                # Refused now says nothing about the tries before.
                send.outcome = "unknown" if told != OK and send.outcome == "unknown" else told
                if send.outcome != "unknown" or not again or not self.sends_to(node):
                    break
                time.sleep(0.2)
            self.ledger.note_sent()
            time.sleep(0.05 if send.outcome == OK else 0.2)
        client.channel.close()

    def try_once(self, client, made):
        try:
            answer = client.send(made)
        except grpc.RpcError as problem:
            self.ledger.note_error("raw send", problem)
            return "unknown"
        code = answer.entries[0].status.code if answer.entries else answer.status.code
        if code == Code.OK:
            return OK
        with self.ledger.lock:
            self.ledger.errors[f"raw send: {Code.Name(code)}"] += 1
        return "refused" if code == REFUSED else "unknown"

    def send_halves(self, rng, node, client):
        number = 0
        while self.sends_to(node):
            number += 1
            half = Half(f"half-{node.id}-{number}", plan=rng.choice(self.PLANS))
            final = ROLLBACK if half.plan in ("rollback", "silent-rollback", "race") else COMMIT
            self.ledger.answers[half.body] = [UNKNOWN, final] if half.plan == "silent-late" else final
            self.ledger.halves[half.body] = half
            try:
                transaction = client.begin_transaction()
                receipt = client.send(message(self.transactional, half.body.encode(), keys=[half.body]), transaction)
                half.message_id, half.transaction_id, half.outcome = receipt.message_id, receipt.transaction_id, OK
                self.ledger.note_sent()
            except Exception as problem:
                half.outcome = "failed"
                self.ledger.note_error("half", problem)
                time.sleep(0.2)
                continue
            self.end(half, transaction)
            time.sleep(0.05)

    def end(self, half, transaction):
        """As planned; whoever was answered knows the outcome for ever."""
        try:
            if half.plan == "commit":
                transaction.commit()
                half.ended = "committed"
            elif half.plan == "rollback":
                transaction.rollback()
                half.ended = "rolled_back"
            elif half.plan == "race":
                time.sleep(1.0)  # as long as nobody asks; then the checker answers the opposite
                transaction.commit()
                half.ended = "committed"
        except Exception as problem:
            if getattr(problem, "code", None) == Code.PRECONDITION_FAILED:
                half.ended = "conflict"
            else:
                self.ledger.note_error(f"end by {half.plan}", problem)
            if half.ended == "conflict" and half.plan != "race":
                self.ledger.note_error(f"end by {half.plan}", problem)

    # -- consumers --------------------------------------------------------------------------------------------------

    def receive(self, rng, node, group, topic):
        client = self.started(SimpleConsumer(configuration(node), group, {topic: FilterExpression()},
                                             await_duration=POLL_S))
        self.ledger.note_acks(client)
        while self.receives_from(node):
            asked_at = time.monotonic()
            try:
                received = client.receive(16, LEASE_S)
            except Exception as problem:
                self.ledger.note_error("receive", problem)
                time.sleep(0.2)
                continue
            for each, delivery in zip(received, self.ledger.delivered(group, f"simple-{node.id}", received, asked_at)):
                if rng.random() < 0.03 and delivery.attempt == 1:
                    continue  # its lease runs out, and then it comes again
                try:
                    client.ack(each)
                except Exception as problem:
                    if [outcome for outcome, _ in delivery.acks[-1:]] != ["INVALID_RECEIPT_HANDLE"]:
                        self.ledger.note_error("ack", problem)

    def receive_by_push(self, node, group):
        ledger, member = self.ledger, f"push-{node.id}"

        class Noting(Listener):
            def consume(self, message):
                ledger.delivered(group, member, [message], time.monotonic())
                return super().consume(message)

        topics = {self.plain: FilterExpression(), self.transactional: FilterExpression()}
        client = PushConsumer(configuration(node), group, Noting(), topics)
        self.ledger.note_acks(client)
        self.pushed.append(self.started(client))

    def replace_push_consumers(self):
        """Others come, and those that are there go: what one of them has and never got is for the others."""
        gone, self.pushed = self.pushed, []
        for node in self.cluster.nodes[1:]:
            self.receive_by_push(node, self.groups[1])
        for client in gone:
            _shut_down(client)

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop_sending(self):
        self.sending.clear()
        for what, thread in self.threads:
            if what in (self.send_plain, self.send_raw, self.send_halves):
                thread.join(30)
                assert not thread.is_alive(), "a producer hangs"

    def stop(self):
        self.sending.clear()
        self.receiving.clear()
        for _, thread in self.threads:
            thread.join(20)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(_shut_down, self.clients))


def _shut_down(client):
    try:
        client.shutdown()
    except Exception:
        pass  # its node may be gone


@dataclass
class Probe:
    node: int
    body: str
    began: float
    ended: float | None = None
    told: str | None = None
    why: str = ""

    def took(self):
        return self.ended - self.began


class Probes:
    """Sends to every node that answers, ten times a second, each once and without waiting for answers: for how long none
    of them was acknowledged is for how long nobody led."""

    def __init__(self, cluster, topic: str, deadline_s: float = 5.0):
        self.cluster = cluster
        self.topic = topic
        self.deadline_s = deadline_s
        self.lock = threading.Lock()
        self.probes = []
        self.running = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Probes":
        self.clients = {}
        self.running.set()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def _run(self):
        while self.running.is_set():
            for node in self.cluster.answering():
                self._probe(node)
            time.sleep(PROBE_EVERY_S)

    def _probe(self, node):
        client = self.clients.get(node.id) or self.clients.setdefault(node.id, RawClient(node))
        probe = Probe(node.id, f"probe-{node.id}-{len(self.probes)}", time.monotonic())
        self.probes.append(probe)
        request = SendMessageRequest(messages=[raw_message(self.topic, probe.body.encode())])
        call = client.stub.SendMessage.future(request, metadata=client.metadata(), timeout=self.deadline_s)

        def note(done):
            try:
                answer = done.result()
                code = answer.entries[0].status.code if answer.entries else answer.status.code
                told = OK if code == Code.OK else Code.Name(code)
            except Exception as problem:
                told, probe.why = outcome_of(problem), getattr(problem, "details", lambda: "")()
            probe.ended, probe.told = time.monotonic(), told

        call.add_done_callback(note)

    def answered(self):
        return [probe for probe in self.probes if probe.told is not None]

    def acknowledged(self, node=None, since=0.0):
        return [probe for probe in self.answered()
                if probe.told == OK and probe.began >= since and (node is None or probe.node == node.id)]

    def not_acknowledged(self):
        return [probe for probe in self.answered() if probe.told != OK]

    def longest_gap(self) -> float:
        """The longest time without an acknowledgement."""
        times = sorted(probe.ended for probe in self.acknowledged())
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=float("inf"))

    def stop(self):
        if self.running.is_set():
            self.running.clear()
            self.thread.join(10)
            end = time.monotonic() + self.deadline_s + 1
            while len(self.answered()) < len(self.probes) and time.monotonic() < end:
                time.sleep(0.05)
            for client in self.clients.values():
                client.channel.close()
        return self

    def told(self):
        return dict(Counter(f"node {probe.node}: {probe.told}" for probe in self.probes))

    def faults(self, bodies, full=False):
        """`bodies` is all that a group received: what was acknowledged is in it once, what was refused is not. `full`: a disk
        was, so that sends may have been refused for that."""
        refusals = {Code.Name(REFUSED)} | ({Code.Name(Code.TOO_MANY_REQUESTS)} if full else set())
        faults = []
        count = Counter(bodies)
        for probe in self.probes:
            if probe.told is None:
                faults.append(f"never answered: {probe}")
            elif probe.told == OK and count[probe.body] == 0:
                faults.append(f"acknowledged and lost: {probe}")
            elif probe.told in refusals and count[probe.body]:
                faults.append(f"refused and stored: {probe}")
            elif count[probe.body] > 1:
                faults.append(f"stored {count[probe.body]} times: {probe}")
            if probe.told not in EXPECTED | refusals | {OK, None}:
                faults.append(f"an unexpected answer: {probe}")
        sent = {probe.body for probe in self.probes}
        faults += [f"received and never sent: {body}" for body in count if body not in sent]
        return faults
