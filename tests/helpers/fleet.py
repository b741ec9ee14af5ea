"""A fleet of a test's own: its directory, a server in operator mode, responders, and who connects."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import lightlink
from helpers.commands import FAST
from helpers.pki import tls_of
from helpers.waiting import eventually
from lightlink.certs import CertificateAuthority
from lightlink.commands import Agent, CommandManager
from lightlink.fleet import Fleet, FleetDirectory, Responder, fleet_config
from lightlink.fleet.admin import ask
from lightlink.fleet.directory import ResponderFiles
from lightlink.fleet.enrolment import Token
from lightlink.fleet.records import Tokens
from lightlink.fleet.resolver import Resolver
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class FleetWorld:
    """A fleet on a server of its own. ``directory`` holds its identities: the admin ops and a manager."""

    def __init__(
        self, folder: Path, stack: contextlib.ExitStack, issue: Callable[[CertificateAuthority], None] | None = None
    ) -> None:
        self.directory = folder / "fleet"
        self._stack = stack
        self.create(self.directory)
        self._responders: list[Responder] = []
        self.authority = CertificateAuthority.load(self.directory)
        (issue or _issue_few)(self.authority)
        self.server = self.start_server(folder)

    @property
    def url(self) -> str:
        return self.server.url.replace("nats://", "tls://")

    def start_server(self, folder: Path) -> EmbeddedServer:
        """Start the server of this fleet."""
        config = fleet_config(self.directory, port=-1, store_dir=None, accounts_dir=folder / "accounts")
        running = self._stack.enter_context(EmbeddedServer(config=config))
        self._stack.callback(running.kill)  # an orderly end may take it seconds
        return running

    @staticmethod
    def create(directory: Path) -> FleetDirectory:
        """Make the keys and the authority of a fleet."""
        return FleetDirectory.create(directory, ["127.0.0.1"])

    def responder(self, **options: Any) -> Responder:
        """Start a responder; it ends with the test."""
        responder = self._stack.enter_context(Responder(self.directory, self.url, **options))
        self._responders.append(responder)
        return responder

    def stop_responders(self, count: int | None = None) -> None:
        """Stop the responders, or the first ``count`` of them."""
        for responder in self._responders[:count]:
            responder.stop()
        del self._responders[:count]

    def agent(self, name: str, **options: Any) -> Agent:
        """Start an agent that doubles, with the certificate of its name in the directory."""
        _ = self.manager  # it makes the streams, which an agent may not
        settings: dict[str, Any] = {"tls": tls_of(self.directory, name), "refusal_timeout": 0.1} | options
        agent = Agent(name, self.url, store=FAST, **settings)
        agent.register("double", lambda x: 2 * x)
        self._stack.callback(agent.stop)
        return agent.start(timeout=30)

    def token_has_expired(self, token: str) -> bool:
        """Tell whether a token's time is over, by the clock of its responder."""
        with self._tokens() as tokens:
            stored = tokens.get(token)
        return stored is not None and time.time() > stored[0].expires

    def expire(self, token: str) -> None:
        """Have the time of a token end now, as its responder sees it."""
        with self._tokens() as tokens:
            stored, revision = tokens.get(token) or pytest.fail(f"there is no token {token}")
            tokens.update(msgspec.structs.replace(stored, expires=time.time() - 1.0), revision)

    @contextlib.contextmanager
    def _tokens(self) -> Iterator[Tokens]:
        files = ResponderFiles.load(self.directory)
        with lightlink.connect(self.url, tls=files.tls, creds=files.path / "auth.creds") as client:
            yield Tokens(client)

    def cut(self, name: str) -> None:
        """Have the server end the connections of an agent, as an operator would."""
        files = ResponderFiles.load(self.directory)
        with lightlink.connect(self.url, tls=files.tls, creds=files.path / "system.creds") as system:
            secrets = files.secrets()
            assert Resolver(system, secrets).kick(secrets.agent_account(name).public, [name]) == 1

    def link(self, name: str, **options: Any) -> lightlink.Client:
        """Connect as an identity of the directory."""
        settings: dict[str, Any] = {"name": name, "tls": tls_of(self.directory, name), "refusal_timeout": 0.1} | options
        return self._stack.enter_context(lightlink.connect(self.url, **settings))

    def admin(self) -> Fleet:
        """Return the fleet as its admin sees it."""
        return Fleet(self.link("ops"))

    @functools.cached_property
    def manager(self) -> CommandManager:
        """A manager of commands, which has made their streams."""
        return self._stack.enter_context(CommandManager(self.link("manager"), store=FAST))


class Sender:
    """Sends commands all the time; on the way out it checks that none failed."""

    def __init__(self, manager: CommandManager, *names: str) -> None:
        self._manager = manager
        self._names = names
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.failure: Exception | None = None

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                for name in self._names:
                    assert self._manager.send(name, "double", {"x": self.done}).result(30) == 2 * self.done
                    self.done += 1
        except Exception as exc:
            self.failure = exc

    def goes_on(self) -> None:
        """Wait until some more have come back."""
        before = self.done
        eventually(lambda: self.failure or self.done > before + 5)
        assert self.failure is None

    def __enter__(self) -> Sender:
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.failure is None


@contextlib.contextmanager
def at_the_door(token: str, folder: Path) -> Iterator[lightlink.Client]:
    """Connect with a token's own certificate, as somebody who tries things does."""
    read = Token.read(token)
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(read.authorities)
    (folder / "token.pem").write_bytes(read.key + read.chain)
    (folder / "token.pem").chmod(0o600)
    tls = lightlink.TLS(folder / "ca.pem", folder / "token.pem", folder / "token.pem")
    with lightlink.connect(read.urls, tls=tls) as client:
        yield client


def knock(token: str, folder: Path, csr: object, name: str | None = None) -> Any:
    """Ask for a certificate with a token, for its own name or another."""
    read = Token.read(token)
    with at_the_door(token, folder) as client:
        subject = f"ll.fleet.enroll.{name or read.name}.{read.id}"
        return ask(client.connection, subject, {"csr": csr}, "enrolment")


def why(admin: Fleet) -> list[str]:
    """Return the codes of what was refused."""
    return [entry.facts["code"] for entry in admin.audit() if entry.what == "refused"]


def _issue_few(authority: CertificateAuthority) -> None:
    authority.issue("ops", "admin")
    authority.issue("manager", "manager")
