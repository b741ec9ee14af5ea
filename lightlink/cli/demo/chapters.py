"""The chapters of the demo. Each is a function: its docstring is the text, its body is both shown and run."""

# ruff: noqa: T201 - a chapter prints, as a reader's own program would.

from __future__ import annotations

import contextlib
import io
import time
from queue import Queue
from typing import TYPE_CHECKING

import lightlink
from lightlink.runs import Orchestrator, Plan
from lightlink.streams import StoredMessage

if TYPE_CHECKING:
    from collections.abc import Callable


def calls(client: lightlink.Client) -> None:
    """Call a function in another process.

    A call blocks until the answer is there. No asyncio, no callbacks, safe from any thread.
    """
    total = client.call("shop", "total", {"item": "apple", "count": 3}, timeout=5)
    print("three apples:", total)

    shop = client.service("shop")
    print("one pear:", shop.total(item="pear"))


def errors(client: lightlink.Client) -> None:
    """Mistakes come back as typed errors.

    Arguments are checked against the handler's annotations. A handler's exception comes back, its traceback stays in
    the service's log. That nobody runs a service is known at once, not after the timeout.
    """
    attempts = [
        ("shop", "total", {"item": "apple", "count": "three"}),
        ("shop", "total", {"item": "banana"}),
        ("shop", "refund", {}),
        ("bank", "balance", {}),
    ]
    for service, method, args in attempts:
        try:
            client.call(service, method, args)
        except lightlink.CallError as error:
            print(f"{type(error).__name__}: {error}")


def many(client: lightlink.Client) -> None:
    """Many calls at once.

    submit() returns a concurrent.futures.Future.
    """
    futures = [client.submit("shop", "total", {"item": "pear", "count": n}) for n in range(1, 101)]
    print("a hundred orders come to", sum(future.result(timeout=5) for future in futures))


def events(client: lightlink.Client) -> None:
    """Publish and receive events.

    The shop listens to "orders.new" and answers with an event of its own; whoever subscribes to it gets it.
    """
    with client.subscribe("orders.*") as orders:
        client.publish("orders.new", {"item": "apple", "count": 4})
        for _ in range(2):
            message = orders.get(timeout=5)
            print(message.subject, message.data)


def state(client: lightlink.Client) -> None:
    """Keep values on the server.

    A value stays until it is overwritten or deleted. A watch tells the values as they are, then every change; a write
    that is based on an old revision is refused, so nobody's write is lost.
    """
    revision = client.set_state("stock.apple", 40)
    with client.watch_state("stock.*") as stock:
        client.update_state("stock.apple", 36, revision=revision)
        client.set_state("stock.pear", 12)
        seen: dict[str, object] = {}
        while seen != {"stock.apple": 36, "stock.pear": 12}:
            change = stock.get(timeout=5)
            seen[change.key] = change.value
        print("the watch saw", seen)
    try:
        client.update_state("stock.apple", 39, revision=revision)
    except lightlink.RevisionConflict as error:
        print(f"{type(error).__name__}: {error}")


def files(client: lightlink.Client) -> None:
    """Send a file of any size.

    It is stored in chunks, many in flight, and checked by its SHA-256 when it is fetched. The shop is told that it is
    there, fetches it when it has the time, and says so.
    """
    with client.subscribe("invoices.read") as read:
        info = client.send_file(io.BytesIO(b"apple;4\npear;12\n" * 300_000), to="shop", name="invoice.csv")
        print(f"sent {info.name}: {info.size:,} bytes in {info.chunks} chunks")
        print("the shop read", read.get(timeout=10).data)
    client.delete_file(info.id)


def commands(client: lightlink.Client) -> None:
    """Send commands to an agent that may be offline.

    A command is kept by the server until its agent comes, and followed to its end; each step is written down once, so
    any number of managers see the same. Handlers tell how far they have come, and hear when they are to stop.
    """
    agent = lightlink.Agent("till-1", client, labels={"street": "high"})

    @agent.command("restock")
    def restock(context: lightlink.CommandContext, item: str, count: int) -> str:
        context.progress(0.5, "half of it")
        return f"{count} {item}s are in"

    with lightlink.CommandManager(client) as manager:
        early = manager.send("till-1", "restock", {"item": "pear", "count": 30})
        print("nobody is there yet:", early.status)
        with agent:
            print("then:", early.result(timeout=10), early.command().progress)
            batch = manager.send_many(None, "restock", {"item": "apple", "count": "all"}, labels={"street": "high"})
            for command in batch:
                print(f"{command.client_id} {command.status}: {command.error}")


def durable(client: lightlink.Client) -> None:
    """Store events that must not be lost.

    They are stored when publishing returns, and handed out until their handler has returned: again when it fails, or
    asks for it. Those that cannot be handled are parked, with the reason.
    """
    client.stream("SALES", ["sales.>"])
    handled, wet = Queue[str](), {"pear"}

    @client.consume("sales.>", name="ledger")
    def book(message: StoredMessage) -> None:
        item = message.data["item"]
        if item == "unicorn":
            raise lightlink.Reject("there are none")
        if item in wet:
            wet.remove(item)
            raise lightlink.Later(0.1)
        handled.put(f"{item}, number {message.sequence}")

    for item in ("apple", "pear", "unicorn"):
        print("stored as", client.publish_stored("sales.new", {"item": item}).sequence)
    for _ in range(2):
        print("booked:", handled.get(timeout=10))
    letters = client.dead_letters("SALES", "ledger")
    while not letters.list():
        time.sleep(0.05)
    print("parked:", letters.list()[0].data.decode(), "-", letters.list()[0].error)


def runs(client: lightlink.Client) -> None:
    """Roll something out to many agents, and back.

    A plan has steps and waves; a run of it is kept by the server and goes on whoever dies. Here one shelf cannot take
    the new prices, so those that have taken them go back.
    """
    prices = dict.fromkeys(["shelf-1", "shelf-2", "shelf-3"], "old")

    def change(context: lightlink.CommandContext, to: str) -> str:
        if context.client_id == "shelf-3" and to == "new":
            raise lightlink.Rejected("the display is broken")
        prices[context.client_id] = to
        return to

    plan = Plan("prices", targets=list(prices), waves=[1, "rest"], on_failure="rollback")
    plan.step("change", "change", {"to": "new"}, undo=("change", {"to": "old"}))
    with contextlib.ExitStack() as stack:
        for name in prices:
            agent = lightlink.Agent(name, client)
            agent.register("change", change)
            stack.enter_context(agent)
        orchestrator = stack.enter_context(Orchestrator(client))
        run = orchestrator.start(plan)
        print("it has ended as", run.wait(timeout=20))
        for target in run.targets():
            print(f"{target.client_id} {target.outcome}: {target.error or 'back to ' + prices[target.client_id]}")


# In the order of the demo. A new part of the library gets its chapter here.
CHAPTERS: tuple[Callable[[lightlink.Client], None], ...] = (
    calls,
    errors,
    many,
    events,
    state,
    files,
    durable,
    commands,
    runs,
)
