"""An order service that loses no order, whenever it dies, and whenever the broker does.

It keeps its orders in SQLite and tells the rest of the company about each through a message. Both must happen, or
neither, without a transaction that spans the two. So it sends the message first, hidden (a half message), then
writes the order, then makes the message visible. If it dies in between, the broker asks it over HTTP what became of
the message (see README.md), and makes the message visible or drops it.

    POST /orders       {"id": "1001", "item": "teapot"}    places an order
    GET  /orders/1001                                      shows it
    GET  /orders/1001?message=01AB…                        what the broker asks: was it placed, with this message?
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sqlite3
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_to_bytes

from rocketmq import (ClientConfiguration, Credentials, Message, Producer, TransactionChecker, TransactionResolution)

TOPIC = "orders"

# Statuses of an order.
PLACED = "placed"
NOTIFY_PENDING = "NOTIFY_PENDING"  # it counts, and its message could not be sent yet

# Seconds for one call of the broker. The client tries three times: nobody waits longer than 3 s for a broker that is down.
CALL_TIMEOUT = 1
# Seconds between two attempts to send what is pending.
ANNOUNCE_EVERY = 1
LONGEST_REQUEST = 64 * 1024
LONGEST_ID = 255
# What the broker answers to a commit of what was rolled back.
ROLLED_BACK_ALREADY = 42800

log = logging.getLogger("order-service")


class Refused(Exception):
    """Certainly not written; the text is for the customer."""

    status = 409


class Exists(Refused):
    def __init__(self, id):
        super().__init__(f"order {id} exists")


class TooLate(Refused):
    """The broker asked about this message before the order was written, and was told that it never will be."""

    status = 503

    def __init__(self, id):
        super().__init__(f"order {id} took too long and is not placed; place it again")


class Orders:
    """The database. Each method is one database transaction, and its result is on disk when it returns.

    Besides the orders there is the fence: what became of each message, written once. Whoever writes first decides: the
    order, in the same database transaction as itself, or the broker's question."""

    Error = sqlite3.Error

    def __init__(self, file):
        self.file = file
        with self._transaction() as database:
            database.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, item TEXT, status TEXT)")
            database.execute("CREATE INDEX IF NOT EXISTS pending ON orders (id) WHERE status = 'NOTIFY_PENDING'")
            database.execute("CREATE TABLE IF NOT EXISTS fence (message TEXT PRIMARY KEY, outcome TEXT NOT NULL)")

    @contextlib.contextmanager
    def _transaction(self, begin="BEGIN IMMEDIATE"):
        # Closing the connection undoes what was not committed.
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as database:
            database.execute(begin)
            yield database
            database.execute("COMMIT")

    def _pass_fence(self, database, message, id):
        try:
            database.execute("INSERT INTO fence VALUES (?, 'committed')", (message,))
        except sqlite3.IntegrityError:
            raise TooLate(id) from None

    def _insert(self, database, order, status):
        try:
            database.execute("INSERT INTO orders VALUES (?, ?, ?)", (order["id"], order["item"], status))
        except sqlite3.IntegrityError:
            raise Exists(order["id"]) from None

    def place(self, order, message):
        """The local transaction. Raises TooLate or Exists."""
        with self._transaction() as database:
            self._pass_fence(database, message, order["id"])
            self._insert(database, order, PLACED)

    def place_pending(self, order):
        """The order without a message; that is for later. Raises Exists."""
        with self._transaction() as database:
            self._insert(database, order, NOTIFY_PENDING)

    def pending(self):
        with self._transaction("BEGIN") as database:
            rows = database.execute("SELECT id, item FROM orders WHERE status = 'NOTIFY_PENDING' LIMIT 100").fetchall()
        return [dict(zip(("id", "item"), row)) for row in rows]

    def announce(self, id, message):
        """Like `place`, of an order that is pending. Returns False if it is not: another process was faster."""
        with self._transaction() as database:
            changed = database.execute("UPDATE orders SET status = ? WHERE id = ? AND status = 'NOTIFY_PENDING'",
                                       (PLACED, id)).rowcount
            if changed:
                self._pass_fence(database, message, id)
        return bool(changed)

    def announce_again(self, id):
        with self._transaction() as database:
            database.execute("UPDATE orders SET status = ? WHERE id = ?", (NOTIFY_PENDING, id))

    def outcome(self, message):
        """What became of a message: `committed` or `rolled_back`. If nothing was decided, this decides: the row that
        it writes, the tombstone, is what an order that comes later collides with. So the answer stays true."""
        with self._transaction() as database:
            row = database.execute("SELECT outcome FROM fence WHERE message = ?", (message,)).fetchone()
            if row is None:
                row = ("rolled_back",)
                database.execute("INSERT INTO fence VALUES (?, ?)", (message, *row))
        return row[0]

    def find(self, id):
        with self._transaction("BEGIN") as database:
            row = database.execute("SELECT id, item, status FROM orders WHERE id = ?", (id,)).fetchone()
        return row and dict(zip(("id", "item", "status"), row))


