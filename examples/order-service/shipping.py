"""Another service: ships what was ordered. It learns of orders by their messages alone.

Start as many as you like, with one database: each order is shipped once."""

import argparse
import contextlib
import json
import os
import sqlite3
import time

from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer

TOPIC = "orders"
GROUP = "shipping"

# Seconds. An order that is not acknowledged within the first goes to the next who asks.
INVISIBLE_WHILE_WORKING = 30
WAIT_FOR_ORDERS = 20
WAIT_FOR_BROKER = 1


class Shipments:
    """The database. A message can come twice, for example when its acknowledgement got lost: the order's id tells."""

    def __init__(self, file):
        self.file = file
        with self._transaction() as database:
            database.execute("CREATE TABLE IF NOT EXISTS shipments (id TEXT PRIMARY KEY, item TEXT)")

    @contextlib.contextmanager
    def _transaction(self):
        # Closing the connection undoes what was not committed.
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")

    def ship(self, order):
        """The work. Returns False if it was done before."""
        with self._transaction() as database:
            return database.execute("INSERT INTO shipments VALUES (?, ?) ON CONFLICT DO NOTHING",
                                    (order["id"], order["item"])).rowcount == 1


def ship(shipments, message):
    try:
        order = json.loads(message.body)
        if not all(isinstance(order[name], str) for name in ("id", "item")):
            raise ValueError("id and item must be texts")
        new = shipments.ship(order)
    except (ValueError, KeyError, TypeError) as error:
        # Not acknowledged, it comes again, and after its last attempt goes to the dead-letter topic.
        print(f"message {message.message_id} is no order: {error!r}", flush=True)
        return False
    print(f"shipping {message.body.decode()}" if new else f"order {order['id']} was shipped before", flush=True)
    return True


def consume(broker, shipments):
    """Ships until something fails, the connection to the broker for example."""
    consumer = SimpleConsumer(ClientConfiguration(broker, Credentials()), GROUP, {TOPIC: FilterExpression()},
                              await_duration=WAIT_FOR_ORDERS)
    consumer.startup()
    try:
        while True:
            for message in consumer.receive(16, INVISIBLE_WHILE_WORKING):
                # First the work, then the acknowledgement: a crash in between repeats the work, it never loses it.
                if ship(shipments, message):
                    consumer.ack(message)
    finally:
        consumer.shutdown()


def main():
    arguments = argparse.ArgumentParser(description="Ships what was ordered.")
    arguments.add_argument("--database", default="shipping.db")
    arguments.add_argument("--broker", default=os.environ.get("VOUCH_GRPC_ADDR", "127.0.0.1:8081"))
    arguments = arguments.parse_args()

    shipments = Shipments(arguments.database)
    print("waiting for orders", flush=True)
    try:
        while True:
            try:
                consume(arguments.broker, shipments)
            except Exception as failure:
                # With a new client: one that was refused for a while dials less and less often, up to two minutes apart.
                print(f"trying again: {failure}", flush=True)
                time.sleep(WAIT_FOR_BROKER)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
