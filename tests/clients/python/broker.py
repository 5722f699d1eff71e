"""A real broker process in a folder of its own, and its HTTP API."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

START_DEADLINE_S = 30
STOP_DEADLINE_S = 15


def binary() -> Path:
    """The broker under test: `VOUCH_BIN`, else the release build of this checkout."""
    if chosen := os.environ.get("VOUCH_BIN"):
        return Path(chosen)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return target / "release" / "vouch"


def plugin_dist() -> Path:
    """Where the built components are: `VOUCH_PLUGIN_DIST`, else the ones the repository carries."""
    return Path(os.environ.get("VOUCH_PLUGIN_DIST", REPOSITORY / "plugins" / "dist"))


def wait_until(condition, what: str, deadline_s: float = 15.0, every_s: float = 0.05):
    """Polls `condition` until it returns something true, and returns that; fails with `what` at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline_s} s still not so: {what} (last: {value!r})")
        time.sleep(every_s)


class HttpProblem(Exception):
    """An answer of the HTTP API that is not 2xx."""

    def __init__(self, status: int, body):
        super().__init__(f"HTTP {status}: {body}")
        self.status = status
        self.body = body


class Broker:
    """One `vouch serve`. Ports are the system's choice on the first start and kept over restarts, as a
    client keeps talking to the address it was given."""

    # By itself a node fills 64 MiB with zeros ahead of its log and sets 256 MiB aside for snapshots, which no test needs: with
    # these it takes a twentieth of that, so that many fit on a disk. A test that measures has none of them.
    SMALL = {"--zero-ahead": "1MiB", "--snapshot-every": "16MiB"}

    def __init__(self, folder: Path):
        self.data_dir = folder / "data"
        self.output = folder / "vouch.log"
        self.process = None
        self.small = self.SMALL
        self.grpc = "127.0.0.1:0"
        self.http = "127.0.0.1:0"

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> "Broker":
        self.launch(*arguments)
        wait_until(self.ready, "the broker is ready", START_DEADLINE_S)
        return self

    def launch(self, *arguments: str) -> "Broker":
        """Starts the process and waits until it has its ports; whether it takes requests is another matter."""
        command = [
            str(binary()), "serve", "--data-dir", str(self.data_dir),
            "--grpc-addr", self.grpc, "--http-addr", self.http,
            # Leases of seconds, so that tests need not wait for one of ten.
            "--receive-invisible-min", "1s", *self._small_besides(arguments), *arguments,
        ]
        with open(self.output, "ab") as output:
            output.write(f"--- {' '.join(command)}\n".encode())
            output.flush()
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        endpoints = wait_until(self._endpoints, "the broker wrote endpoints.json", START_DEADLINE_S)
        self.grpc, self.http = endpoints["grpc"], endpoints["http"]
        return self

    def _small_besides(self, arguments) -> list[str]:
        """What the test does not choose itself."""
        return [part for flag, size in self.small.items() if flag not in arguments for part in (flag, size)]

    def _endpoints(self):
        if (status := self.process.poll()) is not None:
            raise AssertionError(f"vouch serve ended with status {status}:\n{self.log()}")
        try:
            endpoints = json.loads((self.data_dir / "endpoints.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        # A file that a killed process left behind names that process, not this one.
        return endpoints if endpoints["pid"] == self.process.pid else None

    def ready(self) -> bool:
        try:
            self.call("GET", "/readyz")
            return True
        except (HttpProblem, OSError):
            return False

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the broker did not stop within {STOP_DEADLINE_S} s of SIGTERM:\n{self.log()}")

    def kill(self):
        """kill -9: nothing is flushed, nobody is told."""
        self.process.kill()
        self.process.wait()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self, last_bytes: int = 20_000) -> str:
        text = self.output.read_bytes() if self.output.exists() else b""
        return text[-last_bytes:].decode(errors="replace")

    # -- HTTP API -----------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body=None, content_type="application/json", headers=None):
        """One call of the HTTP API; returns the decoded JSON (or text) of a 2xx answer."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is None and method in ("POST", "PUT"):
            body = b"{}"
        request = urllib.request.Request(f"http://{self.http}{path}", data=body, method=method)
        # Also on a DELETE: the API takes no write without it, so that no web page can make one.
        if method != "GET":
            request.add_header("content-type", content_type)
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return _decode(answer.read())
        except urllib.error.HTTPError as problem:
            with problem:
                raise HttpProblem(problem.code, _decode(problem.read())) from None

    def create_topic(self, name: str, type: str = "normal", queues: int = 4, **more):
        return self.call("PUT", f"/v1/topics/{quote(name)}", {"type": type, "queues": queues, **more})

    def create_transaction_topic(self, name: str, *, immunity="1s", interval="1s", max_checks=15, **more):
        check = {"immunity": immunity, "interval": interval, "max_checks": max_checks, **more}
        return self.create_topic(name, "transaction", transaction=check)

    def create_group(self, name: str, **settings):
        return self.call("PUT", f"/v1/groups/{quote(name)}", settings)

    def transaction(self, id: str) -> dict:
        return self.call("GET", f"/v1/transactions/{quote(id)}")

    def push_component(self, name: str, tag: str, component: bytes) -> dict:
        return self.call("PUT", f"/v1/plugins/{quote(name)}/tags/{quote(tag)}", component, "application/wasm")

    def set_binding(self, name: str, **binding) -> dict:
        return self.call("PUT", f"/v1/bindings/{quote(name)}", binding)


def quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _decode(raw: bytes):
    try:
        return json.loads(raw) if raw else None
    except json.JSONDecodeError:
        return raw.decode(errors="replace")
