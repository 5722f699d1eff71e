"""Normal messages: sent, received, acknowledged, by the unmodified client."""

import hashlib
import threading
import time

import pytest
from clients import (LONG_LEASE, SHORT_LEASE, assert_nothing_arrives, message, producer, receive, receive_and_ack,
                     receive_one, simple_consumer)
from raw import raw_client, raw_message
from wire import Code, DigestType, Encoding

# Every byte value, then text that is not ASCII, so that neither a charset nor a terminator can hide.
ALL_BYTES = bytes(range(256)) * 4 + "Grüße, 订单, 🚚".encode()


def test_a_message_arrives_exactly_as_it_was_sent(shared_broker, name):
    shared_broker.create_topic(name)
    properties = {"region": "eu-west", "größe": "süß 订单 🚚", "with space": "a=b&c;d\\e\"f"}
    before_ms = time.time() * 1000
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        receipt = client.send(message(name, ALL_BYTES, "paid", ["order-1", "müller", "k3"], properties))
        received = receive_one(consumer)
        consumer.ack(received)

    assert received.message_id == receipt.message_id
    assert received.topic == name
    assert received.body == ALL_BYTES
    assert received.tag == "paid"
    assert received.keys == {"order-1", "müller", "k3"}
    assert received.properties == properties
    assert received.delivery_attempt == 1
    assert not received.corrupted
    assert received.message_type == 1
    # The client sends whole seconds.
    assert before_ms - 1_000 <= received.born_timestamp <= time.time() * 1000
    assert received.born_host


def test_a_message_without_tag_keys_or_properties_arrives_without_them(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name, b"x"))
        received = receive_one(consumer)
        consumer.ack(received)
    assert (received.tag, received.keys, received.properties) == (None, set(), {})


def test_a_delivery_carries_everything_the_protocol_asks_for(shared_broker, name):
    shared_broker.create_topic(name, queues=1)
    with raw_client(shared_broker) as raw:
        assert raw.send(raw_message(name, b"one")).status.code == Code.OK
        sent = raw_message(name, b"two")
        answer = raw.send(sent)
        assert [entry.status.code for entry in answer.entries] == [Code.OK]
        assert answer.entries[0].message_id == sent.system_properties.message_id
        status, (first, second) = raw.receive(name, name)
    assert status.code == Code.OK
    for delivered, offset, body in ((first, 0, b"one"), (second, 1, b"two")):
        system = delivered.system_properties
        assert system.body_encoding == Encoding.IDENTITY
        assert system.body_digest.type == DigestType.MD5
        assert system.body_digest.checksum == hashlib.md5(body).hexdigest().upper()
        assert (system.queue_id, system.queue_offset) == (0, offset)
        assert system.HasField("store_timestamp") and system.store_host
        assert system.HasField("receipt_handle") and system.receipt_handle.isprintable()
        assert system.born_host == "127.0.0.1"
        assert delivered.topic.name == name


