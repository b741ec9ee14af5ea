"""Publish events, and receive them with a handler, in a loop, or shared among workers.

python samples/pubsub.py [URL]
"""

from __future__ import annotations

import queue

from _server import nats_url

import lightlink


def main(url: str) -> None:
    """Receive events in each of the ways there are."""
    with lightlink.connect(url) as client:
        with_handler(client)
        in_a_loop(client)
        shared(client)


def with_handler(client: lightlink.Client) -> None:
    """Have a function called for each event."""
    handled: queue.Queue[str] = queue.Queue()

    # It runs on a worker thread, one event after the other, and may block as it likes. Annotated with Message it is
    # given subject, data and headers; without, it is given the data.
    @client.on("users.*.created")
    def welcome(message: lightlink.Message) -> None:
        handled.put(f"welcome {message.data['name']} ({message.subject})")

    client.publish("users.berlin.created", {"name": "Ada"})
    print("handler:", handled.get(timeout=5.0))


def in_a_loop(client: lightlink.Client) -> None:
    """Take events one by one, where the program wants them."""
    with client.subscribe("prices.>") as prices:
        for number in range(3):
            client.publish(f"prices.apple.{number}", {"price": 0.5 + number})
        for message in prices:
            print("loop:", message.subject, message.data)
            if message.data["price"] > 2:
                break


def shared(client: lightlink.Client) -> None:
    """Share events among the members of a queue group: each event goes to one of them."""
    done: queue.Queue[int] = queue.Queue()

    # In real life these two are instances of a program, on different machines.
    @client.on("jobs", queue="workers")
    def first(job: dict[str, int]) -> None:
        done.put(job["number"])

    @client.on("jobs", queue="workers")
    def second(job: dict[str, int]) -> None:
        done.put(job["number"])

    for number in range(10):
        client.publish("jobs", {"number": number})
    print("shared:", sorted(done.get(timeout=5.0) for _ in range(10)), "and", done.qsize(), "done twice")


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
