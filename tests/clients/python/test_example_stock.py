"""Runs the README of the stock keeper, step by step as it is written, and looks at what it promises."""

import json
import subprocess

import pytest
from broker import REPOSITORY, wait_until
from order_shop import Walk


class StockWalk(Walk):
    def __init__(self, folder):
        super().__init__(folder, "README.md", "/tmp/vouch-stock", REPOSITORY / "plugins/stock")

    def vouch(self, *arguments):
        """What a command says as JSON, beside the README."""
        done = subprocess.run(["vouch", *arguments, "--json"], env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def consumer_is_done(self):
        """What a step has just sent is in the log by then, and a reader is as fast as nobody else."""
        wait_until(lambda: self.vouch("binding", "show", "stock")["waiting"] == 0, "the consumer has done what was sent", 30)

    def order(self, key):
        listed = self.vouch("transaction", "list", "--topic", "orders")["items"]
        return next(each for each in listed if each["keys"] == [key])

    def kept(self):
        return {each["key"]: each["value"] for each in self.vouch("binding", "state", "stock", "list")["items"]}


@pytest.fixture
def walk(tmp_path, request):
    walk = StockWalk(tmp_path)
    yield walk
    walk.finish(tell=request.session.testsfailed)


def test_the_readme_of_the_stock_keeper_tells_the_truth(walk):
    walk.start("broker, in the background", "broker")
    walk.broker_is_up()
    for step in ("topics", "push", "consumer", "checkback"):
        walk.run(step)

    walk.run("goods")
    walk.consumer_is_done()
    shelf = walk.run("shelf")
    assert "stock:teapot" in shelf and "stock:cup" in shelf
    assert walk.kept() == {"stock:teapot": "3", "stock:cup": "12"}, shelf

    assert " open " in walk.run("order 1001")
    said = wait_until(lambda: walk.order("1001")["last_answer"], "the broker asked", 20)
    assert (said["verdict"], said["reason"]) == ("unknown", "order 1001 is not paid for"), said

    walk.run("payment of 1001")
    reserved = '{"order":"1001","items":[{"sku":"teapot","quantity":2},{"sku":"cup","quantity":2}]}'
    assert reserved in walk.run("reservation of 1001")
    assert walk.order("1001")["state"] == "committed"
    left = walk.run("what is left").splitlines()
    assert walk.kept()["stock:teapot"] == "1" and any(line.split()[-1:] == ["1"] for line in left), left

    walk.run("order 1002")
    assert '{"order":"1002","missing":[{"sku":"teapot","quantity":1}]}' in walk.run("what is missing for 1002")
    kept = walk.kept()
    assert (kept["stock:teapot"], kept["stock:cup"]) == ("1", "10")

    refused = walk.run("no payment")
    assert "forty-two" in refused
    walk.consumer_is_done()
    assert walk.kept() == kept
    assert not walk.steps, f"steps that this test does not run: {list(walk.steps)}"
    walk.stop_broker()
