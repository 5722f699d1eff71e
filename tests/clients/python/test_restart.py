"""What survives a stop, a kill -9 and a start."""

import json
import subprocess
import time

from broker import binary, wait_until
from clients import (COMMIT, LONG_LEASE, SHORT_LEASE, Checker, assert_nothing_arrives, message, producer, receive,
                     receive_and_ack, receive_one, send_half, simple_consumer)


def test_acknowledged_sends_survive_kill_9_and_acks_do_too(own_broker, name):
    own_broker.create_topic(name)
    with producer(own_broker, name) as client, simple_consumer(own_broker, name, name) as consumer:
        sent = {client.send(message(name, f"{i}".encode(), keys=[f"k{i}"])).message_id: f"{i}".encode()
                for i in range(50)}
        gone = receive(consumer, 50, lease=8)[:20]
        for each in gone:
            consumer.ack(each)
        own_broker.kill()
    own_broker.start()
    remaining = set(sent) - {m.message_id for m in gone}
    with simple_consumer(own_broker, name, name) as consumer:
        # Leases are not waited for (ruling 10): a lost one means redelivery, a kept one runs out.
        again = receive_and_ack(consumer, 30, deadline_s=30)
        assert {m.message_id for m in again} == remaining
        assert all(sent[m.message_id] == m.body for m in again)
        assert_nothing_arrives(consumer)


def test_an_acknowledged_message_stays_gone_after_a_clean_restart(own_broker, name):
    own_broker.create_topic(name)
    with producer(own_broker, name) as client, simple_consumer(own_broker, name, name) as consumer:
        client.send(message(name, b"done"))
        consumer.ack(receive_one(consumer, SHORT_LEASE))
        kept = client.send(message(name, b"kept")).message_id
    assert own_broker.stop() == 0
    own_broker.start()
    with simple_consumer(own_broker, name, name) as consumer:
        assert [m.message_id for m in receive_and_ack(consumer, 1)] == [kept]
        assert_nothing_arrives(consumer, SHORT_LEASE + 3)


def test_clients_go_on_after_a_restart_without_being_restarted(own_broker, name):
    own_broker.create_topic(name)
    with producer(own_broker, name) as client, simple_consumer(own_broker, name, name) as consumer:
        client.send(message(name, b"before"))
        receive_and_ack(consumer, 1)
        own_broker.kill()
        own_broker.start()
        send_until_accepted(client, name, b"after")
        assert [m.body for m in receive_until_some(consumer)] == [b"after"]


def test_a_receipt_handle_stays_valid_over_a_restart(own_broker, name):
    own_broker.create_topic(name)
    with producer(own_broker, name) as client, simple_consumer(own_broker, name, name) as consumer:
        client.send(message(name))
        received = receive_one(consumer, LONG_LEASE)
        # The lease is in the log once anything after it was synced.
        client.send(message(name, b"second"))
        assert own_broker.stop() == 0
        own_broker.start()
        wait_until(lambda: _acked(consumer, received), "the old handle is accepted", 20)
        assert [m.body for m in receive_until_some(consumer)] == [b"second"]
        assert_nothing_arrives(consumer)


def test_half_messages_survive_kill_9_and_are_settled_afterwards(own_broker, name):
    own_broker.create_transaction_topic(name)
    with producer(own_broker, name, checker=Checker()) as client:
        _, receipt = send_half(client, name, "order-1")
        own_broker.kill()
    own_broker.start()
    with simple_consumer(own_broker, name, name) as consumer:
        assert_nothing_arrives(consumer)
        answering = Checker({"order-1": COMMIT})
        with producer(own_broker, name, checker=answering):
            received = receive_one(consumer, deadline_s=20)
            consumer.ack(received)
    assert received.message_id == receipt.message_id
    assert received.body == b"order-1"
    assert own_broker.transaction(receipt.transaction_id)["state"] == "committed"


def test_outcomes_survive_kill_9(own_broker, name):
    own_broker.create_transaction_topic(name, immunity="1h")
    with producer(own_broker, name, checker=Checker()) as client:
        committed, committed_receipt = send_half(client, name, "committed")
        rolled_back, rolled_back_receipt = send_half(client, name, "rolled-back")
        committed.commit()
        rolled_back.rollback()
    own_broker.kill()
    own_broker.start()
    assert own_broker.transaction(committed_receipt.transaction_id)["state"] == "committed"
    assert own_broker.transaction(rolled_back_receipt.transaction_id)["state"] == "rolled_back"
    with simple_consumer(own_broker, name, name) as consumer:
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"committed"]
        assert_nothing_arrives(consumer)


def test_sigterm_answers_waiting_receives_and_ends_with_status_0(own_broker, name):
    own_broker.create_topic(name)
    with simple_consumer(own_broker, name, name, poll=15) as consumer:
        waiting = consumer.receive_async(1, 10)
        time.sleep(1)
        began = time.monotonic()
        assert own_broker.stop() == 0
        assert time.monotonic() - began < 8, "a waiting receive must not hold up the stop"
        try:
            assert waiting.result(5) == []
        except Exception as failure:  # the connection may be gone first, but nothing may hang
            assert not isinstance(failure, TimeoutError)


def test_a_second_broker_on_the_same_folder_is_refused(own_broker):
    second = subprocess.run(
        [str(binary()), "serve", "--data-dir", str(own_broker.data_dir),
         "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=20)
    assert second.returncode == 1
    assert str(own_broker.data_dir) in second.stderr
    # And it has not taken away what the first one wrote.
    assert json.loads((own_broker.data_dir / "endpoints.json").read_text())["pid"] == own_broker.process.pid


def send_until_accepted(client, topic, body, deadline_s=20):
    """The client gives up after three quick tries; an application tries again."""
    def attempt():
        try:
            return client.send(message(topic, body))
        except Exception:
            return None
    return wait_until(attempt, "a send is accepted after the restart", deadline_s, 0.3)


def receive_until_some(consumer, deadline_s=20):
    def attempt():
        try:
            return consumer.receive(8, LONG_LEASE)
        except Exception:
            return None
    received = wait_until(attempt, "something is received after the restart", deadline_s, 0.3)
    for each in received:
        consumer.ack(each)
    return received


def _acked(consumer, received):
    try:
        consumer.ack(received)
        return True
    except Exception as failure:
        assert getattr(failure, "code", lambda: None) != 40013, failure
        return False
