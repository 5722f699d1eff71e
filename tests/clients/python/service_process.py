"""A service in a process of its own: started, told what to do line by line, heard, and killed."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from broker import wait_until

STARTS_WITHIN_S = 30


class ServiceProcess:
    """`script` is run with `settings` as JSON. All that it says is kept, by what it says it of."""

    def __init__(self, script: str, hears=lambda said: None, **settings):
        self.hears = hears
        self.said = []
        self.changed = threading.Condition()
        # The client logs below its home.
        self.home = tempfile.TemporaryDirectory(prefix="vouch-service-")
        self.errors = open(Path(self.home.name) / "errors", "w+")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), json.dumps(settings)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True, env={**os.environ, "HOME": self.home.name})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            with self.changed:
                self.said.append(said)
                self.changed.notify_all()
            self.hears(said)

    def ready(self) -> "ServiceProcess":
        self.heard(lambda said: said.get("ready"), "the service is ready", STARTS_WITHIN_S)
        return self

    def tell(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def heard(self, wanted, what: str, deadline_s=30.0) -> dict:
        """Waits until it says that, or has said it."""
        def find():
            return next((said for said in self.said if wanted(said)), None)

        with self.changed:
            self.changed.wait_for(lambda: find() or not self.runs(), deadline_s)
            found = find()
        assert found, f"{what}: not said; the latest: {self.said[-5:]}\n{self.complaints()}"
        return found

    def runs(self) -> bool:
        return self.process.poll() is None

    def complaints(self) -> str:
        if self.errors.closed:
            return ""
        self.errors.flush()
        return Path(self.errors.name).read_text(errors="replace")[-3000:]

    def kill(self):
        """kill -9; what it said before was heard."""
        self.process.kill()
        self.process.wait()
        self.reader.join(10)
        self._close()

    def finish(self):
        """No more is told; it ends when all is done. Killed where it does not."""
        if self.errors.closed:
            return
        try:
            self.process.stdin.close()
            wait_until(lambda: not self.runs(), "the service ends", 20)
        except (AssertionError, OSError):
            self.process.kill()
            self.process.wait()
        self.reader.join(10)
        self._close()

    def _close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()
        self.home.cleanup()
