"""Fixtures for the scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.ledger import Ledger
from lightlink.server import EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """The books of the test, which are printed at the end of the run."""
    books = Ledger()
    yield books
    request.node.user_properties.append(("ledger", str(books)))


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    """Three servers of the test's own."""
    with EmbeddedCluster() as running:
        yield running
