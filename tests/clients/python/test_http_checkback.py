"""The main job: a transaction settled by an uploaded component, with no producer alive."""

import hashlib

import pytest
from broker import HttpProblem, plugin_dist, wait_until
from clients import (COMMIT, Checker, assert_nothing_arrives, producer, receive_and_ack, send_half, simple_consumer)

PLUGIN = "http-checkback"
WHY_MISSING = "run plugins/build, or point VOUCH_PLUGIN_DIST at the folder with the built components"


@pytest.fixture(scope="session")
def component():
    file = plugin_dist() / f"{PLUGIN}.wasm"
    assert file.exists(), f"{file} is missing: {WHY_MISSING}"
    return file.read_bytes()


@pytest.fixture
def topic(shared_broker, name, component):
    shared_broker.push_component(PLUGIN, "test", component)
    shared_broker.create_transaction_topic(name)
    return name


def bind(broker, topic, orders, config=None, **more):
    settings = {
        "url": orders.origin + "/orders/{key}", "field": "/status",
        "commit": "paid,shipped", "rollback": "cancelled", **(config or {}),
    }
    # Not tried before it stands: the services here tell by whom they were asked, and some are away.
    binding = {"plugin": f"{PLUGIN}:test", "topics": [topic], "grants": {"http": [orders.origin]}, "config": settings,
               "unchecked": True}
    return broker.set_binding(topic, **{**binding, **more})


def orphan(broker, topic, key):
    """A half message whose producer is gone before anybody could ask it."""
    with producer(broker, topic, checker=Checker()) as client:
        return send_half(client, topic, key, f"body of {key}".encode())[1]


def is_in(broker, receipt, state):
    transaction = broker.transaction(receipt.transaction_id)
    return transaction if transaction["state"] == state else None


def settles(broker, receipt, state, deadline_s=25):
    return wait_until(lambda: is_in(broker, receipt, state), f"the transaction is {state}", deadline_s)


def error_of(broker, receipt):
    answer = broker.transaction(receipt.transaction_id).get("last_answer") or {}
    return answer.get("error")


def test_upload_answers_with_a_verdict(shared_broker, name, component):
    digest = f"sha256:{hashlib.sha256(component).hexdigest()}"
    verdict = shared_broker.push_component(name.lower(), "1.0", component)
    assert verdict["digest"] == digest
    assert "checkback" in verdict["world"]
    assert any("wasi:http" in wanted for wanted in verdict["imports"])
    assert verdict["size"] == len(component)
    # The same bytes again are fine; other bytes under a used tag need the old digest.
    assert shared_broker.push_component(name.lower(), "1.0", component)["digest"] == digest
    with pytest.raises(HttpProblem) as refusal:
        shared_broker.push_component(name.lower(), "2.0", b"not a component")
    assert refusal.value.status == 422
    listed = shared_broker.call("GET", "/v1/plugins")["items"]
    assert name.lower() in [plugin["name"] for plugin in listed]


