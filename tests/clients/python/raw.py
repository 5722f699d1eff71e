"""Hand-made gRPC calls with the client's own generated types, for what the client's API cannot express or hides."""

import time
import uuid
from contextlib import contextmanager

import grpc
from wire import (AckMessageRequest, AddressScheme, ClientType, Encoding, EndTransactionRequest, HeartbeatRequest, Message,
                  MessageType, MessagingServiceStub, QueryRouteRequest, ReceiveMessageRequest, SendMessageRequest,
                  TransactionResolution, TransactionSource)

TIMEOUT_S = 5


class RawClient:
    """One client id on one channel."""

    def __init__(self, broker, client_id=None, language="PYTHON"):
        self.language = language
        self.channel = grpc.insecure_channel(broker.grpc, [
            ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ])
        self.stub = MessagingServiceStub(self.channel)
        self.host, port = broker.grpc.rsplit(":", 1)
        self.port = int(port)
        self.client_id = client_id or f"raw-{uuid.uuid4().hex}"

    def metadata(self):
        return (("x-mq-client-id", self.client_id), ("x-mq-language", self.language), ("x-mq-protocol", "v2"))

    def call(self, method, request, timeout=TIMEOUT_S):
        return getattr(self.stub, method)(request, metadata=self.metadata(), timeout=timeout)

    def route(self, topic):
        request = QueryRouteRequest()
        request.topic.name = topic
        request.endpoints.scheme = AddressScheme.IPv4
        address = request.endpoints.addresses.add()
        address.host, address.port = self.host, self.port
        return self.call("QueryRoute", request)

    def heartbeat(self, client_type=ClientType.SIMPLE_CONSUMER, group=None):
        request = HeartbeatRequest()
        request.client_type = client_type
        if group:
            request.group.name = group
        return self.call("Heartbeat", request)

    def send(self, *messages):
        return self.call("SendMessage", SendMessageRequest(messages=messages))

    def end(self, topic, message_id, transaction_id, commit=True):
        """Ends a transaction; returns the code of the answer."""
        request = EndTransactionRequest(message_id=message_id, transaction_id=transaction_id)
        request.topic.name = topic
        request.resolution = TransactionResolution.COMMIT if commit else TransactionResolution.ROLLBACK
        request.source = TransactionSource.SOURCE_CLIENT
        return self.call("EndTransaction", request).status.code

    def ack(self, topic, group, message):
        """Acknowledges a message that somebody received; returns the code of the answer."""
        request = AckMessageRequest()
        request.topic.name, request.group.name = topic, group
        entry = request.entries.add()
        properties = getattr(message, "system_properties", message)  # as the wire has it, or the client
        entry.message_id, entry.receipt_handle = properties.message_id, properties.receipt_handle
        answer = self.call("AckMessage", request)
        return answer.entries[0].status.code if answer.entries else answer.status.code

    def receive(self, topic, group, batch=32, lease_s=60, poll_s=2, expression="*", filter_type=1, renew=False):
        """All elements of one receive: (status, messages). `renew`: as a push consumer, whose leases the broker extends."""
        request = ReceiveMessageRequest()
        request.group.name = group
        request.message_queue.topic.name = topic
        request.filter_expression.type = filter_type
        request.filter_expression.expression = expression
        request.batch_size = batch
        if renew:
            request.auto_renew = True
        else:
            request.invisible_duration.seconds = lease_s
        request.long_polling_timeout.seconds = poll_s
        status, messages = None, []
        for element in self.call("ReceiveMessage", request, timeout=poll_s + TIMEOUT_S):
            content = element.WhichOneof("content")
            assert content, "an element of the stream without content"
            if content == "status":
                assert status is None, "two statuses in one stream"
                status = element.status
            elif content == "message":
                messages.append(element.message)
        assert status is not None, "a stream without status"
        return status, messages


@contextmanager
def raw_client(broker, client_id=None, language="PYTHON"):
    client = RawClient(broker, client_id, language)
    try:
        yield client
    finally:
        client.channel.close()


def raw_message(topic, body=b"body", kind=MessageType.NORMAL, **system):
    made = Message()
    made.topic.name = topic
    made.body = body
    made.system_properties.message_id = uuid.uuid4().hex.upper()
    made.system_properties.message_type = kind
    made.system_properties.body_encoding = Encoding.IDENTITY
    made.system_properties.born_timestamp.seconds = int(time.time())
    made.system_properties.born_host = "127.0.0.1"
    for name, value in system.items():
        setattr(made.system_properties, name, value)
    return made
