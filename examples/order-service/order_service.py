"""An order service that loses no order, whenever it dies.

It keeps its orders in SQLite and tells the rest of the company about each through a message. Both must happen, or
neither, without a transaction that spans the two. So it sends the message first, hidden (a half message), then
writes the order, then makes the message visible. If it dies in between, the broker asks for the order over HTTP, at
the very URL that other services use (see README.md), and makes the message visible or drops it.

    POST /orders       {"id": "1001", "item": "teapot"}    places an order
    GET  /orders/1001                                      what the broker asks
"""

import argparse
import json
import logging
import os
import signal
import sqlite3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rocketmq import (ClientConfiguration, Credentials, Message, Producer, TransactionChecker, TransactionResolution)

TOPIC = "orders"

log = logging.getLogger("order-service")


class Orders:
    """The database. One connection per call: SQLite does the rest."""

    def __init__(self, file):
        self.file = file
        with self._connect() as database:
            database.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, item TEXT, status TEXT)")

    def _connect(self):
        return sqlite3.connect(self.file)

    def place(self, order):
        """The local transaction. Raises sqlite3.IntegrityError if the order exists."""
        with self._connect() as database:
            database.execute("INSERT INTO orders VALUES (?, ?, 'placed')", (order["id"], order["item"]))

    def find(self, id):
        with self._connect() as database:
            row = database.execute("SELECT id, item, status FROM orders WHERE id = ?", (id,)).fetchone()
        return row and dict(zip(("id", "item", "status"), row))


class Checker(TransactionChecker):
    """The client wants one to begin a transaction. The broker asks it only where no component is bound to the topic,
    and only while this process lives, which is the reason to bind one."""

    def __init__(self, orders):
        self.orders = orders

    def check(self, message):
        (id,) = message.keys
        found = self.orders.find(id)
        # An order that is not there yet may be a moment away: leave it open rather than drop it.
        return TransactionResolution.COMMIT if found else TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED


class OrderService:
    def __init__(self, orders, producer, die_at=None):
        self.orders = orders
        self.producer = producer
        self.die_at = die_at

    def place(self, order):
        message = Message()
        message.topic = TOPIC
        message.keys = order["id"]  # what the component puts into the URL
        message.body = json.dumps(order).encode()

        # 1. The half message: safe on the broker's disk, seen by nobody.
        transaction = self.producer.begin_transaction()
        self.producer.send(message, transaction)
        self._die_if_told("before-database")

        # 2. The order, in the database.
        try:
            self.orders.place(order)
        except sqlite3.Error:
            transaction.rollback()
            raise
        self._die_if_told("after-database")

        # 3. The message becomes visible. Should this fail, the order is placed all the same: the broker will ask.
        try:
            transaction.commit()
        except Exception:
            log.exception("order %s is placed, its message is not committed; the broker will ask", order["id"])

    def _die_if_told(self, moment):
        if self.die_at == moment:
            log.warning("dying now (%s), as told by --die-at", moment)
            os.kill(os.getpid(), signal.SIGKILL)


def http_handler(service):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                order = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                order = {"id": str(order["id"]), "item": str(order["item"])}
            except (ValueError, KeyError, TypeError):
                return self.answer(400, {"error": 'an order looks like {"id": "1001", "item": "teapot"}'})
            try:
                service.place(order)
            except sqlite3.IntegrityError:
                return self.answer(409, {"error": f"order {order['id']} exists"})
            log.info("order %s placed", order["id"])
            self.answer(201, service.orders.find(order["id"]))

        def do_GET(self):
            order = service.orders.find(self.path.removeprefix("/orders/"))
            self.answer(200 if order else 404, order or {"error": "no such order"})

        def answer(self, status, document):
            body = json.dumps(document).encode() + b"\n"
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *arguments):
            log.info("%s", format % arguments)

    return Handler


def main():
    arguments = argparse.ArgumentParser(description="An order service that loses no order, whenever it dies.")
    arguments.add_argument("--database", default="orders.db")
    arguments.add_argument("--broker", default=os.environ.get("VOUCH_GRPC_ADDR", "127.0.0.1:8081"))
    arguments.add_argument("--port", type=int, default=9000)
    arguments.add_argument("--die-at", choices=["before-database", "after-database"],
                           help="kill this process with SIGKILL in the middle of the next order")
    arguments = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    orders = Orders(arguments.database)
    producer = Producer(ClientConfiguration(arguments.broker, Credentials()), (TOPIC,), checker=Checker(orders))
    producer.startup()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port),
                                 http_handler(OrderService(orders, producer, arguments.die_at)))
    log.info("taking orders at http://127.0.0.1:%d/orders", arguments.port)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        producer.shutdown()


if __name__ == "__main__":
    main()