def test_the_largest_body_arrives_and_one_byte_more_is_refused(shared_broker, name):
    shared_broker.create_topic(name)
    largest = 4 * 1024 * 1024
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        body = hashlib.sha256(b"seed").digest() * (largest // 32)
        client.send(message(name, body))
        received = receive_one(consumer)
        consumer.ack(received)
        assert received.body == body
    with raw_client(shared_broker) as raw:
        # The client itself refuses it once it has the server's limit, so this one is made by hand.
        assert raw.send(raw_message(name, bytes(largest + 1))).status.code == Code.MESSAGE_BODY_TOO_LARGE
        assert raw.send(raw_message(name, bytes(6 * 1024 * 1024))).status.code == Code.MESSAGE_BODY_TOO_LARGE
        assert raw.send(raw_message(name, b"")).status.code == Code.MESSAGE_BODY_EMPTY


def test_every_message_of_many_queues_reaches_one_consumer_once(shared_broker, name):
    shared_broker.create_topic(name, queues=8)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        sent = {client.send(message(name, f"body {i}".encode())).message_id: f"body {i}".encode() for i in range(200)}
        received = receive_and_ack(consumer, 200, deadline_s=40)
        assert {m.message_id: m.body for m in received} == sent
        assert_nothing_arrives(consumer)


def test_a_batch_arrives_in_full_and_answers_in_order(shared_broker, name):
    shared_broker.create_topic(name)
    with raw_client(shared_broker) as raw, simple_consumer(shared_broker, name, name) as consumer:
        batch = [raw_message(name, f"body {i}".encode()) for i in range(10)]
        answer = raw.send(*batch)
        assert answer.status.code == Code.OK
        assert [e.message_id for e in answer.entries] == [m.system_properties.message_id for m in batch]
        assert {m.body for m in receive_and_ack(consumer, 10)} == {m.body for m in batch}

        mixed = raw.send(raw_message(name), raw_message(name + "-other"))
        assert mixed.status.code == Code.MESSAGE_CORRUPTED
        assert_nothing_arrives(consumer)


def test_a_waiting_receive_is_answered_at_once_when_a_message_comes(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name, poll=15) as consumer:
        client.send(message(name, b"warm-up"))
        receive_and_ack(consumer, 1)
        waiting = consumer.receive_async(1, LONG_LEASE)
        # The receive has to be waiting when the message is sent; were it late, it would only be answered faster.
        threading.Event().wait(1)
        assert not waiting.done()
        sent_at = time.monotonic()
        client.send(message(name, b"now"))
        received = waiting.result(10)
        took_s = time.monotonic() - sent_at
        consumer.ack(received[0])
    assert [m.body for m in received] == [b"now"]
    assert took_s < 1.0, f"a waiting receive was answered after {took_s:.2f} s"


def test_an_empty_topic_answers_at_the_end_of_the_poll(shared_broker, name):
    shared_broker.create_topic(name)
    with simple_consumer(shared_broker, name, name, poll=3) as consumer:
        began = time.monotonic()
        assert consumer.receive(16, LONG_LEASE) == []
        assert 2.0 <= time.monotonic() - began <= 4.5


def test_tag_filters_select_and_groups_do_not_disturb_each_other(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client:
        for tag in ("A", "B", "C", "a", None):
            client.send(message(name, f"tag {tag}".encode(), tag))
    for group, expression, expected in (
        ("either", "A || B", {b"tag A", b"tag B"}),
        ("only-c", "C", {b"tag C"}),
        ("everything", "*", {b"tag A", b"tag B", b"tag C", b"tag a", b"tag None"}),
    ):
        with simple_consumer(shared_broker, f"{name}-{group}", name, expression) as consumer:
            received = receive_and_ack(consumer, len(expected))
            assert {m.body for m in received} == expected, expression
            assert_nothing_arrives(consumer)


def test_two_groups_both_get_everything(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client:
        sent = {client.send(message(name, f"{i}".encode())).message_id for i in range(10)}
    for group in ("one", "two"):
        with simple_consumer(shared_broker, f"{name}-{group}", name) as consumer:
            assert {m.message_id for m in receive_and_ack(consumer, 10)} == sent


def test_what_is_not_acknowledged_comes_back_as_the_second_attempt(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        receipt = client.send(message(name, b"again", "t", ["k"], {"p": "v"}))
        first = receive_one(consumer, SHORT_LEASE)
        leased_at = time.monotonic()
        second = receive_one(consumer)
        assert time.monotonic() - leased_at >= SHORT_LEASE - 0.5, "delivered again while it was leased"
        consumer.ack(second)
        assert_nothing_arrives(consumer)
    assert (first.delivery_attempt, second.delivery_attempt) == (1, 2)
    assert first.message_id == second.message_id == receipt.message_id
    assert (second.body, second.tag, second.keys, second.properties) == (b"again", "t", {"k"}, {"p": "v"})
    assert first.receipt_handle != second.receipt_handle


def test_an_acknowledged_message_is_gone_after_its_lease(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name))
        consumer.ack(receive_one(consumer, SHORT_LEASE))
        assert_nothing_arrives(consumer, SHORT_LEASE + 3)


def test_a_longer_invisible_duration_keeps_the_message_away(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name))
        received = receive_one(consumer, SHORT_LEASE)
        consumer.change_invisible_duration(received, 30)
        assert received.receipt_handle
        assert_nothing_arrives(consumer, SHORT_LEASE + 3)
        consumer.ack(received)  # with the handle that the change returned


def test_a_shorter_invisible_duration_brings_the_message_back_early(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name))
        received = receive_one(consumer, LONG_LEASE)
        consumer.change_invisible_duration(received, 1)
        again = receive_one(consumer, deadline_s=8)
        assert again.delivery_attempt == 2
        consumer.ack(again)


def test_a_change_to_zero_makes_the_message_visible_at_once(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name))
        received = receive_one(consumer, LONG_LEASE)
        consumer.change_invisible_duration(received, 0)
        again = receive_one(consumer, deadline_s=5)
        assert again.delivery_attempt == 2
        consumer.ack(again)


