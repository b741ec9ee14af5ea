"""A fleet for each test, and one that the attacks of the certificate directory are tried on again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from helpers.fleet import FleetWorld
from helpers.pki import issue_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lightlink.server import EmbeddedServer


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetWorld]:
    """A fleet of the test's own, with one responder."""
    with contextlib.ExitStack() as stack:
        world = FleetWorld(tmp_path, stack)
        world.responder()
        yield world


@pytest.fixture(scope="module")
def everyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetWorld]:
    """A fleet with identities of every role (`helpers.pki.issue_all`), for tests that leave it as it was."""
    with contextlib.ExitStack() as stack:
        world = FleetWorld(tmp_path_factory.mktemp("everyone"), stack, issue_all)
        world.responder()
        yield world


@pytest.fixture(scope="module")
def identities(everyone: FleetWorld) -> Path:
    """What the fixture of this name is for a directory of certificates."""
    return everyone.directory


@pytest.fixture(scope="module")
def secured(everyone: FleetWorld) -> EmbeddedServer:
    """What the fixture of this name is for a directory of certificates."""
    return everyone.server
