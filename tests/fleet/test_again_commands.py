"""On a fleet, with the tests of a certificate directory: commands between identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import commands.test_permissions
import pytest
from helpers.again import take

if TYPE_CHECKING:
    from lightlink.server import EmbeddedServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def commanded(secured: EmbeddedServer) -> EmbeddedServer:
    """What the fixture of this name is for a directory of certificates."""
    return secured


take(commands.test_permissions, globals())
