"""The order service with its orders in PostgreSQL, and orders that wait to be paid.

The broker does not ask this service what became of a message, it asks the database (see postgres.md). What both hold on
to is the fence, a table with one row for each message, written once: by the service in the database transaction that
makes the order count, or by the broker, before it drops the message. A unique key lets only one of them.

    POST /orders              {"id": "2001", "item": "teapot"}    places an order that is paid with it
    POST /orders?pay=later    {"id": "2001", "item": "teapot"}    places one that waits to be paid
    POST /orders/2001/payment                                     pays it
    GET  /orders/2001                                             shows it
"""

import contextlib
import logging
import time

import psycopg
from rocketmq import TransactionChecker

import order_service
from order_service import NOTIFY_PENDING, Exists, Refused, TooLate, id_in, in_short, log

# Statuses of an order, besides NOTIFY_PENDING.
PAID = "PAID"
UNPAID = "UNPAID"
# The broker writes a third, CANCELLED, in the database transaction that closes the fence: `on-rollback` of the binding.

# Where --die-at can kill the process.
MOMENTS = ["before-database", "after-fence", "before-commit", "after-database",
           "payment-after-fence", "payment-before-commit", "payment-after-database"]


class NoBroker(Refused):
    status = 503

    def __init__(self, id):
        super().__init__(f"order {id} cannot wait for its payment just now and is not placed; place it again")


class NotThere(Refused):
    status = 404

    def __init__(self, id):
        super().__init__(f"there is no order {id}")


class NotPaidInTime(Refused):
    def __init__(self, id):
        super().__init__(f"order {id} was not paid in time and is cancelled; this payment is not taken")


class Orders:
    """The database. Each `transaction` is one of its own connection: one that broke is nobody's trouble but its own."""

    Error = psycopg.Error

    def __init__(self, url):
        self.url = url

    @contextlib.contextmanager
    def transaction(self):
        # Commits at the end; an exception rolls back. One out of COMMIT itself says nothing about what happened.
        with psycopg.connect(self.url, connect_timeout=5) as database:
            yield database

    def find(self, id):
        with self.transaction() as database:
            row = database.execute("select id, item, status from orders where id = %s", (id,)).fetchone()
        return row and dict(zip(("id", "item", "status"), row))

    def place_pending(self, order):
        """The order without a message; that is for later. Raises Exists."""
        with self.transaction() as database:
            insert_order(database, order, NOTIFY_PENDING, None)

    def pending(self):
        with self.transaction() as database:
            rows = database.execute("select id, item from orders where status = 'NOTIFY_PENDING' limit 100").fetchall()
        return [dict(zip(("id", "item"), row)) for row in rows]

    def announce(self, id, message):
        """An order that is pending gets its message. Returns False if it is not: another process was faster."""
        with self.transaction() as database:
            pass_fence(database, message, id)
            changed = database.execute("update orders set status = 'PAID', message = %s"
                                       " where id = %s and status = 'NOTIFY_PENDING'", (message, id)).rowcount
            if not changed:
                database.rollback()
        return bool(changed)

    def announce_again(self, id):
        with self.transaction() as database:
            database.execute("update orders set status = 'NOTIFY_PENDING', message = null where id = %s", (id,))


def pass_fence(database, message, id):
    """The first statement of a database transaction that makes an order count. A plain INSERT, never an upsert. If
    another transaction has written this row, it waits until that has ended. Raises TooLate: undo everything."""
    try:
        database.execute("insert into vouch_fence (fence_key, outcome) values (%s, 'committed')", (message,))
    except psycopg.errors.UniqueViolation:
        raise TooLate(id) from None


def insert_order(database, order, status, message):
    try:
        database.execute("insert into orders (id, item, status, message) values (%s, %s, %s, %s)",
                         (order["id"], order["item"], status, message))
    except psycopg.errors.UniqueViolation:
        raise Exists(order["id"]) from None


