"""The wire types the official client was generated from, for the calls that tests make by hand."""

from rocketmq.grpc_protocol.definition_pb2 import (AddressScheme, ClientType, Code, DigestType, Encoding, Message,
                                                   MessageType, TransactionResolution, TransactionSource)
from rocketmq.grpc_protocol.service_pb2 import (AckMessageRequest, EndTransactionRequest, HeartbeatRequest,
                                                NotifyClientTerminationRequest, PullMessageRequest,
                                                QueryRouteRequest, RecallMessageRequest, ReceiveMessageRequest,
                                                SendMessageRequest, TelemetryCommand)
from rocketmq.grpc_protocol.service_pb2_grpc import MessagingServiceStub

__all__ = [
    "AckMessageRequest", "AddressScheme", "ClientType", "Code", "DigestType", "Encoding", "EndTransactionRequest",
    "HeartbeatRequest", "Message", "MessageType", "MessagingServiceStub", "NotifyClientTerminationRequest",
    "PullMessageRequest", "QueryRouteRequest", "RecallMessageRequest", "ReceiveMessageRequest", "SendMessageRequest",
    "TelemetryCommand", "TransactionResolution", "TransactionSource",
]
