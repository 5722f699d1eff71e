"""Transactions decided by the client: at once, or when the broker asks its checker."""

import pytest
from broker import HttpProblem, wait_until
from clients import (COMMIT, ROLLBACK, UNKNOWN, Checker, assert_nothing_arrives, message, producer, receive_and_ack,
                     receive_one, send_half, simple_consumer)
from raw import raw_client, raw_message
from wire import Code, EndTransactionRequest, MessageType
from rocketmq.v5.exception import ClientException

NEVER_ASKED = {"immunity": "1h", "interval": "1h"}


def state(broker, receipt):
    return broker.transaction(receipt.transaction_id)["state"]


def becomes(broker, receipt, wanted, deadline_s=25):
    return wait_until(lambda: (t := broker.transaction(receipt.transaction_id))["state"] == wanted and t,
                      f"transaction {receipt.transaction_id} is {wanted}", deadline_s)


def test_a_committed_message_is_visible_after_the_commit_and_not_before(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    body = bytes(range(256))
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        transaction, receipt = send_half(client, name, "order-1", body, tag="paid", properties={"größe": "süß"})
        assert_nothing_arrives(consumer)
        assert state(shared_broker, receipt) == "open"
        transaction.commit()
        received = receive_one(consumer)
        consumer.ack(received)
        assert_nothing_arrives(consumer)
    assert received.message_id == receipt.message_id
    assert (received.body, received.tag, received.keys) == (body, "paid", {"order-1"})
    assert received.properties == {"größe": "süß"}
    assert received.delivery_attempt == 1
    assert state(shared_broker, receipt) == "committed"


def test_a_rolled_back_message_is_never_seen(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        transaction, receipt = send_half(client, name, "order-1")
        transaction.rollback()
        assert_nothing_arrives(consumer)
    assert state(shared_broker, receipt) == "rolled_back"


def test_the_same_decision_again_is_fine_and_adds_nothing(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        committed, _ = send_half(client, name, "committed")
        rolled_back, _ = send_half(client, name, "rolled-back")
        for _ in range(3):
            committed.commit()
            rolled_back.rollback()
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"committed"]
        assert_nothing_arrives(consumer)


def test_the_opposite_decision_is_a_conflict_that_names_the_recorded_outcome(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        committed, committed_receipt = send_half(client, name, "committed")
        rolled_back, rolled_back_receipt = send_half(client, name, "rolled-back")
        committed.commit()
        rolled_back.rollback()
        for opposite, outcome in ((committed.rollback, "committed"), (rolled_back.commit, "rolled")):
            with pytest.raises(ClientException) as refusal:
                opposite()
            assert refusal.value.code == Code.PRECONDITION_FAILED
            assert outcome in str(refusal.value).lower()
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"committed"]
        assert_nothing_arrives(consumer)
    assert state(shared_broker, committed_receipt) == "committed"
    assert state(shared_broker, rolled_back_receipt) == "rolled_back"


def test_unknown_and_blank_transaction_ids_are_refused(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    with raw_client(shared_broker) as raw:
        half = raw_message(name, kind=MessageType.TRANSACTION)
        entry = raw.send(half).entries[0]
        for id in ("", "   ", "garbage", entry.transaction_id[:-1], entry.transaction_id + "0"):
            end = EndTransactionRequest(message_id=entry.message_id, transaction_id=id, resolution=COMMIT)
            end.topic.name = name
            status = raw.call("EndTransaction", end).status
            assert status.code == Code.INVALID_TRANSACTION_ID, (id, status)
    assert shared_broker.transaction(entry.transaction_id)["state"] in ("open", "waiting_for_checker")


def test_a_resent_half_message_gets_the_first_ones_transaction(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    with raw_client(shared_broker) as raw, simple_consumer(shared_broker, name, name) as consumer:
        half = raw_message(name, b"once", MessageType.TRANSACTION)
        first, second = (raw.send(half).entries[0] for _ in range(2))
        assert first.transaction_id == second.transaction_id
        end = EndTransactionRequest(message_id=first.message_id, transaction_id=first.transaction_id,
                                    resolution=COMMIT)
        end.topic.name = name
        assert raw.call("EndTransaction", end).status.code == Code.OK
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"once"]
        assert_nothing_arrives(consumer)


@pytest.mark.parametrize("answer, outcome", [(COMMIT, "committed"), (ROLLBACK, "rolled_back")])
def test_an_orphan_is_settled_by_the_checker(shared_broker, name, answer, outcome):
    shared_broker.create_transaction_topic(name)
    checker = Checker({"order-1": answer})
    with producer(shared_broker, name, checker=checker) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        _, receipt = send_half(client, name, "order-1", bytes(range(256)), tag="t", properties={"p": "v"})
        becomes(shared_broker, receipt, outcome)
        if outcome == "committed":
            assert receive_and_ack(consumer, 1)[0].message_id == receipt.message_id
        assert_nothing_arrives(consumer)
    (asked,) = checker.asked["order-1"]
    assert asked.message_id == receipt.message_id
    assert (asked.body, asked.tag, asked.properties) == (bytes(range(256)), "t", {"p": "v"})
    assert not asked.corrupted


def test_undecided_checks_keep_the_transaction_open_until_one_decides(shared_broker, name):
    shared_broker.create_transaction_topic(name)
    checker = Checker({"order-1": [UNKNOWN, UNKNOWN, UNKNOWN, COMMIT]})
    with producer(shared_broker, name, checker=checker) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        _, receipt = send_half(client, name, "order-1")
        received = receive_one(consumer, deadline_s=30)
        consumer.ack(received)
        assert_nothing_arrives(consumer)
    assert received.message_id == receipt.message_id
    assert len(checker.asked["order-1"]) == 4
    assert state(shared_broker, receipt) == "committed"


def test_an_ended_transaction_still_says_how_many_answers_left_it_open(shared_broker, name):
    shared_broker.create_transaction_topic(name)
    checker = Checker({"order-1": [UNKNOWN, COMMIT]})
    with producer(shared_broker, name, checker=checker) as client:
        _, receipt = send_half(client, name, "order-1")
        ended = becomes(shared_broker, receipt, "committed")
    assert ended["checks"] == 1, "what decides is the last answer, not one of those that left it open"
    assert (ended["last_answer"]["verdict"], client.client_id in ended["last_answer"]["by"]) == ("commit", True)


def test_a_silent_checker_counts_as_undecided_once_its_client_was_heard_again(shared_broker, name):
    shared_broker.create_transaction_topic(name)
    # This client keeps silent when its checker raises, as the Java, Node and Go clients do when undecided.
    checker = Checker({"order-1": [RuntimeError("database is down"), COMMIT]})
    with producer(shared_broker, name, checker=checker) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        _, receipt = send_half(client, name, "order-1")
        # The next heartbeat comes within 10 s; it is what proves that the client heard the ask.
        def counted():
            transaction = shared_broker.transaction(receipt.transaction_id)
            return transaction if transaction["checks"] >= 1 or transaction["state"] == "committed" else None

        transaction = wait_until(counted, "the silence was counted", 25)
        assert transaction["state"] == "committed" or "silent" in str(transaction["last_answer"]), transaction
        assert receive_and_ack(consumer, 1, deadline_s=25)[0].message_id == receipt.message_id
    assert len(checker.asked["order-1"]) == 2


def test_the_last_allowed_unknown_parks_and_only_a_decision_ends_it(shared_broker, name):
    shared_broker.create_transaction_topic(name, max_checks=2)
    checker = Checker({"order-1": UNKNOWN})
    with producer(shared_broker, name, checker=checker) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        transaction, receipt = send_half(client, name, "order-1")
        parked = becomes(shared_broker, receipt, "parked")
        assert parked["checks"] == 2
        assert_nothing_arrives(consumer, 4)
        assert len(checker.asked["order-1"]) == 2, "a parked transaction is not asked for"
        listed = shared_broker.call("GET", f"/v1/transactions?state=parked&topic={name}")["items"]
        assert [t["id"] for t in listed] == [receipt.transaction_id]

        # PARKED stops the asking, no more (ruling 5): the client may still decide.
        transaction.commit()
        assert receive_and_ack(consumer, 1)[0].message_id == receipt.message_id
    assert state(shared_broker, receipt) == "committed"


def test_a_parked_transaction_can_be_resumed(shared_broker, name):
    shared_broker.create_transaction_topic(name, max_checks=1)
    checker = Checker({"order-1": [UNKNOWN, COMMIT]})
    with producer(shared_broker, name, checker=checker) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        _, receipt = send_half(client, name, "order-1")
        becomes(shared_broker, receipt, "parked")
        shared_broker.call("POST", f"/v1/transactions/{receipt.transaction_id}/resume",
                           {"by": "test", "reason": "the database is back"})
        assert receive_and_ack(consumer, 1)[0].message_id == receipt.message_id
    assert len(checker.asked["order-1"]) == 2


def test_an_operator_decides_over_http_and_the_opposite_is_a_conflict(shared_broker, name):
    shared_broker.create_transaction_topic(name, **NEVER_ASKED)
    why = {"by": "test", "reason": "looked into the database"}
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        _, kept = send_half(client, name, "kept")
        transaction, dropped = send_half(client, name, "dropped")
        for _ in range(2):  # a repeat is 200 with the recorded outcome
            shared_broker.call("POST", f"/v1/transactions/{kept.transaction_id}/commit", why)
            shared_broker.call("POST", f"/v1/transactions/{dropped.transaction_id}/rollback", why)
        with pytest.raises(HttpProblem) as refusal:
            shared_broker.call("POST", f"/v1/transactions/{kept.transaction_id}/rollback", why)
        assert refusal.value.status == 409
        assert refusal.value.body["outcome"] == "committed"
        with pytest.raises(ClientException) as refusal:
            transaction.commit()
        assert refusal.value.code == Code.PRECONDITION_FAILED
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"kept"]
        assert_nothing_arrives(consumer)


def test_without_anybody_to_ask_the_transaction_waits_and_counts_nothing(shared_broker, name):
    shared_broker.create_transaction_topic(name)
    with producer(shared_broker, name, checker=Checker()) as client:
        _, receipt = send_half(client, name, "order-1")
    with simple_consumer(shared_broker, name, name) as consumer:
        becomes(shared_broker, receipt, "waiting_for_checker", 20)
        assert_nothing_arrives(consumer, 5)
        waiting = shared_broker.transaction(receipt.transaction_id)
        assert (waiting["state"], waiting["checks"]) == ("waiting_for_checker", 0)

        # Another instance that declares the topic is asked as soon as it is there.
        answering = Checker({"order-1": COMMIT})
        with producer(shared_broker, name, checker=answering):
            assert receive_and_ack(consumer, 1, deadline_s=25)[0].message_id == receipt.message_id
    assert len(answering.asked["order-1"]) == 1


def test_the_sender_itself_is_asked_first(shared_broker, name):
    shared_broker.create_transaction_topic(name)
    bystander, sender = Checker({"order-1": ROLLBACK}), Checker({"order-1": COMMIT})
    with producer(shared_broker, name, checker=bystander), \
            producer(shared_broker, name, checker=sender) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        _, receipt = send_half(client, name, "order-1")
        assert receive_and_ack(consumer, 1)[0].message_id == receipt.message_id
    assert (len(sender.asked["order-1"]), len(bystander.asked["order-1"])) == (1, 0)


def test_a_schedule_replaces_the_interval(shared_broker, name):
    shared_broker.create_transaction_topic(name, interval="1h", schedule=["1s", "1s", "1h"])
    checker = Checker({"order-1": UNKNOWN})
    with producer(shared_broker, name, checker=checker) as client:
        _, receipt = send_half(client, name, "order-1")
        # immunity, then two steps of the schedule, then an hour.
        wait_until(lambda: len(checker.asked["order-1"]) == 3, "three checks", 15)
        with simple_consumer(shared_broker, name, name) as consumer:
            assert_nothing_arrives(consumer, 4)
        assert len(checker.asked["order-1"]) == 3
    assert shared_broker.transaction(receipt.transaction_id)["checks"] == 3


def test_many_transactions_end_each_as_it_was_decided(shared_broker, name):
    shared_broker.create_transaction_topic(name)
    decisions = {f"order-{i}": (COMMIT, ROLLBACK, [UNKNOWN, COMMIT])[i % 3] for i in range(60)}
    with producer(shared_broker, name, checker=Checker(decisions)) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        for key in decisions:
            send_half(client, name, key)
        expected = {key.encode() for key, decision in decisions.items() if decision != ROLLBACK}
        received = receive_and_ack(consumer, len(expected), deadline_s=60)
        assert {m.body for m in received} == expected
        assert_nothing_arrives(consumer)
    assert shared_broker.call("GET", f"/v1/transactions?state=open&topic={name}")["items"] == []


def test_normal_messages_are_not_held_up_by_open_transactions(shared_broker, name):
    shared_broker.create_topic(name, "mixed", transaction=NEVER_ASKED)
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        transaction, _ = send_half(client, name, "half")
        client.send(message(name, b"normal"))
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"normal"]
        transaction.commit()
        assert [m.body for m in receive_and_ack(consumer, 1)] == [b"half"]
