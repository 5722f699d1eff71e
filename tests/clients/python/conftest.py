"""The broker under test, and names that no two tests share."""

import os
import re
import shutil
import sys
import tempfile
import uuid
from pathlib import Path

# The client logs to ~/logs at import; keep a developer's home clean and the log at hand for a failure.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
_CLIENT_HOME = tempfile.mkdtemp(prefix="vouch-client-home-")
_home, os.environ["HOME"] = os.environ.get("HOME"), _CLIENT_HOME
import rocketmq  # noqa: E402,F401
if _home is not None:
    os.environ["HOME"] = _home

import pytest  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from broker import Broker, binary  # noqa: E402
from cluster import Cluster  # noqa: E402
from order_server import OrderServer  # noqa: E402


# How much of the log of which broker goes into the report of a failed test.
LOG_BYTES = {"shared_broker": 6_000, "own_broker": 6_000, "cluster": 24_000, "five_nodes": 40_000}


def pytest_sessionfinish():
    # What is worth reading of it is in the reports of failed tests.
    shutil.rmtree(_CLIENT_HOME, ignore_errors=True)


def pytest_sessionstart(session):
    if not session.config.option.collectonly and not binary().exists():
        pytest.exit(f"{binary()} is missing: run `cargo build --release` first", 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What the broker said goes into the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if report.when in ("setup", "call") and report.failed:
        for fixture in LOG_BYTES:
            broker = item.funcargs.get(fixture)
            if broker is not None:
                _tell(report, f"{fixture}: end of its log", broker.log(LOG_BYTES[fixture]))
        log = Path(_CLIENT_HOME) / "logs/rocketmq_python/rocketmq_client.log"
        if log.exists():
            lines = [line for line in log.read_text(errors="replace").splitlines() if "[INFO]" not in line]
            _tell(report, "client: last warnings and errors", "\n".join(lines[-20:]))


def _tell(report, name: str, content: str):
    """Into what is told of the failure itself: what is captured is not shown."""
    if hasattr(report.longrepr, "addsection"):
        report.longrepr.addsection(name, content)
    else:
        report.sections.append((name, content))


def _start(folder: Path) -> Broker:
    return Broker(folder).start()


def _finish(broker: Broker):
    if broker.is_running():
        assert broker.stop() == 0, f"SIGTERM must end the broker with status 0:\n{broker.log()}"
    assert "panicked at" not in broker.log(1 << 30), f"the broker panicked:\n{broker.log()}"


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory):
    """One broker for all tests that leave it running. Each test has topics and groups of its own."""
    broker = _start(tmp_path_factory.mktemp("shared-broker"))
    yield broker
    _finish(broker)


@pytest.fixture
def own_broker(tmp_path):
    """A broker for a test that stops or kills it."""
    broker = _start(tmp_path)
    yield broker
    _finish(broker)


@pytest.fixture
def cluster(tmp_path, request):
    """Nodes that are one broker: three, or as many as the test says."""
    yield from _cluster(tmp_path, getattr(request, "param", 3))


@pytest.fixture
def five_nodes(tmp_path):
    """Five of them."""
    yield from _cluster(tmp_path, 5)


def _cluster(folder: Path, size: int):
    nodes = Cluster(folder, size)
    try:
        yield nodes.start()
    finally:
        nodes.finish()


@pytest.fixture
def figures(record_property, request):
    """Notes what was measured: it is told at the end, whether the test passed or not."""
    return lambda told: record_property("figures", f"{request.node.name}: {told}")


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ("passed", "failed", "xfailed") for report in terminalreporter.stats.get(kind, [])]
    told = [value for report in reports if report.when == "call" for name, value in report.user_properties
            if name == "figures"]
    if told:
        terminalreporter.section("figures")
        terminalreporter.write("".join(f"{each}\n" for each in told))


@pytest.fixture
def name(request):
    """A name for a topic or group: of this test and of no other."""
    stem = re.sub(r"[^a-zA-Z0-9]", "-", request.node.name)[:60]
    return f"{stem}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def orders():
    """A running order service."""
    service = OrderServer().start()
    yield service
    service.unhang()
    service.stop()
