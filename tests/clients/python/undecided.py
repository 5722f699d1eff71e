"""Producers that never know: they send half messages, many at once, are asked about them over their streams as official
clients are, and answer *undecided* at once. An official client says nothing when its checker does not know, so that the broker
waits for it; that is too slow for many."""

import queue
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor

from broker import wait_until
from raw import RawClient, raw_message
from wire import ClientType, Code, EndTransactionRequest, MessageType, TelemetryCommand, TransactionSource

BATCH = 500
# A node that is paused answers late, and nothing is wrong with that.
ANSWERED_WITHIN_S = 60


class Undecided:
    """Some clients, and a ledger of the halves that they sent and of what they were asked. Half number i says that it wants
    its first check `first_s(i)` seconds after it was stored; the next ones come as the topic's `interval_s` says."""

    def __init__(self, broker, topic: str, interval_s: float, first_s, clients: int = 4):
        self.topic, self.interval_s, self.first_s = topic, interval_s, first_s
        self.clients = [RawClient(broker) for _ in range(clients)]
        self.lock = threading.Lock()
        self.ids = {}              # transaction → its number
        self.names = []            # by number: message id
        self.sent = array("d")     # when the send of each began
        self.asked = array("I")    # how often each was asked about
        self.latest = array("d")   # when each was asked about the last time
        self.behind = array("f")   # of each question, for how long it had been due
        self.early = []            # questions that came before they may
        self.strange = []          # questions about what nobody sent, and answers that were refused
        self.questions = self.answered = 0
        self.streams = []

    def __enter__(self) -> "Undecided":
        for client in self.clients:
            out = queue.SimpleQueue()
            out.put(_settings(self.topic))
            stream = client.stub.Telemetry(iter(out.get, None), metadata=client.metadata())
            thread = threading.Thread(target=self._answer, args=(client, stream), daemon=True)
            self.streams.append((out, thread))
            thread.start()
        return self

    def __exit__(self, failed, *_):
        """They go, and have answered everything that they were asked."""
        for out, _ in self.streams:
            out.put(None)
        try:
            if not failed:
                wait_until(lambda: not any(thread.is_alive() for _, thread in self.streams), "the streams end", 10)
                wait_until(lambda: self.answered == self.questions, "all answers were told what became of them",
                           ANSWERED_WITHIN_S)
        finally:
            for client in self.clients:
                client.channel.close()

    # -- what is sent --------------------------------------------------------------------------------------------------

    def open(self, count: int):
        """Sends so many halves, once; each client a part of them."""
        self.names = [None] * count
        for times in (self.sent, self.asked, self.latest):
            times.extend([0] * count)
        with ThreadPoolExecutor(len(self.clients)) as pool:
            sends = [pool.submit(self._send, self.clients[turn % len(self.clients)], range(first, min(first + BATCH, count)))
                     for turn, first in enumerate(range(0, count, BATCH))]
            for each in sends:
                each.result()

    def _send(self, client, numbers):
        made = []
        for number in numbers:
            each = raw_message(self.topic, b"undecided-%d" % number, MessageType.TRANSACTION)
            each.user_properties["vouch-check-first"] = str(self.first_s(number))
            made.append(each)
        began = time.monotonic()
        answer = client.send(*made)
        assert answer.status.code == Code.OK, answer.status
        with self.lock:
            for number, entry in zip(numbers, answer.entries):
                self.names[number], self.sent[number] = entry.message_id, began
                self.ids[entry.transaction_id] = number

    # -- what is asked -------------------------------------------------------------------------------------------------

    def due(self, number: int) -> float:
        """Before this time the next question about it may not come: its checks are due so long after it was stored, which
        was after its send began, and each was made after it was due."""
        return self.sent[number] + self.first_s(number) + self.asked[number] * self.interval_s

    def _answer(self, client, stream):
        for command in stream:
            if command.WhichOneof("command") != "recover_orphaned_transaction_command":
                continue
            now, question = time.monotonic(), command.recover_orphaned_transaction_command
            self._note(now, question)
            request = EndTransactionRequest(message_id=question.message.system_properties.message_id,
                                            transaction_id=question.transaction_id,
                                            source=TransactionSource.SOURCE_SERVER_CHECK)
            request.topic.name = self.topic
            call = client.stub.EndTransaction.future(request, metadata=client.metadata(), timeout=ANSWERED_WITHIN_S)
            call.add_done_callback(self._note_answered)

    def _note(self, now, question):
        with self.lock:
            self.questions += 1
            number = self.ids.get(question.transaction_id)
            if number is None or self.names[number] != question.message.system_properties.message_id:
                self.strange.append(f"a question about {question.transaction_id}")
                return
            since = self.latest[number] + self.interval_s if self.asked[number] else self.due(number)
            self.behind.append(now - since)
            # The broker's times are whole milliseconds: one was cut off when it was stored, one at each check.
            if now < self.due(number) - 0.001 * (1 + self.asked[number]):
                self.early.append(f"{question.transaction_id}: question {self.asked[number] + 1} came "
                                  f"{self.due(number) - now:.3f} s before it may")
            self.asked[number] += 1
            self.latest[number] = now

    def _note_answered(self, call):
        problem = call.exception()
        told = str(problem) if problem else Code.Name(call.result().status.code)
        with self.lock:
            self.answered += 1
            if told != "OK":
                self.strange.append(f"an answer was told {told}")

    def latest_behind(self, last: int = 50) -> float:
        """For how long the latest questions had been due when they came; of them the one that waited longest."""
        with self.lock:
            return max(self.behind[-last:], default=0.0)


def _settings(topic):
    """As an official producer introduces itself."""
    command = TelemetryCommand()
    command.settings.client_type = ClientType.PRODUCER
    command.settings.publishing.topics.add().name = topic
    return command
