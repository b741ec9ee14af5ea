"""The values of many keys at one time, to be written back later."""

from __future__ import annotations

from datetime import datetime

import attrs
import msgspec

from lightlink.protocol import codec


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the keys of a bucket that match a pattern, as `StateBucket.snapshot` found them.

    ``values`` holds (revision, stored bytes) by key. Each key is as it was at an instant while the snapshot was taken.
    """

    bucket: str
    pattern: str
    taken_at: datetime
    values: dict[str, tuple[int, bytes]]

    def dump(self) -> bytes:
        """Return the snapshot as JSON, to be kept wherever you like."""
        return codec.encode_json(self, "the snapshot")

    @classmethod
    def load(cls, data: bytes) -> Snapshot:
        """Return the snapshot in what `dump` returned; raises DecodeError."""
        return codec.decode(data, "the snapshot", cls)


@attrs.frozen(kw_only=True)
class Restored:
    """What became of the keys: ``written`` back, ``removed`` as they had no value, ``kept`` as others changed them."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