def test_the_component_commits_what_happened_with_no_producer_alive(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    orders.orders["order-1"] = "paid"
    receipt = orphan(shared_broker, topic, "order-1")
    with simple_consumer(shared_broker, topic, topic) as consumer:
        (received,) = receive_and_ack(consumer, 1)
        assert_nothing_arrives(consumer)
    assert received.message_id == receipt.message_id
    assert received.body == b"body of order-1"
    committed = settles(shared_broker, receipt, "committed")
    # Who decided: the digest that was bound, and by which binding.
    assert topic in committed["last_answer"]["by"] and "sha256:" in committed["last_answer"]["by"]
    assert orders.requests == ["/orders/order-1"]


def test_the_component_rolls_back_what_did_not_happen(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    orders.orders["order-1"] = "cancelled"
    receipt = orphan(shared_broker, topic, "order-1")
    settles(shared_broker, receipt, "rolled_back")
    with simple_consumer(shared_broker, topic, topic) as consumer:
        assert_nothing_arrives(consumer)


def test_an_undecided_order_is_asked_again_until_it_is_decided(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    orders.orders["order-1"] = "awaiting payment"
    receipt = orphan(shared_broker, topic, "order-1")
    wait_until(lambda: shared_broker.transaction(receipt.transaction_id)["checks"] >= 2, "two counted checks", 20)
    assert shared_broker.transaction(receipt.transaction_id)["state"] == "open"
    orders.orders["order-1"] = "shipped"
    settles(shared_broker, receipt, "committed")
    with simple_consumer(shared_broker, topic, topic) as consumer:
        receive_and_ack(consumer, 1)


def test_while_the_service_is_down_nothing_is_counted_and_afterwards_it_settles(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    orders.orders["order-1"] = "paid"
    orders.stop()
    receipt = orphan(shared_broker, topic, "order-1")
    wait_until(lambda: error_of(shared_broker, receipt), "a check got no answer", 20)
    with simple_consumer(shared_broker, topic, topic) as consumer:
        assert_nothing_arrives(consumer, 5)
        unanswered = shared_broker.transaction(receipt.transaction_id)
        assert (unanswered["state"], unanswered["checks"]) == ("open", 0), unanswered
        orders.start()
        assert receive_and_ack(consumer, 1, deadline_s=30)[0].message_id == receipt.message_id
    settles(shared_broker, receipt, "committed")


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_service_is_no_answer(shared_broker, topic, orders, status):
    bind(shared_broker, topic, orders)
    orders.orders["order-1"] = "paid"
    orders.status_code = status
    receipt = orphan(shared_broker, topic, "order-1")
    wait_until(lambda: len(orders.requests) >= 2, "asked at least twice", 20)
    unanswered = shared_broker.transaction(receipt.transaction_id)
    assert (unanswered["state"], unanswered["checks"]) == ("open", 0), unanswered
    orders.status_code = None
    settles(shared_broker, receipt, "committed")


def test_a_hanging_service_is_no_answer_within_the_deadline(shared_broker, topic, orders):
    bind(shared_broker, topic, orders, limits={"deadline": "500ms"})
    orders.orders["order-1"] = "paid"
    orders.hang()
    receipt = orphan(shared_broker, topic, "order-1")
    wait_until(lambda: error_of(shared_broker, receipt), "the deadline passed", 20)
    assert shared_broker.transaction(receipt.transaction_id)["checks"] == 0
    orders.unhang()
    settles(shared_broker, receipt, "committed")


def test_a_missing_order_is_undecided_unless_the_config_says_rollback(shared_broker, topic, orders, name):
    bind(shared_broker, topic, orders)
    receipt = orphan(shared_broker, topic, "order-1")
    wait_until(lambda: shared_broker.transaction(receipt.transaction_id)["checks"] >= 2, "two counted checks", 20)
    assert shared_broker.transaction(receipt.transaction_id)["state"] == "open"
    shared_broker.call("DELETE", f"/v1/bindings/{topic}")
    bind(shared_broker, topic, orders, {"rollback-missing-after": "1s"})
    settles(shared_broker, receipt, "rolled_back")


def test_an_origin_that_is_not_granted_is_refused_when_the_binding_is_set(shared_broker, topic, orders):
    with pytest.raises(HttpProblem) as refusal:
        bind(shared_broker, topic, orders, grants={"http": ["http://127.0.0.1:9"]})
    assert refusal.value.status == 422
    assert orders.origin in str(refusal.value.body) and "grants.http" in str(refusal.value.body)
    assert orders.requests == []


def test_a_redirect_to_an_origin_that_is_not_granted_is_not_followed(shared_broker, topic, orders):
    elsewhere = type(orders)().start()
    try:
        elsewhere.orders["order-1"] = "paid"
        orders.orders["order-1"] = "paid"
        orders.status_code = 302
        orders.location = f"{elsewhere.origin}/orders/order-1"
        bind(shared_broker, topic, orders)
        receipt = orphan(shared_broker, topic, "order-1")
        wait_until(lambda: len(orders.requests) >= 2, "asked at least twice", 20)
        assert elsewhere.requests == []
        assert shared_broker.transaction(receipt.transaction_id)["state"] == "open"
    finally:
        elsewhere.stop()


def test_with_a_binding_the_producers_checker_is_not_asked(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    orders.orders["order-1"] = "cancelled"
    checker = Checker({"order-1": COMMIT})
    with producer(shared_broker, topic, checker=checker) as client:
        _, receipt = send_half(client, topic, "order-1")
        settles(shared_broker, receipt, "rolled_back")
    assert checker.asked == {}


def test_a_topic_has_one_binding(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    with pytest.raises(HttpProblem) as refusal:
        shared_broker.set_binding(f"{topic}-second", plugin=f"{PLUGIN}:test", topics=[topic],
                                  grants={"http": [orders.origin]},
                                  config={"url": orders.origin + "/orders/{key}", "commit": "200"})
    assert refusal.value.status == 409
    assert topic in str(refusal.value.body)


def test_keys_with_special_characters_are_percent_encoded_in_the_url(shared_broker, topic, orders):
    bind(shared_broker, topic, orders)
    orders.orders["a%2Fb%20%C3%BC%3F"] = "paid"
    receipt = orphan(shared_broker, topic, "a/b ü?")
    settles(shared_broker, receipt, "committed")
    assert orders.requests == ["/orders/a%2Fb%20%C3%BC%3F"]


def test_component_and_binding_survive_kill_9(own_broker, name, component, orders):
    own_broker.push_component(PLUGIN, "test", component)
    own_broker.create_transaction_topic(name, immunity="3s")
    bind(own_broker, name, orders)
    orders.orders["order-1"] = "paid"
    receipt = orphan(own_broker, name, "order-1")
    own_broker.kill()
    own_broker.start()
    settles(own_broker, receipt, "committed")
    with simple_consumer(own_broker, name, name) as consumer:
        assert receive_and_ack(consumer, 1)[0].message_id == receipt.message_id
