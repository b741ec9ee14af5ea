"""What is kept of the index of commands, so that a process that has just started need not read all of them.

One value in the bucket ``lightlink_fleet``: the commands that have not been completed, those of types that are rare,
and where each of the latest batches begins and ends, as of a sequence of both streams. JSON, compressed (zlib).
"""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands.store.access import FAILURES
from lightlink.errors import DecodeError, LightLinkError
from lightlink.jetstream import api
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from lightlink.commands.store.store import CommandStore

_log = logging.getLogger("lightlink")

# An excerpt that is larger is not kept: the bucket takes 256 KiB a value.
MOST_BYTES = 192 * 1024
_MOST_UNPACKED = 16 * 1024 * 1024


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A command; ``deadline`` in seconds since 1970, None for one that cannot be read."""

    seq: int
    client_id: str
    command_id: str
    command_type: str
    batch_id: str | None
    deadline: float | None
    status: str


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """The excerpt: ``requests`` and ``statuses`` are how far each stream had been read.

    ``common`` are the types of which not all commands are among ``rows``. ``batches`` have their first and last
    request; with ``has_all_batches`` there are no others.
    """

    made: list[str]  # when each of the two streams was made: in another, sequences mean something else
    requests: int
    statuses: int
    rows: list[Row]
    common: list[str] = []
    batches: dict[str, tuple[int, int]] = {}
    has_all_batches: bool = True


def load(store: CommandStore) -> Excerpt | None:
    """Return what is kept; None where that is nothing, or cannot be read."""
    try:
        message = api.get_last(store.connection, subjects.FLEET_STREAM, subjects.EXCERPT, store.timeout)
        return None if message is None else _read(message.data, message.subject)
    except DecodeError as exc:
        store.connection.report(exc)
    except (*FAILURES, LightLinkError) as exc:
        _log.debug("lightlink: the index of commands is read from the beginning: %s", exc)
    return None


def save(store: CommandStore, excerpt: Excerpt) -> None:
    """Keep an excerpt unless it is too large; whichever was kept last counts, as an older one is right too.

    Raises StoreUnavailable, PermissionDenied.
    """
    data = zlib.compress(codec.encode_json(excerpt, subjects.EXCERPT), 1)
    if len(data) <= MOST_BYTES:
        store.put(subjects.FLEET_STREAM, subjects.EXCERPT, data, {}, "keeping the index of commands")


def _read(data: bytes, subject: str) -> Excerpt:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, _MOST_UNPACKED)
    except zlib.error as exc:
        raise DecodeError(subject, f"is not compressed as it should be: {exc}", data[:64]) from exc
    if not inflater.eof:
        raise DecodeError(subject, "is cut short, or too large", data[:64])
    excerpt = codec.decode(text, subject, Excerpt)
    for row in excerpt.rows:
        # They become parts of subjects that are read.
        if not (subjects.is_plain_token(row.client_id) and subjects.is_plain_token(row.command_id)):
            raise DecodeError(subject, "an id in it is not one token of a subject", data[:64])
    return excerpt
