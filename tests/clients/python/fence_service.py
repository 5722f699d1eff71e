"""A service that places orders with the fence, in a process of its own, which a test kills: it sends a half message with the
official client, runs its business transaction, and ends the message. Each order runs in a thread; it can be told to stop at a
point and to go on later. What it does and what it was told, it says line by line."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

# Of an order, in this order. The last two are instead of `commit sent` and what follows.
POINTS = ("half sent", "order row", "fence row", "commit sent", "committed", "ended", "rolled back")
IN_A_ROW = {"fence first": ("fence row", "order row"), "order first": ("order row", "fence row")}
FENCE = "insert into vouch_fence (fence_key, outcome) values (?, ?)"
ORDER = "insert into orders (id, state, message_id) values (?, 'NEW', ?)"
AT_ONCE = 64
GIVES_UP_AFTER_S = 40


class Service:
    def __init__(self, broker: str, topic: str, place: dict):
        from rocketmq import ClientConfiguration, Credentials, Producer, TransactionChecker

        class Silent(TransactionChecker):
            def check(self, message):
                raise RuntimeError("the binding answers, not this service")

        self.topic, self.place = topic, place
        self.client = Producer(ClientConfiguration(broker, Credentials()), [topic], checker=Silent())
        self.lock = threading.Lock()
        self.stopped = {}

    def say(self, **what):
        with self.lock:
            print(json.dumps(what), flush=True)

    def run(self):
        self.client.startup()
        self.say(ready=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for line in sys.stdin:
                told = json.loads(line)
                if "go" in told:
                    self._stop_of(told["go"]).set()
                else:
                    pool.submit(self._tell_faults, told)

    def _stop_of(self, order) -> threading.Event:
        with self.lock:
            return self.stopped.setdefault(order, threading.Event())

    def _tell_faults(self, plan):
        try:
            Order(self, plan).place()
        except BaseException as fault:
            self.say(order=plan["order"], told=f"fault: {type(fault).__name__}: {fault}")
            raise

    def half(self, order: str):
        from rocketmq import Message
        made = Message()
        made.topic, made.body, made.keys = self.topic, order.encode(), order
        transaction = self.client.begin_transaction()
        return transaction, self.client.send(made, transaction)


class Order:
    """One, as its plan says: `stop` (a point), `delays` (seconds before points), `rows` (which comes first), `fence` (insert,
    upsert or none), `level` (of isolation), `rolls_back` (it thinks better of it), `silent` (it does not end its message),
    `commit` ("unread": it does not wait for the answer)."""

    def __init__(self, service: Service, plan: dict):
        self.service, self.plan, self.id = service, plan, plan["order"]

    def reach(self, point: str):
        self.service.say(order=self.id, at=point)
        if self.plan.get("stop") == point:
            self.service._stop_of(self.id).wait()

    def delay(self, point: str):
        if seconds := self.plan.get("delays", {}).get(point):
            time.sleep(seconds)

    def place(self):
        transaction, receipt = self.half()
        self.service.say(order=self.id, message_id=receipt.message_id, transaction_id=receipt.transaction_id)
        self.reach("half sent")
        told, fault = self.business(receipt.message_id)
        self.end(told, fault, self.end_message(transaction, told))

    def half(self):
        """Tries until there is a receipt. What was stored without one has no rows, so it is closed."""
        end = time.monotonic() + GIVES_UP_AFTER_S
        while True:
            try:
                return self.service.half(self.id)
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def business(self, message_id: str):
        from databases import Failed, Taken, open_session
        self.delay("begin")
        try:
            session = open_session(self.service.place)
        except Failed as fault:
            return "failed", fault
        committing = False
        try:
            session.begin(self.plan.get("level", ""))
            for row in IN_A_ROW[self.plan.get("rows", "fence first")]:
                self.delay(row)
                self.insert(session, row, message_id)
                self.reach(row)
            self.delay("commit")
            if self.plan.get("rolls_back"):
                session.roll_back()
                self.reach("rolled back")
                return "rolled back", None
            committing = True
            if self.plan.get("commit") == "unread":
                session.send_commit()
                self.reach("commit sent")
                return "in doubt", None
            session.commit()
        except Taken as taken:
            session.roll_back()
            return "settled otherwise", taken
        except Failed as fault:
            session.roll_back()
            # An exception out of COMMIT is no rollback.
            return "in doubt" if committing else "failed", fault
        finally:
            session.close()
        self.reach("committed")
        return "committed", None

    def insert(self, session, row: str, message_id: str):
        from databases import UPSERTS
        if row == "order row":
            session.run(ORDER, self.id, message_id)
        elif (fence := self.plan.get("fence", "insert")) != "none":
            session.run(FENCE if fence == "insert" else UPSERTS[session.kind], message_id, "committed")

    def end_message(self, transaction, told: str):
        """Says what is certain, unless it is to be silent."""
        if self.plan.get("silent") or told not in ("committed", "rolled back", "settled otherwise"):
            return None
        self.delay("end")
        try:
            transaction.commit() if told == "committed" else transaction.rollback()
        except Exception as fault:
            return f"{getattr(fault, 'code', type(fault).__name__)}: {fault}"
        self.reach("ended")
        return "ok"

    def end(self, told: str, fault=None, ended=None):
        self.service.say(order=self.id, told=told, fault=fault and str(fault), ended=ended)


def main():
    settings = json.loads(sys.argv[1])
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    Service(settings["broker"], settings["topic"], settings["place"]).run()
    os._exit(0)  # the client's threads would go on for a while, and so would its own end where a node was killed


if __name__ == "__main__":
    main()
