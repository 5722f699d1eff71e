"""An order service, in a process of its own, for what happens when its database or the broker is away: an order whose message
could not be sent is marked and placed later, one whose row could not be written waits in a side cache, from which a check writes
it. Who is asked is its own checker, its HTTP endpoint, or a component that asks its database; the answer is the same. Orders may
also wait for payment. What it does and is asked, it says line by line."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from databases import Failed, Taken, open_session
from rocketmq import ClientConfiguration, Credentials, Message, Producer, TransactionChecker, TransactionResolution

COMMIT, ROLLBACK = TransactionResolution.COMMIT, TransactionResolution.ROLLBACK
UNKNOWN = TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED
SHORT = {COMMIT: "commit", ROLLBACK: "rollback", UNKNOWN: "unknown"}
FENCE = "insert into vouch_fence (fence_key, outcome) values (?, ?)"
ORDER = "insert into orders (id, state, message_id) values (?, ?, ?)"


def code_of(fault: Exception):
    """What the broker said; nothing where it was gRPC that failed."""
    code = getattr(fault, "code", None)
    return code if isinstance(code, int) else None


class SideCache:
    """Files: they outlive the process, and other instances have them, too."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)

    def keep(self, order: str, message_id: str):
        made = self.folder / f".{order}"
        made.write_text(message_id)
        made.rename(self.folder / order)

    def has(self, order: str, message_id: str) -> bool:
        file = self.folder / order
        return file.exists() and file.read_text() == message_id


