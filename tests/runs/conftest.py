from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.runs import RunWorld

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[RunWorld]:
    """Orchestrators and agents on a server of their own."""
    with RunWorld(fresh_server().url) as world:
        yield world
