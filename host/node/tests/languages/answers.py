"""Commits every transaction and acknowledges every message; with `count` in the config it counts each under its delivery key."""

from wit_world import exports
from wit_world.exports import checkback, consumer
from wit_world.imports import host, state


class Checkback(exports.Checkback):
    def check(self, half):
        return checkback.Verdict_Commit()


class Consumer(exports.Consumer):
    def consume(self, item):
        if host.config("count") is not None:
            state.add(item.delivery_key, 1)
        return consumer.Outcome_Ack()
