"""Reading what a stream has now, while it is taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink.jetstream import api, read
from lightlink.jetstream.ordered import OrderedReader

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("policy", [read.EVERYTHING, read.LAST_OF_EACH])
@pytest.mark.parametrize("left", [0, 1])
def test_what_is_removed_while_read_is_not_waited_for(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, policy: str, left: int
) -> None:
    """As when time is up for what there was, between the making of the consumer and the first request to it."""
    make: Callable[..., Any] = OrderedReader._make_first_consumer

    def make_late(reader: OrderedReader, timeout: float) -> None:
        make(reader, timeout)
        for number in range(2):
            api.purge(connection, prefix, f"{prefix}.gone.{number}", 5)

    with lightlink.connect(url) as client:
        connection = client.connection
        api.create_stream(connection, {"name": prefix, "subjects": [f"{prefix}.>"]}, 5)
        for name in ["kept.0"] * left + ["gone.0", "gone.1"]:
            client.publish(f"{prefix}.{name}", 1)
        client.flush()
        monkeypatch.setattr(OrderedReader, "_make_first_consumer", make_late)
        found = read.read_current(connection, prefix, f"{prefix}.*.*", 20, policy=policy)
        assert [each.subject.decode() for each in found] == [f"{prefix}.kept.0"] * left
