"""Orders that must not be lost: stored, billed in order for each customer, tried again, parked and redelivered.

python samples/durable.py [URL]
"""

from __future__ import annotations

import threading
import time

from _server import nats_url

import lightlink
from lightlink import Reject
from lightlink.streams import StoredMessage

CUSTOMERS = ("ada", "bob", "cyd")
ORDERS = 30


class Till:
    """Bills orders, at most once each; the card of one customer does not work before ``card_works`` is set."""

    def __init__(self) -> None:
        self.card_works = threading.Event()
        self.billed: dict[str, list[int]] = {customer: [] for customer in CUSTOMERS}
        self.attempts = 0
        self.changed = threading.Condition()

    def bill(self, message: StoredMessage) -> None:
        """Bill an order, or say why not."""
        order = message.data
        with self.changed:
            self.attempts += 1
            if order["number"] == 13 and message.attempt == 1:
                raise ConnectionError("the bank does not answer")  # it is tried again, and holds up bob's others only
            if order["customer"] == "cyd" and not self.card_works.is_set():
                raise Reject("the card does not work")
            if order["number"] not in self.billed[order["customer"]]:  # handed out twice after a crash, billed once
                self.billed[order["customer"]].append(order["number"])
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        """Wait until so many orders are billed."""
        with self.changed:
            assert self.changed.wait_for(lambda: sum(map(len, self.billed.values())) == count, 30)


def main() -> None:
    """Sell, bill, and look after what could not be billed."""
    with nats_url() as url, lightlink.connect(url) as client:
        client.stream("SAMPLE_ORDERS", ["sample.orders.>"], max_age=3600).purge()
        with client.storing() as batch:
            for number in range(ORDERS):
                customer = CUSTOMERS[number % len(CUSTOMERS)]
                batch.publish("sample.orders.new", {"number": number, "customer": customer}, id=str(number))
        again = client.publish_stored("sample.orders.new", {"number": 0, "customer": "ada"}, id="0")
        print(f"stored: {batch.stored}, the first one again: duplicate {again.duplicate}")

        till = Till()
        consume = client.consume(
            "sample.orders.>", name="till", workers=4, key=lambda message: message.data["customer"], retries=[0.1, 1]
        )
        consume(till.bill)
        till.wait(20)
        print(f"billed in order: ada {till.billed['ada']}")
        print(f"although 13 failed once: bob {till.billed['bob']}")

        letters = client.dead_letters("SAMPLE_ORDERS", "till")
        while len(letters.list()) < 10:
            time.sleep(0.05)
        print(f"parked: {len(letters.list())}, the first because {letters.list()[0].error}")
        till.card_works.set()
        for letter in letters.list():
            letters.redeliver(letter.number)
        till.wait(ORDERS)
        print(f"redelivered and billed: cyd {sorted(till.billed['cyd'])}")
        print(f"replayed: {sum(1 for _ in client.replay('sample.orders.>'))} events")


if __name__ == "__main__":
    main()