def refused(code, call, *arguments):
    with pytest.raises(Exception) as refusal:
        call(*arguments)
    assert getattr(refusal.value, "code", None) == code, refusal.value
    assert str(refusal.value), "a refusal says why"
    return str(refusal.value)


def test_a_stale_handle_is_refused_and_does_not_touch_the_newer_lease(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name))
        stale = receive_one(consumer, SHORT_LEASE)
        current = receive_one(consumer, 10)
        assert current.delivery_attempt == 2
        stale_handle = stale.receipt_handle
        refused(Code.INVALID_RECEIPT_HANDLE, consumer.ack, stale)
        refused(Code.INVALID_RECEIPT_HANDLE, consumer.change_invisible_duration, stale, 30)
        # What a failed change returns is stored by clients, so it must not be empty (protocol 4.8).
        assert stale.receipt_handle == stale_handle
        assert_nothing_arrives(consumer)
        consumer.ack(current)


def test_the_same_ack_twice_is_fine(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name))
        received = receive_one(consumer)
        consumer.ack(received)
        consumer.ack(received)


def test_forged_and_foreign_handles_are_refused(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, \
            simple_consumer(shared_broker, name, name) as consumer, \
            simple_consumer(shared_broker, f"{name}-other", name) as other:
        client.send(message(name))
        received = receive_one(consumer)
        refused(Code.INVALID_RECEIPT_HANDLE, other.ack, received)

        handle = received.receipt_handle
        for forged in ("garbage", handle[:-1], handle[:-1] + ("A" if handle[-1] != "A" else "B"), handle + "x"):
            received.receipt_handle = forged
            refused(Code.INVALID_RECEIPT_HANDLE, consumer.ack, received)
        received.receipt_handle = handle
        consumer.ack(received)


def test_the_last_attempt_leads_to_the_dead_letter_topic(shared_broker, name):
    shared_broker.create_topic(name)
    shared_broker.create_group(name, max_attempts=2)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        receipt = client.send(message(name, ALL_BYTES, "t", ["k"], {"p": "v"}))
        attempts = [receive_one(consumer, SHORT_LEASE).delivery_attempt for _ in range(2)]
        assert attempts == [1, 2]
        # The limit is applied when the message would be delivered once more.
        assert_nothing_arrives(consumer, SHORT_LEASE + 3)

    dead_letters = f"%DLQ%{name}"
    with simple_consumer(shared_broker, f"{name}-undertaker", dead_letters) as undertaker:
        dead = receive_one(undertaker, SHORT_LEASE)
        assert dead.topic == dead_letters
        assert dead.message_id == receipt.message_id
        assert (dead.body, dead.tag, dead.keys, dead.properties) == (ALL_BYTES, "t", {"k"}, {"p": "v"})
        assert dead.delivery_attempt == 1
    with raw_client(shared_broker) as raw:
        status, (dead,) = raw.receive(dead_letters, f"{name}-undertaker", poll_s=8)
        assert status.code == Code.OK
        assert dead.system_properties.dead_letter_queue.topic == name
        assert dead.system_properties.dead_letter_queue.message_id == receipt.message_id


def test_a_batch_of_receives_never_exceeds_what_was_asked_for(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        for i in range(40):
            client.send(message(name, f"{i}".encode()))
        received = []
        while len(received) < 7:
            batch = consumer.receive(3, LONG_LEASE)
            assert 0 < len(batch) <= 3
            received += batch
        for each in received + receive(consumer, 40 - len(received)):
            consumer.ack(each)
