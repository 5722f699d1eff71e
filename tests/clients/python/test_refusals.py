"""What the broker must refuse, and that it says what to do."""

import logging

import grpc
import pytest
from broker import HttpProblem
from clients import Checker, message, producer, send_half, simple_consumer
from raw import raw_client, raw_message
from rocketmq import FilterExpression
from wire import Code, MessageType, NotifyClientTerminationRequest, PullMessageRequest, RecallMessageRequest
from rocketmq.v5.exception import ClientException, NotFoundException


def test_an_unknown_topic_is_not_found_and_the_text_names_the_creating_command(shared_broker, name):
    with raw_client(shared_broker) as raw:
        for status in (raw.route(name).status, raw.send(raw_message(name)).status, raw.receive(name, "g")[0]):
            assert status.code == Code.TOPIC_NOT_FOUND
            assert f"vouch topic create {name}" in status.message


def test_the_client_reports_an_unknown_topic(shared_broker, name, caplog):
    # This client keeps the server's text in its log and raises its own sentence.
    log = logging.getLogger("rocketmq-python-client")
    log.addHandler(caplog.handler)
    try:
        with producer(shared_broker) as client:
            with pytest.raises(Exception, match=f"failed to fetch topic:{name} route"):
                client.send(message(name))
    finally:
        log.removeHandler(caplog.handler)
    assert f"vouch topic create {name}" in caplog.text


def test_a_topic_deleted_under_a_producer_is_not_found(shared_broker, name):
    shared_broker.create_topic(name)
    with producer(shared_broker, name) as client:
        client.send(message(name))
        shared_broker.call("DELETE", f"/v1/topics/{name}?force=true")
        with pytest.raises(NotFoundException) as refusal:
            client.send(message(name))
    assert refusal.value.code == Code.TOPIC_NOT_FOUND
    assert f"vouch topic create {name}" in str(refusal.value)


def test_deleting_a_topic_with_unconsumed_messages_needs_force(shared_broker, name):
    shared_broker.create_topic(name)
    # A subscription that has not consumed it yet.
    with producer(shared_broker, name) as client, simple_consumer(shared_broker, name, name) as consumer:
        assert consumer.receive(1, 10) == []
        client.send(message(name))
        with pytest.raises(HttpProblem) as refusal:
            shared_broker.call("DELETE", f"/v1/topics/{name}")
    assert refusal.value.status == 409
    assert "force" in str(refusal.value.body)


@pytest.mark.parametrize("topic_type, kind", [
    ("normal", MessageType.TRANSACTION),
    ("normal", MessageType.FIFO),
    ("normal", MessageType.DELAY),
    ("transaction", MessageType.NORMAL),
    ("transaction", MessageType.FIFO),
])
def test_a_topic_takes_only_messages_of_its_type(shared_broker, name, topic_type, kind):
    shared_broker.create_topic(name, topic_type)
    unfit = raw_message(name, kind=kind)
    if kind == MessageType.FIFO:
        unfit.system_properties.message_group = "group"
    if kind == MessageType.DELAY:
        unfit.system_properties.delivery_timestamp.seconds = unfit.system_properties.born_timestamp.seconds + 60
    with raw_client(shared_broker) as raw:
        status = raw.send(unfit).status
        assert status.code == Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, status
        assert topic_type in status.message.lower()


def test_the_client_learns_the_topic_type_from_the_route(shared_broker, name):
    shared_broker.create_topic(f"{name}-n", "normal")
    shared_broker.create_topic(f"{name}-t", "transaction")
    with producer(shared_broker, f"{name}-n", f"{name}-t", checker=Checker()) as client:
        with pytest.raises(ClientException, match="not match"):
            client.send(message(f"{name}-t"))
        with pytest.raises(ClientException, match="not match"):
            send_half(client, f"{name}-n", "key")


def test_a_mixed_topic_takes_normal_messages_and_transactions(shared_broker, name):
    shared_broker.create_topic(name, "mixed")
    with producer(shared_broker, name, checker=Checker()) as client, \
            simple_consumer(shared_broker, name, name) as consumer:
        client.send(message(name, b"normal"))
        transaction, _ = send_half(client, name, "half")
        transaction.commit()
        received = []
        while len(received) < 2:
            received += consumer.receive(8, 30)
        for each in received:
            consumer.ack(each)
    assert {m.body for m in received} == {b"normal", b"half"}


