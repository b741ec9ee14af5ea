"""State as plain nats-py and the nats command see it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.raw import some
from nats.js.api import KeyValueConfig
from nats.js.errors import KeyNotFoundError

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer


pytestmark = pytest.mark.interop


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def test_nats_py_reads_our_state(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    bucket = client.state(prefix, history=3)
    bucket.set("a.b", {"x": 1})
    revision = bucket.set("a.b", {"x": 2})
    bucket.set("gone", 1)
    bucket.delete("gone")

    async def read() -> None:
        kv = await peer.nc.jetstream().key_value(prefix)
        entry = await kv.get("a.b")
        assert (entry.value, entry.revision) == (b'{"x":2}', revision)
        with pytest.raises(KeyNotFoundError):
            await kv.get("gone")
        assert await some(kv.keys) == ["a.b"]
        assert [e.value for e in await some(kv.history, "a.b")] == [b'{"x":1}', b'{"x":2}']
        status = await kv.status()
        assert (status.bucket, status.history) == (prefix, 3)

    peer.run(read())


def test_we_read_nats_pys_state(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    async def write() -> int:
        kv = await peer.nc.jetstream().create_key_value(KeyValueConfig(bucket=prefix, history=3))
        await kv.put("a.b", b"1")
        await kv.put("gone", b"1")
        await kv.delete("gone")
        await kv.put("purged", b"1")
        await kv.purge("purged")
        return await kv.put("a.b", b"[2]")

    revision = peer.run(write())
    bucket = client.state(prefix)
    assert bucket.keys() == ["a.b"]
    assert (bucket.get("a.b"), bucket.entry("a.b").revision) == ([2], revision)
    assert [change.value for change in bucket.history("a.b")] == [1, [2]]
    assert [change.operation for change in bucket.history("gone")] == ["put", "delete"]
    assert [change.operation for change in bucket.history("purged")] == ["purge"]
    with bucket.watch() as watch:
        assert [(change.key, change.value) for change in watch.current()] == [("a.b", [2])]


def nats_command() -> str:
    found = shutil.which("nats") or shutil.which("nats", path=str(Path.home() / "go" / "bin"))
    if found is None:
        pytest.skip("the nats command is not installed")
    return found


def test_the_nats_command_reads_and_writes_our_state(client: lightlink.Client, prefix: str, url: str) -> None:
    command = [nats_command(), f"--server={url}", "kv"]

    def nats(*args: str) -> str:
        done = subprocess.run([*command, *args], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    bucket = client.state(prefix, history=2)
    bucket.set("a.b", {"x": 1})
    assert nats("get", prefix, "a.b", "--raw") == '{"x":1}'
    assert nats("ls", prefix) == "a.b"
    nats("put", prefix, "a.b", "[2]")
    assert bucket.get("a.b") == [2]
    with bucket.watch("a.*") as watch:
        assert watch.get(30).value == [2]
        nats("del", prefix, "a.b", "--force")
        assert watch.get(30).operation == "delete"
    assert bucket.get("a.b", default=None) is None
    bucket.purge("a.b")
    bucket.create("a.b", 3)
    assert nats("get", prefix, "a.b", "--raw") == "3"