class Checker(TransactionChecker):
    """The client wants one to begin a transaction. The broker asks it only where no component is bound to the topic,
    and only while this process lives, which is the reason to bind one. An exception here is no answer."""

    def __init__(self, orders):
        self.orders = orders

    def check(self, message):
        happened = self.orders.outcome(message.message_id) == "committed"
        return TransactionResolution.COMMIT if happened else TransactionResolution.ROLLBACK


class Broker:
    """Sends half messages, whatever happened to the broker before."""

    def __init__(self, address, checker):
        self.configuration = ClientConfiguration(address, Credentials(), request_timeout=CALL_TIMEOUT)
        self.checker = checker
        self.producer = self._connect()

    def _connect(self):
        # Starts without the broker as well.
        producer = Producer(self.configuration, (TOPIC,), checker=self.checker)
        producer.startup()
        return producer

    def reconnect(self):
        """A client that was refused for a while dials less and less often, up to two minutes apart. A new one dials at
        once, and can be asked at once."""
        old, self.producer = self.producer, self._connect()
        old.shutdown()

    def send_half(self, order):
        """Returns the transaction and the message's id. An exception says that the message is not there, or that
        nobody knows: then the broker will ask about it, and it passes no fence."""
        message = Message()
        message.topic = TOPIC
        message.keys = order["id"]  # what the component puts into the URL
        message.body = json.dumps(order).encode()
        producer = self.producer
        transaction = producer.begin_transaction()
        return transaction, producer.send(message, transaction).message_id


class OrderService:
    def __init__(self, orders, broker, die_at=None, slow_database=0):
        self.orders = orders
        self.broker = broker
        self.die_at = die_at
        self.slow_database = slow_database

    def place(self, order):
        # 1. The half message: safe on the broker's disk, seen by nobody.
        try:
            transaction, message = self.broker.send_half(order)
        except Exception as failure:
            self._place_pending(order, failure)
            return
        self._die_if_told("before-database")
        time.sleep(self.slow_database)

        # 2. The order, in the database.
        try:
            self.orders.place(order, message)
        except Refused:
            # Certainly not written. After any other error say nothing: the broker will ask.
            self._roll_back(transaction)
            raise
        log.info("order %s is placed", order["id"])
        self._die_if_told("after-database")

        # 3. The message becomes visible.
        self._commit(transaction, order)

    def _place_pending(self, order, failure):
        self.orders.place_pending(order)
        log.warning("order %s is placed, its message is pending: %s", order["id"], in_short(failure))

    def announce_pending(self):
        """What could not be announced when it was placed: the same three steps."""
        for order in self.orders.pending():
            try:
                transaction, message = self.broker.send_half(order)
            except Exception as failure:
                log.warning("the message of order %s is still pending: %s", order["id"], in_short(failure))
                self.broker.reconnect()
                return
            time.sleep(self.slow_database)
            try:
                announced = self.orders.announce(order["id"], message)
            except TooLate:
                log.warning("a message of order %s took too long; it gets another one", order["id"])
                continue
            if announced:
                log.info("order %s is announced", order["id"])
                self._commit(transaction, order)
            else:
                self._roll_back(transaction)

    def keep_announcing(self):
        while True:
            time.sleep(ANNOUNCE_EVERY)
            try:
                self.announce_pending()
            except self.orders.Error as failure:
                log.warning("the database does not say what is pending; trying again: %s", in_short(failure))
            except Exception:
                log.exception("announcing what is pending failed; trying again")

    def _commit(self, transaction, order):
        try:
            transaction.commit()
        except Exception as failure:
            if getattr(failure, "code", None) == ROLLED_BACK_ALREADY:
                # By an operator, or by a binding that does not ask for the message.
                self.orders.announce_again(order["id"])
                log.error("the message of order %s was rolled back although the order is placed; it gets another one",
                          order["id"])
            else:
                log.warning("the commit of the message of order %s got no answer, so the broker will ask: %s",
                            order["id"], in_short(failure))

    def _roll_back(self, transaction):
        try:
            transaction.rollback()
        except Exception as failure:
            log.warning("a rollback got no answer, so the broker will ask: %s", in_short(failure))

    def _die_if_told(self, moment):
        if self.die_at == moment:
            log.warning("dying now (%s), as told by --die-at", moment)
            os.kill(os.getpid(), signal.SIGKILL)


