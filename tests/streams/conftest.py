from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

import lightlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartServer

Connect = "Callable[..., lightlink.Client]"


@pytest.fixture
def connect(fresh_server: StartServer) -> Iterator[Callable[..., lightlink.Client]]:
    """Connect to a server of this test's own."""
    url = fresh_server().url
    with contextlib.ExitStack() as stack:

        def make(**options: object) -> lightlink.Client:
            return stack.enter_context(lightlink.connect(url, **{"timeout": 5.0, **options}))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def client(connect: Callable[..., lightlink.Client]) -> lightlink.Client:
    """A client, with the stream ORDERS on ``orders.>``."""
    made = connect()
    made.stream("ORDERS", ["orders.>"])
    return made
