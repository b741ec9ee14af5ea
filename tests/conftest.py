"""Fixtures for all tests: real nats-servers, a proxy, a raw peer, other processes."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import ssl
import sys
import uuid
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest
from helpers.commands import World
from helpers.edge import EdgeServer, proxy_before
from helpers.pki import connect_to, issue_all, tls_of
from helpers.process import PythonProcess
from helpers.raw import RawPeer

import lightlink
from lightlink.certs import CertificateAuthority
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.pki import ConnectAs, LinkAs, SetClock
    from helpers.proxy import TcpProxy

    from lightlink.commands import CommandManager


# Hundreds of processes import what is tested: without bytecode kept, compiling it is most of what the suite does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No bound in time on an example, or on making them: a machine may be busy.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        choices=("tcp", "quic"),
        default="tcp",
        help="how the clients of tests/chaos reach their servers: quic puts a gateway, and TLS inside, before each",
    )


def pytest_configure() -> None:
    # In the background of a script it would have SIGINT ignored, and the programs that are tested inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # What was collected is half a million objects; that the garbage collector looks at them again and again takes a
    # twentieth of the processor time of all tests.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    other_way = item.get_closest_marker("tcp")
    if other_way is not None and item.config.getoption("--transport") != "tcp":
        pytest.skip(other_way.args[0])


class StartServer(Protocol):
    def __call__(self, **options: Any) -> EmbeddedServer: ...


class StartProxy(Protocol):
    def __call__(self, target: str | None = None) -> TcpProxy: ...


class StartPython(Protocol):
    def __call__(self, code: str, *args: object, **options: Any) -> PythonProcess: ...


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """How clients reach servers, ``tcp`` or ``quic``."""
    chosen: str = request.config.getoption("--transport")
    with pytest.MonkeyPatch.context() as patched:
        if chosen == "quic":
            patched.setenv("LIGHTLINK_TLS_CA", str(request.getfixturevalue("identities") / "ca.pem"))
        yield chosen


@pytest.fixture(scope="session")
def server(transport: str, request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server for all tests of a worker. Use ``prefix`` for names; use ``fresh_server`` to stop or kill one."""
    with EdgeServer(request.getfixturevalue("identities")) if transport == "quic" else EmbeddedServer() as running:
        yield running


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    """The address of the shared server."""
    return server.url


@pytest.fixture
def fresh_server(transport: str, request: pytest.FixtureRequest) -> Iterator[StartServer]:
    """Start servers of the test's own: ``fresh_server(config=...)``."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> EmbeddedServer:
            if transport == "quic" and not options:
                return stack.enter_context(EdgeServer(request.getfixturevalue("identities")))
            running = stack.enter_context(EmbeddedServer(**options))
            stack.callback(running.kill)  # an orderly end may take it seconds, and nobody needs its data any more
            return running

        yield start


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A name no other test has; a valid subject token, service, bucket, stream and client name."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", request.node.name).strip("_")
    return f"{words[:40]}_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[StartProxy]:
    """Start proxies: ``proxy()`` before the shared server, ``proxy(url)`` before another."""
    with contextlib.ExitStack() as stack:

        def start(target: str | None = None) -> TcpProxy:
            return stack.enter_context(proxy_before(target or request.getfixturevalue("url")))

        yield start


@pytest.fixture
def peer(server: EmbeddedServer, transport: str, request: pytest.FixtureRequest) -> Iterator[RawPeer]:
    """A plain nats-py client of the shared server."""
    url, options = server.url, {}
    if transport == "quic":
        url = f"tls://127.0.0.1:{server.port}"
        options = {"tls": ssl.create_default_context(cafile=request.getfixturevalue("identities") / "ca.pem")}
    with RawPeer(url, **options) as connected:
        yield connected


@pytest.fixture
def world(url: str) -> Iterator[World]:
    """Managers and agents on the server that tests share."""
    with World(url) as world:
        yield world


@pytest.fixture
def manager(world: World) -> CommandManager:
    """A manager that ends no command by itself."""
    return world.manager(sweep_interval=None)


@pytest.fixture
def python() -> Iterator[StartPython]:
    """Start snippets in processes of their own, killed with the test: ``python(code, *args)``."""
    with contextlib.ExitStack() as stack:

        def start(code: str, *args: object, **options: Any) -> PythonProcess:
            return stack.enter_context(PythonProcess(code, *args, **options))

        yield start


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate directory with a server and identities of every role; see `helpers.pki.issue_all`."""
    authority = CertificateAuthority.create(tmp_path_factory.mktemp("identities") / "certs")
    issue_all(authority)
    return authority.directory


@pytest.fixture(scope="session")
def secured(identities: Path) -> Iterator[EmbeddedServer]:
    """A server with mutual TLS for those identities. It keeps its streams between tests."""
    with EmbeddedServer(tls=identities) as running:
        yield running


@pytest.fixture
def connect_as(secured: EmbeddedServer, identities: Path) -> Iterator[ConnectAs]:
    """Connect plain nats-py clients as one of the identities: ``connect_as("web")``."""
    with contextlib.ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(connect_to(secured, identities, name, **options))


@pytest.fixture
def link_as(secured: EmbeddedServer, identities: Path) -> Iterator[LinkAs]:
    """Connect LightLink clients as one of the identities: ``link_as("web")``."""
    with contextlib.ExitStack() as stack:

        def connect(name: str, **options: Any) -> lightlink.Client:
            settings: dict[str, Any] = {"name": name, "tls": tls_of(identities, name)} | options
            return stack.enter_context(lightlink.connect(secured.url, **settings))

        yield connect


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """A certificate authority of the test's own that has issued nothing."""
    return CertificateAuthority.create(tmp_path / "certs")


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Set the time at which certificates are made and looked at."""

    def set_time(now: datetime.datetime) -> None:
        for module in ("certificate", "signing"):
            monkeypatch.setattr(f"lightlink.certs.{module}.utc_now", lambda: now)

    return set_time


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the books that scenarios (tests/chaos) have kept."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    kept = [r for r in reports if isinstance(r, pytest.TestReport) and r.when == "teardown" and r.user_properties]
    if kept:
        terminalreporter.section("ledgers")
    for report in kept:
        terminalreporter.write_line(report.nodeid)
        for _, text in report.user_properties:
            terminalreporter.write_line("    " + str(text).replace("\n", "\n    "))
