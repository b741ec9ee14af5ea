"""What a file store holds, as its client and as a plain NATS client sees it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightlink
    from helpers.raw import RawPeer

CHUNK = 128 * 1024


def fetched(store: lightlink.FileStore | lightlink.Client, file_id: str) -> bytes:
    """Return a file's content."""
    target = io.BytesIO()
    store.download(file_id, target)
    return target.getvalue()


def messages_in(peer: RawPeer, bucket: str) -> int:
    """Return how many messages a bucket's stream holds."""
    return peer.run(lambda nc: nc.jetstream().stream_info(f"OBJ_{bucket}")).state.messages


def chunks_in(peer: RawPeer, bucket: str) -> dict[str, int]:
    """Return how many messages each chunk subject holds."""

    async def count(nc: Any) -> dict[str, int]:
        info = await nc.jetstream().stream_info(f"OBJ_{bucket}", subjects_filter=f"$O.{bucket}.C.>")
        return info.state.subjects or {}

    return peer.run(count)