def test_an_sql_filter_is_refused_with_a_sentence(shared_broker, name):
    shared_broker.create_topic(name)
    with simple_consumer(shared_broker, name, name) as consumer:
        consumer.subscribe(name, FilterExpression("a > 5", 2))
        with pytest.raises(ClientException) as refusal:
            consumer.receive(1, 10)
    assert "SQL" in str(refusal.value)


def test_what_is_not_built_says_so(shared_broker, name):
    shared_broker.create_topic(name)
    with raw_client(shared_broker) as raw:
        recall = RecallMessageRequest(recall_handle="handle")
        recall.topic.name = name
        status = raw.call("RecallMessage", recall).status
        assert status.code not in (Code.OK, Code.MESSAGE_NOT_FOUND), "this would read as recalled"
        assert status.message

        pull = PullMessageRequest(offset=0, batch_size=1)
        pull.group.name = "g"
        pull.message_queue.topic.name = name
        try:
            statuses = [element.status.code for element in raw.call("PullMessage", pull)]
            assert statuses and Code.OK not in statuses
        except grpc.RpcError as refusal:
            assert refusal.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("break_it, code", [
    (lambda m: setattr(m.system_properties, "tag", "a|b"), Code.ILLEGAL_MESSAGE_TAG),
    (lambda m: setattr(m.system_properties, "tag", "  "), Code.ILLEGAL_MESSAGE_TAG),
    (lambda m: m.system_properties.keys.append("   "), Code.ILLEGAL_MESSAGE_KEY),
    (lambda m: m.user_properties.update({"KEYS": "v"}), Code.ILLEGAL_MESSAGE_PROPERTY_KEY),
    (lambda m: m.user_properties.update({"k": "a\x07b"}), Code.ILLEGAL_MESSAGE_PROPERTY_KEY),
    (lambda m: m.user_properties.update({f"k{i}": "v" for i in range(129)}), Code.MESSAGE_PROPERTIES_TOO_LARGE),
    (lambda m: m.user_properties.update({"k": "v" * 16_384}), Code.MESSAGE_PROPERTIES_TOO_LARGE),
    (lambda m: setattr(m.system_properties, "message_id", "  "), Code.ILLEGAL_MESSAGE_ID),
    (lambda m: setattr(m.topic, "name", "t" * 128), Code.ILLEGAL_TOPIC),
    (lambda m: setattr(m.topic, "name", "with.dot"), Code.ILLEGAL_TOPIC),
], ids=["tag-bar", "tag-blank", "key-blank", "reserved", "control", "129-properties", "16-KiB-and-one", "id-blank",
        "topic-128", "topic-dot"])
def test_a_malformed_message_is_refused_with_its_own_code(shared_broker, name, break_it, code):
    shared_broker.create_topic(name)
    broken = raw_message(name)
    break_it(broken)
    with raw_client(shared_broker) as raw:
        answer = raw.send(broken)
    assert answer.status.code == code, answer
    assert answer.status.message
    assert not answer.entries


def test_the_limits_themselves_are_accepted(shared_broker, name):
    shared_broker.create_topic(name)
    many = raw_message(name)
    many.user_properties.update({f"k{i}": "v" for i in range(128)})
    large = raw_message(name)
    large.user_properties.update({"k": "v" * 16_383})
    with raw_client(shared_broker) as raw:
        assert raw.send(many).status.code == Code.OK
        assert raw.send(large).status.code == Code.OK


def test_a_call_without_client_id_is_refused_in_the_status(shared_broker, name):
    shared_broker.create_topic(name)
    with raw_client(shared_broker, client_id=" ") as raw:
        assert raw.send(raw_message(name)).status.code == Code.CLIENT_ID_REQUIRED
        assert raw.route(name).status.code == Code.CLIENT_ID_REQUIRED


def test_termination_of_an_unknown_client_is_fine(shared_broker):
    with raw_client(shared_broker) as raw:
        assert raw.call("NotifyClientTermination", NotifyClientTerminationRequest()).status.code == Code.OK


def test_routes_are_stable_and_echo_the_access_point(shared_broker, name):
    shared_broker.create_topic(name, queues=8)
    with raw_client(shared_broker) as raw:
        first, second = raw.route(name), raw.route(name)
        assert first == second
        assert [queue.id for queue in first.message_queues] == list(range(8))
        for queue in first.message_queues:
            assert queue.permission == 4  # READ_WRITE
            assert (queue.broker.id, bool(queue.broker.name)) == (0, True)
            (address,) = queue.broker.endpoints.addresses
            assert (address.host, address.port) == (raw.host, raw.port)
            assert list(queue.accept_message_types) == [MessageType.NORMAL]