class OrderService(order_service.OrderService):
    def place(self, order):
        """An order that is paid with it. Four lines matter, (1) to (4)."""
        try:
            transaction, message = self.broker.send_half(order)              # (1) the half message, before any row
        except Exception as failure:
            self._place_pending(order, failure)
            return
        self._die_if_told("before-database")
        time.sleep(self.slow_database)
        with self._rolling_back(transaction), self.orders.transaction() as database:
            pass_fence(database, message, order["id"])                       # (2) the fence, before any other row
            self._die_if_told("after-fence")
            insert_order(database, order, PAID, message)                     # (3) your own rows
            self._die_if_told("before-commit")
        log.info("order %s is placed", order["id"])
        self._die_if_told("after-database")
        self._commit(transaction, order)                                     # (4) the message becomes visible

    def place_unpaid(self, order):
        """An order that waits to be paid. Its message stays hidden: the broker looks into the fence at each check, and
        at the last one closes it, which cancels the order. So no order waits here that no broker watches."""
        try:
            transaction, message = self.broker.send_half(order)
        except Exception as failure:
            log.warning("order %s is refused: %s", order["id"], in_short(failure))
            raise NoBroker(order["id"]) from None
        self._die_if_told("before-database")
        time.sleep(self.slow_database)
        with self._rolling_back(transaction), self.orders.transaction() as database:
            # Nobody closes the fence while the order is written: who would has to wait, and then finds the order.
            pass_fence(database, message, order["id"])
            self._die_if_told("after-fence")
            insert_order(database, order, UNPAID, message)
            # Nothing is decided yet. The row goes with this transaction, and was never seen.
            database.execute("delete from vouch_fence where fence_key = %s", (message,))
            self._die_if_told("before-commit")
        log.info("order %s waits for its payment", order["id"])
        self._die_if_told("after-database")

    def pay(self, id):
        """The payment and the last check want the same row of the fence: whoever has it decides. Paying twice is no
        harm."""
        with self.orders.transaction() as database:
            order = database.execute("select status, message from orders where id = %s", (id,)).fetchone()
        if order is None:
            raise NotThere(id)
        status, message = order
        if status == UNPAID:
            time.sleep(self.slow_database)
            self._pay(id, message)
        # As the database has it now: somebody else may have been faster, another payment or the last check.
        if self.orders.find(id)["status"] not in (PAID, NOTIFY_PENDING):
            raise NotPaidInTime(id)

    def _pay(self, id, message):
        with contextlib.suppress(TooLate), self.orders.transaction() as database:
            pass_fence(database, message, id)
            self._die_if_told("payment-after-fence")
            changed = database.execute("update orders set status = 'PAID' where id = %s and status = 'UNPAID'",
                                       (id,)).rowcount
            if changed != 1:
                raise TooLate(id)
            self._die_if_told("payment-before-commit")
        # The next check finds the row, and the message becomes visible.
        self._die_if_told("payment-after-database")

    @contextlib.contextmanager
    def _rolling_back(self, transaction):
        """The message of an order that is certainly not written is dropped. After any other error, one out of COMMIT
        for example, say nothing: the broker looks into the fence."""
        try:
            yield
        except Refused:
            self._roll_back(transaction)
            raise


class NobodyAsks(TransactionChecker):
    """The client wants a checker to begin a transaction. The binding has a component, so nobody asks this one."""

    def check(self, message):
        raise RuntimeError("the database is asked, see postgres.md")  # no answer


class Handler(order_service.Handler):
    def do_POST(self):
        service = self.server.service
        if self.path == "/orders?pay=later":
            return self.take(service.place_unpaid)
        if not self.path.endswith("/payment"):
            return super().do_POST()
        try:
            id = id_in(self.path.removesuffix("/payment"))
        except ValueError:
            return self.answer(400, {"error": "the path is not UTF-8"})
        if id is None:
            return self.answer(404, {"error": "orders are paid at /orders/ID/payment"})
        self.change(id, lambda: service.pay(id), 200)

    def tell_outcome(self, id, message):
        self.answer(404, {"error": "what became of a message is in the fence"})


def main():
    arguments = order_service.arguments_of("An order service that keeps its orders in PostgreSQL.", MOMENTS)
    arguments.add_argument("--database", default="", metavar="URL",
                           help="postgresql://…, or host=… dbname=…; what it does not say is in PGHOST, PGDATABASE, …")
    arguments = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    broker = order_service.Broker(arguments.broker, NobodyAsks())
    service = OrderService(Orders(arguments.database), broker, arguments.die_at, arguments.slow_database)
    order_service.serve(service, arguments.port, Handler)


if __name__ == "__main__":
    main()
