"""Runs the example of a cluster as its README says, with one loss instead of three, and reads what it counts."""

import re
import subprocess
import sys

from broker import REPOSITORY, binary

EXAMPLE = REPOSITORY / "examples/cluster"
STEP = re.compile(r"<!-- step: run -->\n```sh\n(.*?)```", re.S)


def test_the_example_of_a_cluster_loses_nothing_with_the_node_that_leads(tmp_path):
    folder = tmp_path / "cluster"
    command = STEP.search((EXAMPLE / "README.md").read_text()).group(1).split()
    assert command[0] == "python3" and command[-2:] == ["--folder", "/tmp/vouch-cluster"]
    command = [sys.executable, *command[1:-1], str(folder), "--vouch", str(binary()), "--losses", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    lost = re.search(r"led and was killed .*; node-\d leads [\d.]+ s later", done.stdout)
    counted = re.search(r"(\d+) messages were acknowledged, .*; (\d+) came, (\d+) are lost", done.stdout)
    assert lost and counted, done.stdout
    acknowledged, came, missing = map(int, counted.groups())
    assert acknowledged > 0 and came >= acknowledged and missing == 0
