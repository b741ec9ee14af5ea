from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.edge import gateway_for, url_of
from helpers.pki import tls_of

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lightlink.gateway import Gateway
    from lightlink.server import EmbeddedServer


@pytest.fixture(scope="session")
def gateway(secured: EmbeddedServer, identities: Path) -> Iterator[Gateway]:
    with gateway_for(identities, secured.url) as running:
        yield running


def connect(url: str | list[str], identities: Path, name: str, **options: Any) -> lightlink.Client:
    return lightlink.connect(url, **{"name": name, "tls": tls_of(identities, name), **options})


def test_a_call_goes_through_a_gateway_with_mutual_tls_inside(gateway: Gateway, identities: Path) -> None:
    url = url_of(gateway)
    service = lightlink.Service("user-service", url, tls=tls_of(identities, "user-service"))

    @service.rpc
    def double(number: int) -> int:
        return 2 * number

    with service, connect(url, identities, "web") as client:
        assert client.call("user-service", "double", {"number": 21}) == 42
        assert gateway.counts.streams == 2
    assert gateway.counts.bytes_in > 0
