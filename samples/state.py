"""Keep values on the server: write, read, change them without losing a write, and follow what happens to them.

python samples/state.py [URL]
"""

from __future__ import annotations

import queue

import attrs
from _server import nats_url

import lightlink


@attrs.define
class Settings:
    """What a typed bucket holds here."""

    rate: float
    enabled: bool = True


def main(url: str) -> None:
    """Use state in each of the ways there are."""
    with lightlink.connect(url) as client:
        values(client)
        counter(client)
        typed(client)
        following(client)


def values(client: lightlink.Client) -> None:
    """Write, read and remove."""
    # The value stays on the server until it is overwritten or deleted; who asks later gets it too.
    client.set_state("device.sensor01", {"t": 21.5})
    print("sensor01:", client.get_state("device.sensor01"))
    print("sensor02:", client.get_state("device.sensor02", default="nothing yet"))
    client.delete_state("device.sensor01")
    try:
        client.get_state("device.sensor01")
    except lightlink.StateNotFound as error:
        print("after delete:", error)


def counter(client: lightlink.Client) -> None:
    """Change a value that others change too: write only if nobody was faster."""
    bucket = client.state()
    bucket.set("visits", 0)
    for _ in range(3):
        while True:
            entry = bucket.entry("visits")
            try:
                bucket.update("visits", entry.value + 1, revision=entry.revision)
                break
            except lightlink.RevisionConflict:
                continue  # somebody else counted meanwhile: read again
    print("visits:", bucket.get("visits"))


def typed(client: lightlink.Client) -> None:
    """Read values as a class, from a bucket that keeps the last five of each key."""
    settings = client.state("settings", value_type=Settings, history=5)
    settings.set("pump.left", Settings(rate=0.5))
    settings.set("pump.left", Settings(rate=0.75))
    settings.set("pump.right", Settings(rate=1.0, enabled=False))
    print("right:", settings.get("pump.right"))
    print("left was:", [change.value.rate for change in settings.history("pump.left") if change.value])
    print("keys:", settings.keys("pump.*"))


def following(client: lightlink.Client) -> None:
    """Have a function called with the values as they are, and then with every change."""
    seen: queue.Queue[lightlink.StateChange[Settings]] = queue.Queue()
    settings = client.state("settings", value_type=Settings, history=5)

    # The handler runs on a worker thread, one change at a time, and may take its time. An outage delays changes.
    with settings.watch("pump.*", seen.put) as watch:
        watch.wait_current(5.0)
        settings.set("pump.left", Settings(rate=2.0))
        settings.delete("pump.right")
        for _ in range(4):
            change = seen.get(timeout=5.0)
            print("watch:", change.operation, change.key, change.value)

    # The same in a loop; `current` ends where the changes begin.
    with settings.watch("pump.*") as watch:
        print("now:", {change.key: change.value for change in watch.current()})


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
