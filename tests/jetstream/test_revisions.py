"""What a client knows of keys, whichever replica answers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import lightlink
from lightlink.jetstream import revisions
from lightlink.jetstream.revisions import Revisions, revisions_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def test_what_is_older_than_what_is_known_is_old() -> None:
    known = Revisions()
    assert not known.is_old("a", 0)
    known.note("a", 5)
    known.note("a", 3)
    assert known.is_old("a", 4)
    assert known.is_old("a", 0)
    assert not known.is_old("a", 5)
    assert not known.is_old("b", 0)


def test_in_doubt_everything_is_old_until_the_leader_has_told() -> None:
    known = Revisions()
    known.doubt("a")
    known.note("a", 7)
    assert known.is_old("a", 7)
    known.learn("a", 0)
    assert not known.is_old("a", 0)


def test_the_keys_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "_KEPT", 2)
    known = Revisions()
    for key in ("a", "b", "a", "c"):
        known.note(key, 5)
    assert len(known) == 2
    assert not known.is_old("b", 1)
    assert known.is_old("a", 1)


def test_all_who_use_a_bucket_by_one_client_know_the_same(client: lightlink.Client, prefix: str) -> None:
    seq = client.state(prefix).set("a", 1)
    known = revisions_of(client._connection, f"KV_{prefix}")
    assert known.is_old("a", seq - 1)
    with client.state(prefix).watch("b") as watch:
        later = client.state(prefix).set("b", 1)
        watch.get(timeout=30)
        assert known.is_old("b", later - 1)


def test_a_value_is_read_though_less_is_stored_than_was_known(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix)
    bucket.set("a", 1)
    known = revisions_of(client._connection, f"KV_{prefix}")
    known.note("a", sys.maxsize - 1)  # as after the stream was made anew
    assert bucket.get("a") == 1
    assert not known.is_old("a", 1)


def test_after_a_conflict_the_leader_is_asked(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix)
    revision = bucket.set("a", 1)
    with pytest.raises(lightlink.RevisionConflict):
        bucket.update("a", 2, revision=revision + 1)
    known = revisions_of(client._connection, f"KV_{prefix}")
    assert known.is_old("a", revision)
    assert bucket.entry("a").revision == revision
    assert not known.is_old("a", revision)
