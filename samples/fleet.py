"""A hundred agents in one process, and a command to all of those at one site, with a table that shows it happen.

python samples/fleet.py [URL]
"""

from __future__ import annotations

import contextlib
import random
import time

from _server import nats_url
from rich.console import Console
from rich.live import Live
from rich.table import Table

import lightlink
from lightlink import CommandContext

AGENTS = 100
SITES = ("berlin", "paris", "rome")


def make_agent(number: int, client: lightlink.Client) -> lightlink.Agent:
    """Return one of the agents; they share a connection, and each has a thread for its commands."""
    site = SITES[number % len(SITES)]
    agent = lightlink.Agent(f"sensor-{number:03}", client, workers=1, labels={"site": site})

    @agent.command("update", idempotent=True)
    def update(context: CommandContext, version: str) -> str:
        # Every tenth will not.
        if number % 10 == 9:
            raise lightlink.Rejected("there is no space left")
        for step in range(4):
            context.progress(step / 4)
            context.cancelled.wait(random.uniform(0.01, 0.05))
            context.check()
        return version

    return agent


def table(batch: lightlink.Batch) -> Table:
    """Return the batch as it stands."""
    shown = Table("status", "agents", title=f"update of {len(batch)} agents in berlin")
    for status, count in batch.counts().items():
        shown.add_row(status, "#" * count + f" {count}")
    return shown


def main(url: str) -> None:
    """Roll an update out."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(lightlink.connect(url, name="fleet"))
        manager = stack.enter_context(lightlink.CommandManager(client))
        for number in range(AGENTS):
            stack.enter_context(make_agent(number, client))
        print(len(manager.clients()), "agents are online,", len(manager.clients({"site": "berlin"})), "in berlin")

        # Eight at a time; if more than ten fail, the rest is left alone.
        batch = manager.send_many(
            None, "update", {"version": "2.1"}, labels={"site": "berlin"}, max_concurrency=8, max_failures=10
        )
        with Live(table(batch), console=Console(), refresh_per_second=10) as live:
            while not batch.wait(0.05):
                live.update(table(batch))
            live.update(table(batch))
        print()

        for command in batch:
            if command.status != "completed":
                print(command.client_id, command.status, command.error)
        counts = batch.counts()
        print("completed:", counts["completed"], "failed:", counts["failed"])


if __name__ == "__main__":
    started = time.monotonic()
    with nats_url() as url:
        main(url)
    print(f"took {time.monotonic() - started:.1f} s")
