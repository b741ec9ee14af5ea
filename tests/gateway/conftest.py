from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from helpers.edge import gateway_for, url_of
from helpers.pki import tls_of

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.edge import Link, Serve, StartGateway

    from lightlink.gateway import Gateway
    from lightlink.server import EmbeddedServer


@pytest.fixture
def start_gateway(secured: EmbeddedServer, identities: Path) -> Iterator[StartGateway]:
    """Start gateways in front of the server that knows the identities, or of the one at ``upstream``."""
    with contextlib.ExitStack() as stack:
        yield lambda upstream=None, **options: stack.enter_context(
            gateway_for(identities, upstream or secured.url, **options)
        )


@pytest.fixture(scope="session")
def gateway(secured: EmbeddedServer, identities: Path) -> Iterator[Gateway]:
    """A gateway that all tests of a worker share."""
    with gateway_for(identities, secured.url) as running:
        yield running


@pytest.fixture
def link(gateway: Gateway, identities: Path) -> Iterator[Link]:
    """Connect as an identity, through the shared gateway unless a URL is given."""
    with contextlib.ExitStack() as stack:

        def connect(name: str = "web", url: str | None = None, **options: Any) -> lightlink.Client:
            settings = {"name": name, "tls": tls_of(identities, name), **options}
            return stack.enter_context(lightlink.connect(url or url_of(gateway), **settings))

        yield connect


@pytest.fixture
def serve(secured: EmbeddedServer, identities: Path) -> Iterator[Serve]:
    """Serve ``double`` as the service ``user-service``, without a gateway unless a URL is given."""
    with contextlib.ExitStack() as stack:

        def start(url: str | None = None) -> lightlink.Service:
            service = lightlink.Service("user-service", url or secured.url, tls=tls_of(identities, "user-service"))

            @service.rpc
            def double(number: int) -> int:
                return 2 * number

            return stack.enter_context(service)

        yield start
