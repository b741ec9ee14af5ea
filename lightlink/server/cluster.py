"""Several nats-servers of one's own that are one cluster, with JetStream replicated among them."""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import InvalidOption, NotReady, ServerError
from lightlink.server.embedded import EmbeddedServer, store_in
from lightlink.validators import field, seconds

if TYPE_CHECKING:
    from typing_extensions import Self

_HOST = "127.0.0.1"
_POLL_INTERVAL = 0.05
# Another program may take a port between our finding it free and the server's listening on it.
_ATTEMPTS = 3


def _check_size(_cluster: object, _attribute: attrs.Attribute[int], value: int) -> None:
    if value < 2:
        raise InvalidOption("size", "a cluster has at least two servers", value)


def _check_config(_cluster: object, _attribute: attrs.Attribute[str], value: str) -> None:
    store = store_in(value)
    if store is not None:
        reason = "names a folder of JetStream, in which each server would overwrite what the others have written"
        raise InvalidOption("config", reason, str(store))


@attrs.define(eq=False, repr=False, kw_only=True)
class EmbeddedCluster:
    """Run ``size`` nats-servers on this machine as one cluster; they end with this Python process, however that ends.

    ``with EmbeddedCluster() as cluster: lightlink.connect(cluster.urls)``. Each of ``nodes`` is an `EmbeddedServer`
    that keeps its ports and data, so one that was killed finds the others again after ``start()``; `wait_ready` tells
    when it is one of them again. ``port`` is that of the first, the others have those that follow (0: any free ones).
    ``config`` is nats-server configuration that all have in common, without a folder for JetStream: each has its own.
    ``ready_timeout`` is in seconds and for all of them.
    """

    size: int = attrs.field(default=3, validator=_check_size)
    port: int = 0
    config: str = attrs.field(default="", validator=_check_config)
    ready_timeout: float = attrs.field(default=30.0, validator=field(seconds))
    _nodes: tuple[EmbeddedServer, ...] = attrs.field(default=(), init=False)
    _monitors: dict[EmbeddedServer, int] = attrs.field(factory=dict, init=False)

    @property
    def nodes(self) -> tuple[EmbeddedServer, ...]:
        """The servers; NotReady before the start and after the end."""
        if not self._nodes:
            raise NotReady("the embedded cluster", "does not run")
        return self._nodes

    @property
    def urls(self) -> list[str]:
        """Where clients connect; NotReady like ``nodes``."""
        return [node.url for node in self.nodes]

    def start(self) -> Self:
        """Start the servers and wait until they are a cluster. Does nothing if they run.

        Raises ServerError if they are not ready within ``ready_timeout`` seconds.
        """
        if self._nodes:
            return self
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._launch()
                break
            except ServerError as exc:
                if attempt == _ATTEMPTS or "address already in use" not in str(exc):
                    raise
        try:
            self.wait_ready(self.ready_timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the servers and remove their temporary files. Idempotent."""
        nodes, self._nodes = self._nodes, ()
        self._monitors.clear()
        for node in nodes:
            node.kill()  # one after the other, they would first hand over their parts to each other
        for node in nodes:
            node.stop()

    def wait_ready(self, timeout: float) -> None:
        """Wait until every server that runs is a member with all its data, and may be given more.

        Raises ServerError after ``timeout`` seconds.
        """
        deadline = Deadline(timeout)
        for node in self.nodes:
            while node.running and (problem := self._problem_of(node)) is not None:
                if deadline.is_over:
                    raise ServerError(f"nats-server {node.name} was not ready within {timeout:g} s: {problem}")
                time.sleep(_POLL_INTERVAL)

    def node(self, name: str) -> EmbeddedServer:
        """Return the server of a name, as JetStream names leaders and replicas."""
        return next(node for node in self.nodes if node.name == name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        running = sum(node.running for node in self._nodes)
        return f"<EmbeddedCluster {running} of {self.size} servers running>"

    def _problem_of(self, node: EmbeddedServer) -> str | None:
        """Return what keeps a server from being ready; None when it is."""
        try:
            status, answer = _ask(self._monitors[node], "/healthz")
            if status != http.client.OK:
                return answer
            leader = _meta_of(self._monitors[node]).get("leader")
            for each in self.nodes:
                if each.name == leader and each is not node:
                    # Until it has heard of a server it says "peer offline" to what would need that.
                    known = _meta_of(self._monitors[each]).get("replicas") or []
                    heard = any(peer.get("name") == node.name and not peer.get("offline") for peer in known)
                    return None if heard else f"{leader}, which leads, has not heard of it"
        except (OSError, ValueError, http.client.HTTPException) as exc:
            return str(exc) or type(exc).__name__
        return None

    def _launch(self) -> None:
        ports = _free_ports(2 * self.size)
        routes, monitors = ports[: self.size], ports[self.size :]
        with ExitStack() as undo:
            nodes = []
            for number, (route, monitor) in enumerate(zip(routes, monitors, strict=True), start=1):
                port = self.port + number - 1 if self.port else 0
                node = EmbeddedServer(name=f"node-{number}", port=port, config=self._config_of(route, monitor, routes))
                undo.callback(node.stop)
                node.start()
                nodes.append(node)
            undo.pop_all()
        self._nodes = tuple(nodes)
        self._monitors = dict(zip(nodes, monitors, strict=True))

    def _config_of(self, route: int, monitor: int, routes: list[int]) -> str:
        others = ", ".join(f'"nats-route://{_HOST}:{each}"' for each in routes if each != route)
        cluster = f'cluster {{ name: lightlink, listen: "{_HOST}:{route}", routes: [{others}] }}'
        return f'{self.config}\nhttp: "{_HOST}:{monitor}"\n{cluster}\n'


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _meta_of(monitor: int) -> dict[str, Any]:
    """Return what a server knows of the group that places streams; its peers, where it leads that."""
    meta = json.loads(_ask(monitor, "/jsz")[1]).get("meta_cluster")
    return meta if isinstance(meta, dict) else {}


def _ask(monitor: int, path: str) -> tuple[int, str]:
    """Return the status and the text with which a server's monitoring port answers."""
    connection = http.client.HTTPConnection(_HOST, monitor, timeout=1.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()
