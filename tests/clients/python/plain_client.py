"""What a hostile binding does to its database, done without any broker: as many statements a second, asked for at the same times,
over as many connections. What sends suffer beside this, the database does to them and not the node.

    python plain_client.py JSON      see `Target.plainly` in test_hostile_sql.py; runs until its input ends, then says what it did

It takes no processor from anybody, as if it were on another machine: what is compared is the database alone."""

import json
import os
import queue
import select
import sys
import threading
import time
from collections import Counter

import psycopg
import pymysql
from pymysql.constants import COMMAND

ANSWERS_WITHIN_S = 10
# One more than a component is given.
ROWS = 1001


class Postgres:
    def __init__(self, where: dict):
        self.connection = psycopg.connect(**where, autocommit=True, prepare_threshold=None, gssencmode="disable")

    def rows(self, statement: str):
        self.connection.execute(f"{statement} limit {ROWS}").fetchall()
        return True

    def begins(self, statement: str):
        """Closes when the answer begins, as who is told that it is too large."""
        self.connection.pgconn.send_query(statement.encode())
        self.connection.pgconn.flush()
        select.select([self.connection.pgconn.socket], [], [], ANSWERS_WITHIN_S)
        return False

    def close(self):
        self.connection.close()


class MariaDb:
    def __init__(self, where: dict):
        self.connection = pymysql.connect(**where, autocommit=True, read_timeout=ANSWERS_WITHIN_S)

    def rows(self, statement: str):
        """Of an answer that is longer the rest is not read, and the connection goes. A cursor would read it, however long it is."""
        self.connection._execute_command(COMMAND.COM_QUERY, statement)
        ends = 0    # of the columns, and of the rows
        for _ in range(ROWS):
            ends += self.connection._read_packet().is_eof_packet()
            if ends == 2:
                return True
        return False

    def begins(self, statement: str):
        """The same."""
        self.connection._execute_command(COMMAND.COM_QUERY, statement)
        select.select([self.connection._sock], [], [], ANSWERS_WITHIN_S)
        return False

    def close(self):
        self.connection._force_close()


class Asking:
    """One worker of the pool: a connection, made when there is something to ask and kept while it is of use."""

    def __init__(self, settings: dict, did: Counter):
        self.make = {"postgres": Postgres, "mariadb": MariaDb}[settings["kind"]]
        self.settings, self.did, self.connection = settings, did, None

    def ask(self, number: int):
        how, statement = self.settings["statements"][number % len(self.settings["statements"])]
        try:
            self.connection = self.connection or self.make(self.settings["where"])
            is_kept = getattr(self.connection, how)(statement)
            self.did["asked"] += 1
        except (psycopg.Error, pymysql.err.Error, OSError):
            is_kept = False
            self.did["refused"] += 1
        if not is_kept and self.connection:
            self.connection.close()
            self.connection = None


def work(due: queue.Queue, asking: Asking):
    while True:
        asking.ask(due.get())


def main():
    settings, did, due = json.loads(sys.argv[1]), Counter(), queue.Queue()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    for _ in range(settings["connections"]):
        threading.Thread(target=work, args=(due, Asking(settings, did)), daemon=True).start()
    began = time.monotonic()
    while not ended.is_set():
        # All that are due in a second are due at once, as halves that were sent at once are; none is asked about twice at a time.
        for number in range(settings["each_second"] - due.qsize()):
            due.put(number)
        ended.wait(1)
    print(json.dumps({**did, "seconds": time.monotonic() - began}), flush=True)
    # Nothing is waited for: what is open the system closes.
    os._exit(0)


main()
