"""The push consumer: leases renewed by the broker, failures retried by the client's negative acknowledgement."""

import time

from broker import HttpProblem, quote, wait_until
from clients import Listener, message, producer, push_consumer, receive_one, simple_consumer


def test_every_message_is_processed_once_and_none_again_after_a_restart_of_the_consumer(shared_broker, name):
    shared_broker.create_topic(name, queues=4)
    first, second = Listener(), Listener()
    with producer(shared_broker, name) as client:
        with push_consumer(shared_broker, name, name, first):
            sent = {client.send(message(name, f"{i}".encode())).message_id for i in range(100)}
            wait_until(lambda: len(first.deliveries) >= 100, "100 messages were processed", 30)
            # The acknowledgement follows the listener; the group's backlog says when it is there.
            wait_until(lambda: in_flight(shared_broker, name, name) == 0, "everything is acknowledged")
        with push_consumer(shared_broker, name, name, second):
            marker = client.send(message(name, b"marker")).message_id
            wait_until(lambda: second.deliveries, "the marker was processed", 30)
            time.sleep(2)  # what would come again, would come here
    assert sorted(m.message_id for m in first.deliveries) == sorted(sent)
    assert [m.message_id for m in second.deliveries] == [marker]


def test_a_failed_message_is_retried_as_the_second_attempt(shared_broker, name):
    shared_broker.create_topic(name)
    listener = Listener(fails=lambda m: m.delivery_attempt == 1)
    with producer(shared_broker, name) as client, push_consumer(shared_broker, name, name, listener):
        receipt = client.send(message(name, b"retry me"))
        wait_until(lambda: len(listener.deliveries) >= 2, "it was delivered again", 20)
        time.sleep(2)
    assert [(m.message_id, m.delivery_attempt, m.body) for m in listener.deliveries] == [
        (receipt.message_id, 1, b"retry me"), (receipt.message_id, 2, b"retry me")]


def test_a_message_that_always_fails_ends_in_the_dead_letter_topic(shared_broker, name):
    shared_broker.create_topic(name)
    shared_broker.create_group(name, max_attempts=3, backoff=["1s"])
    listener = Listener(fails=lambda m: True)
    with producer(shared_broker, name) as client:
        with push_consumer(shared_broker, name, name, listener):
            receipt = client.send(message(name, b"poison", "t", ["k"]))
            wait_until(lambda: len(listener.deliveries) >= 3, "three deliveries", 30)
            # It comes into being with the first dead letter, when the message would be delivered a fourth time.
            wait_until(lambda: exists(shared_broker, f"%DLQ%{name}"), "the dead letter topic is there", 30)
            with simple_consumer(shared_broker, f"{name}-undertaker", f"%DLQ%{name}") as undertaker:
                dead = receive_one(undertaker, deadline_s=20)
                undertaker.ack(dead)
    assert [m.delivery_attempt for m in listener.deliveries] == [1, 2, 3]
    assert (dead.message_id, dead.body, dead.tag, dead.keys) == (receipt.message_id, b"poison", "t", {"k"})


def test_two_consumers_of_a_group_share_the_work(shared_broker, name):
    shared_broker.create_topic(name, queues=4)
    one, two = Listener(), Listener()
    with producer(shared_broker, name) as client, \
            push_consumer(shared_broker, name, name, one), push_consumer(shared_broker, name, name, two):
        sent = [client.send(message(name, f"{i}".encode())).message_id for i in range(60)]
        wait_until(lambda: len(one.deliveries) + len(two.deliveries) >= 60, "60 messages were processed", 30)
        time.sleep(1)
    assert sorted(m.message_id for m in one.deliveries + two.deliveries) == sorted(sent)


def exists(broker, topic):
    try:
        return broker.call("GET", f"/v1/topics/{quote(topic)}")
    except HttpProblem as problem:
        assert problem.status == 404
        return None


def in_flight(broker, group, topic):
    """What the group's progress resource says about leased and ready messages, all queues together."""
    progress = broker.call("GET", f"/v1/groups/{group}/progress")
    items = progress.get("items", progress if isinstance(progress, list) else [progress])
    mine = [item for item in items if item.get("topic", topic) == topic]
    return sum(item.get("in_flight", 0) + item.get("ready", 0) for item in mine)
