"""The example `order-service` under test: a walk through one of its READMEs, and a shop in which its programs run."""

import functools
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing

from broker import REPOSITORY, binary, plugin_dist, quote, wait_until

EXAMPLE = REPOSITORY / "examples/order-service"
STEP = re.compile(r"<!-- step: (.+?) -->\n```sh\n(.*?)```", re.S)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Walk:
    """One walk through a README (of the folder `where`), with its ports and its folder (`written`) replaced by free ones."""

    def __init__(self, folder, readme, written, where=EXAMPLE):
        self.folder = folder
        self.steps = dict(STEP.findall((where / readme).read_text()))
        self.written = written
        self.ports = {port: free_port() for port in ("8080", "8081", "9000")}
        self.running = {}
        # The broker under test, by the name that the README calls it.
        commands = folder / "bin"
        commands.mkdir()
        (commands / "vouch").symlink_to(binary())
        self.environment = {
            **os.environ,
            "VOUCH_GRPC_ADDR": f"127.0.0.1:{self.ports['8081']}",
            "VOUCH_HTTP_ADDR": f"127.0.0.1:{self.ports['8080']}",
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HOME": str(folder),
        }

    def commands(self, step):
        text = self.steps.pop(step).replace(self.written, str(self.folder))
        text = text.replace("target/release/vouch", "vouch").replace("$PWD/target/release:", "")
        text = text.replace("plugins/dist/", f"{plugin_dist()}/")
        for port, free in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        if re.search(r"order_service\w*\.py", text):
            text = text.rstrip() + f" --port {self.ports['9000']}\n"
        return text

    def run(self, step):
        done = subprocess.run(["bash", "-euc", self.commands(step)], cwd=REPOSITORY, env=self.environment,
                              capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"step `{step}`: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, step, name):
        output = open(self.folder / f"{name}.log", "ab")
        # `exec`: a signal meant for the program must not end at the shell.
        # Where the whole run ignores SIGINT, because it is in the background, its children would inherit that.
        heeds_sigint = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self.running[name] = subprocess.Popen(["bash", "-c", "exec " + self.commands(step)], cwd=REPOSITORY,
                                              env=self.environment, stdout=output, stderr=output,
                                              preexec_fn=heeds_sigint)
        output.close()

    def stop(self, name):
        process = self.running.pop(name)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, -signal.SIGINT, 130), self.output(name)

    def stop_broker(self):
        broker = self.running.pop("broker")
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(15) == 0, self.output("broker")

    def finish(self, tell):
        """Ends what runs; and tells what it said, if it is to."""
        for process in self.running.values():
            process.kill()
            process.wait()
        for log in self.folder.glob("*.log") if tell else ():
            print(f"--- {log.name}\n{self.output(log.stem)[-3000:]}", file=sys.stderr)

    def service_dies(self):
        assert self.running.pop("service").wait(10) == -signal.SIGKILL

    def broker_is_up(self):
        # The README's ports are the broker's defaults; the test gives it free ones by the same settings.
        wait_until(lambda: self.is_well(f"http://{self.environment['VOUCH_HTTP_ADDR']}/readyz"), "the broker is up", 30)

    def output(self, name):
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def answers(self, url):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def is_well(self, url):
        """Whether it answers, and not that it is still starting."""
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def service_is_up(self):
        wait_until(lambda: self.answers(f"http://127.0.0.1:{self.ports['9000']}/orders/none"), "the service is up", 20)

    def orders_shipped(self):
        return re.findall(r'shipping {"id": "(\d+)"', self.output("shipping"))


class Program:
    """One of the two programs, as a process."""

    def __init__(self, shop, script, *arguments, broker=None):
        shop.started += 1
        self.log = shop.folder / f"{shop.started}-{script}.log"
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLE / script), "--broker", broker or shop.broker.grpc, *arguments],
                stdout=output, stderr=output, env={**os.environ, "HOME": str(shop.folder)})
        shop.programs.append(self)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def runs(self):
        return self.process.poll() is None

    def output(self):
        return self.log.read_text(errors="replace")


class Service(Program):
    """The order service, up. `ends` are its arguments for how it ends an order."""

    def __init__(self, shop, *ends, broker=None):
        super().__init__(shop, shop.SERVICE, "--database", shop.database(), "--port", "0", *ends, broker=broker)
        told = re.compile(r"taking orders at http://127\.0\.0\.1:(\d+)/")
        wait_until(lambda: told.search(self.output()) or not self.runs(), "the service is up", 30)
        assert self.runs(), self.output()
        self.port = int(told.search(self.output())[1])

    def call(self, path, body=None):
        """Status and document; status 0 if there is no answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, json.load(problem)
        except OSError:
            return 0, None

    def order(self, id, item="teapot"):
        return self.call("/orders", {"id": id, "item": item})

    def find(self, id):
        return self.call(f"/orders/{quote(id)}")


class Shop:
    """A broker of its own, the two databases, and the programs that run."""

    SERVICE = ""    # the script of the order service
    COMPONENT = ""  # which settles its transactions

    def __init__(self, folder, broker, **checks):
        self.folder, self.broker = folder, broker
        self.programs, self.started = [], 0
        broker.create_transaction_topic("orders", **checks)
        broker.push_component(self.COMPONENT, "1.0", (plugin_dist() / f"{self.COMPONENT}.wasm").read_bytes())

    def database(self):
        """Where the order service keeps its orders."""
        raise NotImplementedError

    def finish(self, tell):
        """Ends what runs; and tells what it said, if it is to."""
        for program in self.programs:
            program.kill()
        for program in self.programs if tell else ():
            print(f"--- {program.log.name}\n{program.output()[-3000:]}", file=sys.stderr)

    def shipping(self):
        return Program(self, "shipping.py", "--database", str(self.folder / "shipping.db"))

    def shipments(self):
        """Ids of what `shipping.py` shipped: those in its database, and those that its processes say, each sorted."""
        with closing(sqlite3.connect(self.folder / "shipping.db")) as database:
            there = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'shipments'").fetchone()[0]
            ids = [id for (id,) in database.execute("SELECT id FROM shipments")] if there else []
        lines = [line for program in self.programs for line in program.output().splitlines()]
        said = [json.loads(line.removeprefix("shipping "))["id"] for line in lines if line.startswith("shipping {")]
        return sorted(ids), sorted(said)

    def ships(self, *ids):
        """Waits until all of these are shipped: each once, and no other."""
        wait_until(lambda: self.shipments() == (sorted(ids), sorted(ids)), f"shipped are {ids}", 60, 0.2)

    def states(self):
        """The states of all transactions, sorted."""
        listed = self.broker.call("GET", "/v1/transactions?topic=orders")["items"]
        return sorted(transaction["state"] for transaction in listed)

    def settles(self, *states):
        wait_until(lambda: self.states() == sorted(states), f"the transactions are {states}", 60, 0.2)
