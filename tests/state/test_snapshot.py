"""Values are kept, and written back, but not over what others have changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink.errors import DecodeError, InvalidOption, RevisionConflict
from lightlink.state import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer

    from lightlink.state import StateBucket


@pytest.fixture
def bucket(url: str, prefix: str) -> Iterator[StateBucket[Any]]:
    with lightlink.connect(url) as client:
        made = client.state(prefix)
        for name in ("a", "b", "c"):
            made.set(f"device.{name}", {"mode": "day"})
        made.set("other", 1)
        yield made


def test_what_changed_is_written_back_and_what_is_new_removed(bucket: StateBucket[Any]) -> None:
    before = bucket.snapshot("device.*")
    assert set(before.values) == {"device.a", "device.b", "device.c"}
    bucket.set("device.a", {"mode": "night"})
    bucket.delete("device.b")
    bucket.set("device.d", 1)
    bucket.set("other", 2)
    restored = bucket.restore(Snapshot.load(before.dump()))
    assert (restored.written, restored.removed, restored.kept) == (("device.a", "device.b"), ("device.d",), ())
    assert {key: bucket.get(key) for key in bucket.keys("device.*")} == {
        f"device.{name}": {"mode": "day"} for name in ("a", "b", "c")
    }
    assert bucket.get("other") == 2
    assert bucket.restore(before).written == ()


def test_another_clients_key_is_written_back_too(bucket: StateBucket[Any], peer: RawPeer) -> None:
    async def write() -> None:
        await peer.nc.jetstream().publish(f"$KV.{bucket.name}.device.user:1", b"1")

    peer.run(write())
    before = bucket.snapshot("device.*")
    bucket.delete("device.user:1")
    bucket.purge("device.user:1")
    assert bucket.restore(before).written == ("device.user:1",)
    assert bucket.get("device.user:1") == 1


def test_what_others_changed_is_refused_kept_or_overwritten(bucket: StateBucket[Any]) -> None:
    before = bucket.snapshot("device.*")
    bucket.set("device.a", {"mode": "night"})
    after = bucket.snapshot("device.*")
    bucket.set("device.b", {"mode": "theirs"})
    bucket.set("device.d", "theirs")
    with pytest.raises(RevisionConflict, match=r"device\.b"):
        bucket.restore(before, after=after)
    assert bucket.get("device.a") == {"mode": "night"}
    restored = bucket.restore(before, after=after, changed="keep")
    assert (restored.written, restored.kept) == (("device.a",), ("device.b", "device.d"))
    bucket.restore(before, after=after, changed="overwrite")
    assert bucket.get("device.b") == {"mode": "day"}
    assert bucket.get("device.d", None) is None


def test_what_is_no_snapshot_of_this_bucket_is_refused(bucket: StateBucket[Any], url: str) -> None:
    with lightlink.connect(url) as client, pytest.raises(InvalidOption, match="is of bucket"):
        client.state().restore(bucket.snapshot())
    with pytest.raises(DecodeError):
        Snapshot.load(b"{}")
