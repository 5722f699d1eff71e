"""Another service: ships what was ordered. It learns of orders by their messages alone."""

import argparse
import os

from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer

TOPIC = "orders"
GROUP = "shipping"

# Seconds. An order that is not acknowledged within the first goes to the next who asks.
INVISIBLE_WHILE_WORKING = 30
WAIT_FOR_ORDERS = 20


def main():
    arguments = argparse.ArgumentParser(description="Ships what was ordered.")
    arguments.add_argument("--broker", default=os.environ.get("VOUCH_GRPC_ADDR", "127.0.0.1:8081"))
    arguments = arguments.parse_args()

    consumer = SimpleConsumer(ClientConfiguration(arguments.broker, Credentials()), GROUP,
                              {TOPIC: FilterExpression()}, await_duration=WAIT_FOR_ORDERS)
    consumer.startup()
    print("waiting for orders", flush=True)
    try:
        while True:
            for message in consumer.receive(16, INVISIBLE_WHILE_WORKING):
                # First the work, then the acknowledgement: a crash in between repeats the work, it never loses it.
                # So real work has to bear being done twice; the order's id tells that it was.
                print(f"shipping {message.body.decode()}", flush=True)
                consumer.ack(message)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.shutdown()


if __name__ == "__main__":
    main()
