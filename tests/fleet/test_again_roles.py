"""On a fleet, with the tests of a certificate directory: what each role may do and may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tls.test_role_permissions
from helpers.again import take
from helpers.pki import is_refused

if TYPE_CHECKING:
    from helpers.pki import ConnectAs

# A fleet does not look at what else a client says of itself.
take(tls.test_role_permissions, globals(), "test_the_certificate_alone_decides_who_one_is")


@pytest.mark.parametrize("claim", [{"user": "ops", "password": "x"}, {"token": "ops"}])
def test_what_a_client_says_of_itself_changes_nothing(connect_as: ConnectAs, claim: dict[str, str]) -> None:
    peer = connect_as("web", **claim)
    assert is_refused(peer, "subscribe", ">")
    assert not is_refused(peer, "publish", "events.a")