def in_short(failure):
    """One line of an exception; those of gRPC and of databases have many."""
    details = getattr(failure, "details", None)
    return details() if callable(details) else str(failure).partition("\n")[0]


def order_of(document):
    """Raises ValueError if it is none: what the broker refuses as a key, or cannot put into a URL, is no id."""
    id, item = str(document["id"]), str(document["item"])
    if not id.strip() or id in (".", "..") or any(unicodedata.category(c) == "Cc" for c in id):
        raise ValueError("unusable id")
    if len(id.encode()) > LONGEST_ID:
        raise ValueError("long id")
    item.encode()  # half a character is none
    return {"id": id, "item": item}


class Handler(BaseHTTPRequestHandler):
    """The HTTP API of the service that `self.server` has."""

    timeout = 30

    def do_POST(self):
        if self.path == "/orders":
            self.take(self.server.service.place)
        else:
            self.answer(404, {"error": "orders are placed at /orders"})

    def take(self, place):
        """Reads an order, and has it placed so."""
        try:
            length = int(self.headers.get("content-length", 0))
            if not 0 <= length <= LONGEST_REQUEST:
                return self.answer(413, {"error": f"an order has at most {LONGEST_REQUEST} bytes"})
            order = order_of(json.loads(self.rfile.read(length)))
        except (ValueError, KeyError, TypeError):
            return self.answer(400, {"error": 'an order looks like {"id": "1001", "item": "teapot"}'})
        self.change(order["id"], lambda: place(order), 201)

    def change(self, id, change, done):
        """Makes a change of an order, and answers what became of it."""
        orders = self.server.service.orders
        try:
            change()
            order = orders.find(id)
        except Refused as refused:
            return self.answer(refused.status, {"error": str(refused)})
        except orders.Error as error:
            log.warning("order %s: the database failed: %s", id, in_short(error))
            return self.answer(503, {"error": f"GET /orders/… tells what became of the order: {in_short(error)}"})
        self.answer(202 if order["status"] == NOTIFY_PENDING else done, order)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        try:
            id = id_in(path)
            message = parse_qs(query).get("message")
        except ValueError:
            return self.answer(400, {"error": "the path is not UTF-8"})
        orders = self.server.service.orders
        try:
            if id is None:
                self.answer(404, {"error": "orders are at /orders/ID"})
            elif message:
                self.tell_outcome(id, message[0])
            else:
                order = orders.find(id)
                self.answer(200 if order else 404, order or {"error": "no such order"})
        except orders.Error as error:
            # No answer: the broker asks again.
            self.answer(503, {"error": str(error)})

    def tell_outcome(self, id, message):
        happened = self.server.service.orders.outcome(message) == "committed"
        self.answer(200, {"id": id, "status": PLACED if happened else "cancelled"})

    def answer(self, status, document):
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        log.info("%s", format % arguments)


def id_in(path):
    """The order's id in a path, None if there is none. Raises ValueError if it is no UTF-8."""
    if not path.startswith("/orders/"):
        return None
    # The path as bytes: an id may hold a slash, a blank, any letter, each percent-encoded.
    return unquote_to_bytes(path.removeprefix("/orders/").encode("latin-1")).decode()


def arguments_of(description, moments):
    """The command line, without the database."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--broker", default=os.environ.get("VOUCH_GRPC_ADDR", "127.0.0.1:8081"))
    arguments.add_argument("--port", type=int, default=9000)
    arguments.add_argument("--die-at", choices=moments,
                           help="kill this process with SIGKILL in the middle of the next order")
    arguments.add_argument("--slow-database", type=float, default=0, metavar="SECONDS",
                           help="wait so long before an order is written")
    return arguments


class Server(ThreadingHTTPServer):
    # Customers who come at the same moment. With the five of the base class the kernel resets connections of a busy service.
    request_queue_size = 128


def serve(service, port, handler=Handler):
    threading.Thread(target=service.keep_announcing, daemon=True).start()
    server = Server(("127.0.0.1", port), handler)
    server.service = service
    log.info("taking orders at http://127.0.0.1:%d/orders", server.server_port)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        service.broker.producer.shutdown()


def main():
    arguments = arguments_of("An order service that loses no order, whenever it dies.",
                             ["before-database", "after-database"])
    arguments.add_argument("--database", default="orders.db")
    arguments = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    orders = Orders(arguments.database)
    broker = Broker(arguments.broker, Checker(orders))
    serve(OrderService(orders, broker, arguments.die_at, arguments.slow_database), arguments.port)


if __name__ == "__main__":
    main()
