"""Runs the README of the example, step by step as it is written, and looks at what it promises."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from broker import REPOSITORY, binary, plugin_dist, wait_until

README = REPOSITORY / "examples/order-service/README.md"
STEP = re.compile(r"<!-- step: (.+?) -->\n```sh\n(.*?)```", re.S)


class Walk:
    """One walk through the README, with its ports and folder replaced by ones that are free."""

    def __init__(self, folder):
        self.folder = folder
        self.steps = dict(STEP.findall(README.read_text()))
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
        text = self.steps.pop(step).replace("/tmp/vouch-orders", str(self.folder))
        text = text.replace("target/release/vouch", "vouch").replace("$PWD/target/release:", "")
        text = text.replace("plugins/dist/http-checkback.wasm", str(plugin_dist() / "http-checkback.wasm"))
        for port, free in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        if "order_service.py" in text:
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

    def service_is_up(self):
        wait_until(lambda: self.answers(f"http://127.0.0.1:{self.ports['9000']}/orders/none"), "the service is up", 20)

    def orders_shipped(self):
        return re.findall(r'shipping {"id": "(\d+)"', self.output("shipping"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def walk(tmp_path, request):
    walk = Walk(tmp_path)
    yield walk
    for process in walk.running.values():
        process.kill()
        process.wait()
    if request.session.testsfailed:
        for log in tmp_path.glob("*.log"):
            print(f"--- {log.name}\n{walk.output(log.stem)[-3000:]}", file=sys.stderr)


def test_the_readme_of_the_order_service_tells_the_truth(walk):
    # The README's ports are the broker's defaults; the test gives it free ones by the same settings.
    walk.start("broker, in the background", "broker")
    wait_until(lambda: walk.answers(f"http://{walk.environment['VOUCH_HTTP_ADDR']}/readyz"), "the broker is up", 30)
    walk.run("setup")
    walk.run("install")

    walk.start("service, in the background", "service")
    walk.service_is_up()
    walk.start("shipping, in the background", "shipping")
    walk.run("order 1001")
    wait_until(lambda: walk.orders_shipped() == ["1001"], "order 1001 is shipped", 20)

    walk.stop("service")
    walk.start("service that dies after its database commit, in the background, instead of service", "service")
    walk.service_is_up()
    listed = walk.run("order 1002, which gets no answer")
    assert "no answer: the service is dead" in listed
    assert walk.running.pop("service").wait(10) == -signal.SIGKILL
    assert re.search("open|waiting", listed), listed
    time.sleep(5)  # the broker asks a dead service meanwhile; it must not make anything up
    assert walk.orders_shipped() == ["1001"]
    walk.start("service again, in the background", "service")
    wait_until(lambda: walk.orders_shipped() == ["1001", "1002"], "order 1002 is shipped", 30)

    walk.stop("service")
    walk.start("service that dies before its database commit, in the background, instead of service again", "service")
    walk.service_is_up()
    assert "no answer: the service is dead" in walk.run("order 1003, which gets no answer")
    assert walk.running.pop("service").wait(10) == -signal.SIGKILL
    walk.start("service once more, in the background", "service")
    ledger = walk.commands("ledger")

    def settled():
        done = subprocess.run(["bash", "-euc", ledger], env=walk.environment, capture_output=True, text=True)
        return done.stdout.count("committed") == 2 and len(re.findall("rolled.back", done.stdout)) == 1

    wait_until(settled, "two transactions are committed and one is rolled back", 60, 0.5)
    assert walk.orders_shipped() == ["1001", "1002"]
    assert not walk.steps, f"steps that this test does not run: {list(walk.steps)}"

    walk.stop("service")
    walk.stop("shipping")
    broker = walk.running.pop("broker")
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(15) == 0, walk.output("broker")
