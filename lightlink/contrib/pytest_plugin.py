"""Fixtures for tests of programs that use LightLink (extra ``test``); pytest finds them by itself.

A real nats-server runs for each session, with pytest-xdist for each worker. Each test has an account of its own on it:
nothing that another test publishes, serves or stores is seen there, and what it stored is removed after it.

``@pytest.mark.lightlink(jetstream=False)`` gives a test a server without JetStream, ``@pytest.mark.lightlink(events=
["orders.>"])`` has ``lightlink_events`` listen to these subjects from the test's begin.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.client import Client
    from lightlink.commands import Agent
    from lightlink.contrib.recorder import EventRecorder
    from lightlink.server import EmbeddedServer
    from lightlink.service.service import Service

# So many tests after each other have accounts of their own; the next gets the first one's, which is empty again.
_ACCOUNTS = 16
_PASSWORD = "test"


class StartService(Protocol):
    """Starts a service on the test's server, and drains it after the test."""

    def __call__(self, service: Service) -> Service: ...


class StartAgent(Protocol):
    """Starts an agent on the test's server, and drains it after the test."""

    def __call__(self, agent: Agent) -> Agent: ...


def pytest_configure(config: pytest.Config) -> None:
    settings = "which nats-server a test's fixtures talk to, and which subjects lightlink_events listens to"
    config.addinivalue_line("markers", f"lightlink(jetstream=True, events=[]): {settings}")


@pytest.fixture(scope="session")
def lightlink_server() -> Iterator[EmbeddedServer]:
    """Run a nats-server with JetStream for the session; tests that use it by itself share one account."""
    with _server(jetstream=True) as server:
        yield server


@pytest.fixture(scope="session")
def _lightlink_plain_server() -> Iterator[EmbeddedServer]:
    with _server(jetstream=False) as server:
        yield server


@pytest.fixture(scope="session")
def _lightlink_accounts() -> Iterator[int]:
    return itertools.cycle(range(_ACCOUNTS))


@pytest.fixture
def lightlink_url(request: pytest.FixtureRequest, _lightlink_accounts: Iterator[int]) -> Iterator[str]:
    """Return where the test's server is, with the credentials of an account of the test's own."""
    jetstream = bool(_setting(request, "jetstream", True))
    server: EmbeddedServer = request.getfixturevalue("lightlink_server" if jetstream else "_lightlink_plain_server")
    url = server.url.replace("://", f"://test{next(_lightlink_accounts)}:{_PASSWORD}@")
    yield url
    if jetstream:
        _empty(url)


@pytest.fixture
def lightlink_client(lightlink_url: str, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Connect in the test's account."""
    from lightlink.client import connect  # noqa: PLC0415 - pytest loads this in every project that has it installed

    with connect(lightlink_url, name=request.node.name[:64]) as client:
        yield client


@pytest.fixture
def lightlink_service(lightlink_url: str) -> Iterator[StartService]:
    """Start services in the test's account: ``lightlink_service(service)``; they are drained after the test."""
    with contextlib.ExitStack() as stack:

        def start(service: Service) -> Service:
            _refuse_other("lightlink_service", service, "Service")
            service.use(lightlink_url)
            stack.callback(service.stop)
            return service.start()

        yield start


@pytest.fixture
def lightlink_agent(lightlink_url: str) -> Iterator[StartAgent]:
    """Start agents in the test's account: ``lightlink_agent(agent)``; they are drained after the test."""
    with contextlib.ExitStack() as stack:

        def start(agent: Agent) -> Agent:
            _refuse_other("lightlink_agent", agent, "Agent")
            agent.use(lightlink_url)
            stack.callback(agent.stop)
            return agent.start()

        yield start


@pytest.fixture
def lightlink_events(request: pytest.FixtureRequest, lightlink_url: str) -> Iterator[EventRecorder]:
    """Note events in the test's account: ``lightlink_events.listen("orders.>")``, then ``wait_for("orders.new")``."""
    from lightlink.client import connect  # noqa: PLC0415
    from lightlink.contrib.recorder import EventRecorder  # noqa: PLC0415

    with connect(lightlink_url, name="lightlink_events") as client:
        listen_to = _setting(request, "events", ())
        yield EventRecorder(client, (listen_to,) if isinstance(listen_to, str) else listen_to)


def _refuse_other(fixture: str, given: Any, wanted: str) -> None:
    if not hasattr(given, "use"):
        pytest.fail(f"{fixture} takes a lightlink.{wanted}, got {given!r}")


def _setting(request: pytest.FixtureRequest, name: str, default: Any) -> Any:
    for marker in request.node.iter_markers("lightlink"):
        unknown = ", ".join([*map(repr, marker.args), *sorted(marker.kwargs.keys() - {"jetstream", "events"})])
        if unknown:
            pytest.fail(f"@pytest.mark.lightlink takes jetstream= and events=, not {unknown}", pytrace=False)
        if name in marker.kwargs:
            return marker.kwargs[name]
    return default


def _server(*, jetstream: bool) -> EmbeddedServer:
    from lightlink.server import EmbeddedServer  # noqa: PLC0415

    store = "jetstream: enabled, " if jetstream else ""
    names = ["shared", *(f"test{number}" for number in range(_ACCOUNTS))]
    accounts = "\n".join(
        f'  {name} {{ {store}users: [{{ user: "{name}", password: "{_PASSWORD}" }}] }}' for name in names
    )
    return EmbeddedServer(jetstream=jetstream, config=f"accounts {{\n{accounts}\n}}\nno_auth_user: shared\n")


def _empty(url: str) -> None:
    """Remove the streams of an account."""
    from lightlink.client import connect  # noqa: PLC0415
    from lightlink.jetstream import api  # noqa: PLC0415

    with connect(url, name="lightlink_cleanup") as client:
        connection, limit = client.connection, client.options.timeout
        while names := api.stream_names(connection, "", limit):
            for name in names:
                api.delete_stream(connection, name, limit)
