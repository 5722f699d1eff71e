"""A service that writes a row for each message, in a process of its own, which a test kills: with the official push consumer,
whose listener hands the work to a thread and says that it is done, or with the official simple consumer, which acknowledges when
the row is committed. Its own key, the message's id, makes a second row impossible. It can be told to stop at a point and to go on
later; what it does, it says line by line."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

# Of a message, in this order; a push consumer acknowledges before the first.
POINTS = ("received", "committed", "acknowledged")
ROW = "insert into orders (id, state, message_id) values (?, 'DONE', ?)"


class Service:
    def __init__(self, settings: dict):
        self.settings = settings
        self.lock = threading.Lock()
        self.goes_on = threading.Event()
        self.pool = ThreadPoolExecutor(16)

    def say(self, **what):
        with self.lock:
            print(json.dumps(what), flush=True)

    def reach(self, point: str, message):
        self.say(at=point, message=message.message_id, body=message.body.decode(), attempt=message.delivery_attempt)
        if self.settings.get("stop") == point:
            self.goes_on.wait()

    def write(self, message):
        """Whether it is there by now; false where it was before."""
        from databases import Taken, open_session
        session = open_session(self.settings["place"])
        try:
            session.run(ROW, message.message_id, message.message_id)
            return True
        except Taken:
            return False
        finally:
            session.close()

    def work(self, message, acknowledge):
        try:
            self.reach("received", message)
            self.say(wrote=self.write(message), message=message.message_id)
            self.reach("committed", message)
            acknowledge(message)
            self.reach("acknowledged", message)
        except BaseException as fault:
            self.say(fault=f"{type(fault).__name__}: {fault}", code=getattr(fault, "code", None), message=message.message_id)
            raise

    def run(self):
        consumers = {"push": self.push, "simple": self.simple}
        threading.Thread(target=consumers[self.settings["how"]], daemon=True).start()
        for _ in sys.stdin:
            self.goes_on.set()

    def client(self):
        from rocketmq import ClientConfiguration, Credentials, FilterExpression
        topic = self.settings["topic"]
        return ClientConfiguration(self.settings["broker"], Credentials()), topic, {topic: FilterExpression("*")}

    def push(self):
        from rocketmq import ConsumeResult, MessageListener, PushConsumer
        service = self

        class Hasty(MessageListener):
            def consume(self, message):
                service.pool.submit(service.work, message, lambda _: None)
                return ConsumeResult.SUCCESS

        configuration, group, topics = self.client()
        PushConsumer(configuration, group, Hasty(), topics).startup()
        self.say(ready=True)

    def simple(self):
        from rocketmq import SimpleConsumer
        configuration, group, topics = self.client()
        consumer = SimpleConsumer(configuration, group, topics, await_duration=1)
        consumer.startup()
        self.say(ready=True)
        while True:
            try:
                for message in consumer.receive(16, self.settings["lease_s"]):
                    self.pool.submit(self.work, message, consumer.ack)
            except Exception:
                time.sleep(0.1)  # the node is down


def main():
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    Service(json.loads(sys.argv[1])).run()
    os._exit(0)  # the client's threads would go on for a while


if __name__ == "__main__":
    main()
