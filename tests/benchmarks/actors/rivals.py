"""Callers and services of peers that do without NATS; JSON all the same, except Pyro5, which encodes by itself."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.benchmarks.actors import timing
from tests.benchmarks.actors.callers import PerThread
from tests.benchmarks.actors.services import echo
from tests.benchmarks.payload import VALUE

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT = 5.0


class GrpcService:
    """grpcio's blocking server, with a thread pool; generic handlers, so no generated code."""

    def __init__(self, workers: int) -> None:
        import grpc

        def answer(request: bytes, _context: Any) -> bytes:
            return json.dumps(echo(**json.loads(request))).encode()

        handlers = {"Echo": grpc.unary_unary_rpc_method_handler(answer)}
        self._server = grpc.server(ThreadPoolExecutor(workers))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Bench", handlers),))
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def address(self) -> str:
        return f"127.0.0.1:{self._port}"


class GrpcCaller:
    """One channel shared by all threads, as its documentation advises."""

    def __init__(self, address: str) -> None:
        import grpc

        self._channel = grpc.insecure_channel(address)
        self._echo = self._channel.unary_unary("/Bench/Echo")

    def times(self, count: int) -> dict[str, Any]:
        return timing.times(self._call, count)

    def rate(self, callers: int, seconds: float) -> dict[str, Any]:
        return timing.rate(lambda _: self._call, callers, seconds)

    def _call(self) -> None:
        assert json.loads(self._echo(json.dumps(VALUE).encode(), timeout=_TIMEOUT))["n"] == VALUE["n"]


class PyroService:
    """A Pyro5 daemon, which gives each connection a thread of its pool."""

    def __init__(self) -> None:
        import Pyro5.api

        Pyro5.api.config.SERVERTYPE = "thread"
        exposed = Pyro5.api.expose(type("Echo", (), {"echo": staticmethod(echo)}))
        self._daemon = Pyro5.api.Daemon(host="127.0.0.1")
        self._uri = str(self._daemon.register(exposed()))
        threading.Thread(target=self._daemon.requestLoop, daemon=True).start()

    def address(self) -> str:
        return self._uri


class PyroCaller(PerThread):
    """A proxy for each thread, as its documentation advises."""

    def __init__(self, address: str) -> None:
        super().__init__(address)

    def _connect(self) -> Callable[[], object]:
        import Pyro5.api

        proxy = Pyro5.api.Proxy(self._url)
        proxy._pyroTimeout = _TIMEOUT
        proxy._pyroBind()

        def call() -> None:
            # A proxy belongs to the thread that used it last; each round has threads of its own.
            proxy._pyroClaimOwnership()
            assert proxy.echo(**VALUE)["n"] == VALUE["n"]

        return call