class Shop(TransactionChecker):
    def __init__(self, settings: dict):
        self.settings = settings
        self.topic, self.place_of_rows = settings["topic"], settings["place"]
        self.cache = SideCache(settings["cache"])
        configuration = ClientConfiguration(settings["broker"], Credentials(), request_timeout=settings.get("timeout_s", 3))
        self.client = Producer(configuration, [self.topic], checker=self)
        self.lock = threading.Lock()
        self.stops, self.asks = {}, {}

    def say(self, **what):
        with self.lock:
            print(json.dumps(what), flush=True)

    def stop_of(self, name: str) -> threading.Event:
        with self.lock:
            return self.stops.setdefault(name, threading.Event())

    def run(self):
        if port := self.settings.get("http_port"):
            serve(self, port)
        self.client.startup()
        self.say(ready=True)
        with ThreadPoolExecutor(16) as pool:
            for line in sys.stdin:
                told = json.loads(line)
                if "go" in told:
                    self.stop_of(told["go"]).set()
                else:
                    pool.submit(self.guarded, told)

    def guarded(self, told: dict):
        try:
            if "pay" in told:
                self.say(order=told["pay"], paid=self.pay(told["pay"]))
            elif told.get("compensate"):
                self.compensate()
            else:
                self.order(told["order"], told.get("stop"))
        except BaseException as fault:
            self.say(**told, fault=f"{type(fault).__name__}: {fault}")
            raise

    # -- placing ------------------------------------------------------------------------------------------------------

    def order(self, order: str, stop=None, pending=False):
        made = Message()
        made.topic, made.body, made.keys = self.topic, order.encode(), order
        began = time.monotonic()
        transaction = self.client.begin_transaction()
        try:
            receipt = self.client.send(made, transaction)
        except Exception as fault:
            took = time.monotonic() - began
            if not pending:
                self.mark(order)
            return self.say(order=order, told="pending", code=code_of(fault), why=str(fault), took=took)
        self.say(order=order, message_id=receipt.message_id, transaction_id=receipt.transaction_id)
        self.reach(order, "half sent", stop)
        told = self.execute(order, receipt.message_id, pending)
        self.reach(order, told, stop)
        if told == "committed":
            transaction.commit()
        self.say(order=order, told=told, executed=True)

    def reach(self, order: str, point: str, stop):
        self.say(order=order, at=point)
        if stop == point:
            self.stop_of(order).wait()

    def mark(self, order: str):
        session = open_session(self.place_of_rows)
        session.run(ORDER, order, "NOTIFY_PENDING", "")
        session.close()

    def execute(self, order: str, message_id: str, pending=False) -> str:
        """The local transaction."""
        if self.settings.get("payment"):
            return self.write(lambda session: session.run(ORDER, order, "UNPAID", message_id)) or "unknown"

        def rows(session):
            session.run(FENCE, message_id, "committed")
            if pending:
                session.run("update orders set state = 'NOTIFIED', message_id = ? where id = ?", message_id, order)
            else:
                session.run(ORDER, order, "PLACED", message_id)

        if fault := self.write(rows):
            self.cache.keep(order, message_id)
            self.say(order=order, row=fault)
            return "unknown"
        return "committed"

    def write(self, rows) -> str | None:
        """In a database transaction; what went wrong. That the row is there already, or that it is settled, it raises."""
        session = None
        try:
            session = open_session(self.place_of_rows)
            session.begin()
            rows(session)
            session.commit()
        except Failed as fault:
            return str(fault)
        finally:
            if session:
                session.roll_back()
                session.close()

    def compensate(self):
        """Places again what is marked."""
        session = open_session(self.place_of_rows)
        marked = [order for order, in session.run("select id from orders where state = 'NOTIFY_PENDING'")]
        session.close()
        for order in marked:
            self.order(order, pending=True)
        self.say(compensated=marked)

    # -- being asked ----------------------------------------------------------------------------------------------------

    def check(self, message):
        return self.asked(next(iter(message.keys)), message.message_id)

    def asked(self, order: str, message_id: str):
        self.say(asked=order, message_id=message_id, at=time.time())
        if fixed := self.settings.get("answers"):
            self.stop_of("answer").wait()
            answer = {"commit": COMMIT, "rollback": ROLLBACK}[fixed]
        else:
            try:
                answer = (self.paid if self.settings.get("payment") else self.decide)(order, message_id)
            except Failed:
                answer = UNKNOWN
        self.say(answered=SHORT[answer], of=order, message_id=message_id)
        return answer

    def decide(self, order: str, message_id: str):
        """What the fence says; where it says nothing, the row is written from the side cache, or never will be."""
        if (said := self.fence(message_id)) is None:
            try:
                if self.cache.has(order, message_id):
                    if fault := self.write(lambda session: (session.run(FENCE, message_id, "committed"),
                                                            session.run(ORDER, order, "PLACED", message_id))):
                        raise Failed(fault)
                elif fault := self.write(lambda session: session.run(FENCE, message_id, "rolled_back")):
                    raise Failed(fault)
            except Taken:
                pass
            said = self.fence(message_id)
        return {"committed": COMMIT, "rolled_back": ROLLBACK}.get(said, UNKNOWN)

    def fence(self, message_id: str):
        session = open_session(self.place_of_rows)
        try:
            return next((outcome for outcome, in session.run("select outcome from vouch_fence where fence_key = ?", message_id)),
                        None)
        finally:
            session.close()

    # -- payment --------------------------------------------------------------------------------------------------------

    def pay(self, order: str) -> bool:
        """Whether it could be paid. Where a component cancels, the fence decides who was first, else the row."""
        paid = []

        # Before, not within: in SQLite who has read and then writes may be refused at once.
        session = open_session(self.place_of_rows)
        (message_id,), = session.run("select message_id from orders where id = ?", order)
        session.close()

        def rows(session):
            if self.settings["payment"] == "fence":
                session.run(FENCE, message_id, "committed")
            paid.append(session.run("update orders set state = 'PAID' where id = ? and state = 'UNPAID'", order))

        try:
            fault = self.write(rows)
        except Taken:
            return False
        assert not fault, fault
        return paid == [1]

    def paid(self, order: str, message_id: str):
        """One row is read by its key. The last check cancels, unless it is paid meanwhile."""
        self.asks[order] = self.asks.get(order, 0) + 1
        session = open_session(self.place_of_rows)
        try:
            (state,), = session.run("select state from orders where id = ?", order)
            if state == "UNPAID" and self.asks[order] == self.settings["checks"]:
                changed = session.run("update orders set state = 'CANCELLED' where id = ? and state = 'UNPAID'", order)
                state = "CANCELLED" if changed else "PAID"
        finally:
            session.close()
        return {"PAID": COMMIT, "CANCELLED": ROLLBACK}.get(state, UNKNOWN)


def serve(shop: Shop, port: int):
    """`GET /{order}/{message id}`: the same answer over HTTP."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            _, order, message_id = map(unquote, self.path.split("/"))
            body = json.dumps({"answer": SHORT[shop.asked(order, message_id)]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    Shop(json.loads(sys.argv[1])).run()
    os._exit(0)
