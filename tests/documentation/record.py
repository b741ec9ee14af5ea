"""What a release has left on a server: recorded by that release, and put back for those that follow it.

``PYTHONPATH=tests python -m documentation.record`` writes ``tests/documentation/left_by_VERSION.json``; it is run once,
with the release that it is named after, and not changed any more.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.raw import RawPeer

import lightlink

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent
# Agents write these anew, as docs/operations.md says.
_PASSING = {"KV_lightlink_agents", "LIGHTLINK_PROGRESS", "LIGHTLINK_COMMANDS_AUDIT"}
# What only held for the moment in which it was written.
_OF_THE_MOMENT = ("nats-expected", "nats-ttl", "nats-msg-id")


def leave(client: lightlink.Client) -> dict[str, str]:
    """Leave state, a file and commands behind; returns the ids by which they are found again."""
    client.set_state("device.sensor01", {"t": 21.5, "unit": "C"})
    client.set_state("plain", ["ü", 1, None])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.csv")
        data.write_text("apple,3\n")
        ids = {"file": client.upload(data).id}
    agent = lightlink.Agent("pump", client)
    agent.register("restart", lambda delay: {"waited": delay})
    agent.register("break", lambda: 1 / 0)
    with lightlink.CommandManager(client) as manager:
        with agent:
            done = manager.send("pump", "restart", {"delay": 5})
            done.result(30)
            broken = manager.send("pump", "break")
            with contextlib.suppress(lightlink.CommandFailed):
                broken.result(30)
        cancelled = manager.send("pump", "restart", {"delay": 6})
        manager.cancel(cancelled.command_id, "not today")
        waits = manager.send("pump", "restart", {"delay": 7}, priority=3, timeout=500_000)
    promises = {"done": done, "broken": broken, "cancelled": cancelled, "waits": waits}
    return ids | {name: promise.command_id for name, promise in promises.items()}


def record(peer: RawPeer) -> list[dict[str, Any]]:
    """Return each stream that must survive: its configuration, and its messages in their order."""
    found = []
    for name in ask(peer, "STREAM.NAMES")["streams"]:
        if name not in _PASSING:
            info = ask(peer, f"STREAM.INFO.{name}")
            last = info["state"]["last_seq"]
            stored = [ask(peer, f"STREAM.MSG.GET.{name}", {"seq": n}) for n in range(1, last + 1)]
            messages = [_message(each["message"]) for each in stored if "message" in each]
            found.append({"config": info["config"], "messages": messages})
    return found


def put_back(peer: RawPeer, streams: list[dict[str, Any]], change: Callable[[bytes], bytes]) -> None:
    """Make the streams as they were, with each payload ``change``\\ d."""
    for stream in streams:
        answer = ask(peer, f"STREAM.CREATE.{stream['config']['name']}", stream["config"])
        assert "error" not in answer, answer
        for message in stream["messages"]:
            payload = change(base64.b64decode(message["payload"]))
            answer = _request(peer, message["subject"], payload, message["headers"])
            assert "error" not in answer, (message, answer)


def ask(peer: RawPeer, what: str, body: Any = None) -> Any:
    """Ask JetStream, past all of LightLink."""
    return _request(peer, f"$JS.API.{what}", b"" if body is None else json.dumps(body).encode(), None)


def _request(peer: RawPeer, subject: str, payload: bytes, headers: dict[str, str] | None) -> Any:
    reply = peer.run(lambda nc: nc.request(subject, payload, timeout=30, headers=headers or None))
    return json.loads(reply.data)


def _message(stored: dict[str, Any]) -> dict[str, Any]:
    lines = base64.b64decode(stored.get("hdrs", "")).decode().splitlines()[1:]
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    kept = {name: value for name, value in headers.items() if not name.lower().startswith(_OF_THE_MOMENT)}
    return {"subject": stored["subject"], "headers": kept, "payload": stored.get("data", "")}


def main() -> None:
    """Record what this version leaves."""
    with lightlink.EmbeddedServer() as server, lightlink.connect(server.url, name="web") as client:
        ids = leave(client)
        with RawPeer(server.url) as peer:
            left = {"ids": ids, "streams": record(peer)}
    (FOLDER / f"left_by_{lightlink.__version__}.json").write_text(json.dumps(left, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
