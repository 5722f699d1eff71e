"""The official Python client, as an application uses it, with clean-up and deadlines."""

import threading
import time
from collections import defaultdict
from contextlib import contextmanager

from rocketmq import (ClientConfiguration, ConsumeResult, Credentials, FilterExpression, Message, MessageListener,
                      Producer, PushConsumer, SimpleConsumer, TransactionChecker, TransactionResolution)

COMMIT = TransactionResolution.COMMIT
ROLLBACK = TransactionResolution.ROLLBACK
UNKNOWN = TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED

# Leases and polls of these tests, in seconds (the client knows whole seconds only).
SHORT_LEASE = 2
LONG_LEASE = 60
POLL = 2


def configuration(broker) -> ClientConfiguration:
    return ClientConfiguration(broker.grpc, Credentials())


class Checker(TransactionChecker):
    """Answers what `answers` says for a message's first key: a resolution, a list of them (the last repeats),
    or an exception to raise, which makes the client keep silent. Remembers what it was asked."""

    def __init__(self, answers=None):
        self.answers = answers or {}
        self.asked = defaultdict(list)

    def check(self, message):
        key = next(iter(message.keys), None)
        self.asked[key].append(message)
        answer = self.answers.get(key, UNKNOWN)
        if isinstance(answer, list):
            answer = answer[min(len(self.asked[key]), len(answer)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Listener(MessageListener):
    """Remembers every delivery; fails those for which `fails(message)` is true."""

    def __init__(self, fails=lambda message: False):
        self.fails = fails
        self.lock = threading.Lock()
        self.deliveries = []

    def consume(self, message):
        with self.lock:
            self.deliveries.append(message)
        return ConsumeResult.FAILURE if self.fails(message) else ConsumeResult.SUCCESS


@contextmanager
def producer(broker, *topics, checker=None):
    client = Producer(configuration(broker), topics or None, checker=checker)
    client.startup()
    try:
        yield client
    finally:
        client.shutdown()


@contextmanager
def simple_consumer(broker, group, topic, filter="*", poll=POLL):
    client = SimpleConsumer(configuration(broker), group, {topic: FilterExpression(filter)}, await_duration=poll)
    client.startup()
    try:
        yield client
    finally:
        client.shutdown()


@contextmanager
def push_consumer(broker, group, topic, listener, filter="*"):
    client = PushConsumer(configuration(broker), group, listener, {topic: FilterExpression(filter)})
    client.startup()
    try:
        yield client
    finally:
        client.shutdown()


def message(topic, body=b"body", tag=None, keys=(), properties=None):
    made = Message()
    made.topic = topic
    made.body = body
    if tag is not None:
        made.tag = tag
    for key in keys:
        made.keys = key  # the setter adds
    for name, value in (properties or {}).items():
        made.add_property(name, value)
    return made


def receive(consumer, wanted, lease=LONG_LEASE, deadline_s=20.0, batch=32):
    """Receives until `wanted` messages came; fails at the deadline. Does not acknowledge."""
    received = []
    end = time.monotonic() + deadline_s
    while len(received) < wanted:
        assert time.monotonic() < end, f"got {len(received)} of {wanted} messages in {deadline_s} s"
        received += consumer.receive(batch, lease)
    assert len(received) == wanted, f"asked for {wanted}, got {len(received)}"
    return received


def receive_one(consumer, lease=LONG_LEASE, deadline_s=20.0):
    return receive(consumer, 1, lease, deadline_s)[0]


def receive_and_ack(consumer, wanted, deadline_s=20.0):
    received = receive(consumer, wanted, deadline_s=deadline_s)
    for each in received:
        consumer.ack(each)
    return received


def assert_nothing_arrives(consumer, for_s=3.0):
    """Polls the whole time: a message that would come, had to come to somebody who asks."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        received = consumer.receive(32, LONG_LEASE)
        assert received == [], f"unexpected: {[(m.message_id, m.body[:80]) for m in received]}"


def send_half(client, topic, key, body=None, **more):
    """Sends a half message and leaves its transaction open; returns (transaction, receipt)."""
    transaction = client.begin_transaction()
    receipt = client.send(message(topic, body or key.encode(), keys=[key], **more), transaction)
    assert receipt.transaction_id
    return transaction, receipt
