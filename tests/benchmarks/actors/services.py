"""Services that answer ``echo`` with the value they were given, decoded and encoded again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import nats

from tests.benchmarks.actors import links

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.micro.request import Request


def echo(device: str, temperature: float, unit: str, n: int) -> dict[str, Any]:
    """Return the arguments, as one does who works with them."""
    return {"device": device, "temperature": temperature, "unit": unit, "n": n}


class Ours:
    """A LightLink service with ``echo``, ``sleep`` (waits) and ``burn`` (computes), each for ``busy`` seconds."""

    def __init__(
        self,
        url: str,
        name: str,
        workers: int = 8,
        busy: float = 0.0,
        burn: bool = False,
        tls: str | None = None,
    ) -> None:
        import lightlink

        def wait(**args: Any) -> dict[str, Any]:
            time.sleep(busy)
            return args

        def compute(**args: Any) -> dict[str, Any]:
            end = time.thread_time() + busy
            while time.thread_time() < end:
                sum(range(500))
            return args

        self._service = lightlink.Service(name, url, workers=workers, **links.ours(tls))
        self._service.register("echo", echo if not busy else compute if burn else wait)
        self._service.start()


class _OnLoop:
    """A nats-py connection on a loop that runs for as long as the process."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._serve(url, **settings), self._loop).result(10)

    async def _serve(self, url: str, **settings: Any) -> None:
        raise NotImplementedError


class Micro(_OnLoop):
    """`nats.micro` as its documentation shows it: the handler runs on the loop."""

    async def _serve(self, url: str, tls: str | None = None) -> None:
        from nats import micro

        nc = await links.connect_raw(url, tls)
        service = await micro.add_service(nc, name="micro", version="1.0.0")
        await service.add_endpoint(name="echo", subject="micro.echo", handler=self._answer)
        await nc.flush()

    async def _answer(self, request: Request) -> None:
        await request.respond(json.dumps(echo(**json.loads(request.data))).encode())


class Executor(_OnLoop):
    """What blocking handlers around nats-py usually look like: `run_in_executor`, with as many threads as workers."""

    async def _serve(self, url: str, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._nc = await nats.connect(url)
        await self._nc.subscribe("executor.echo", queue="q", cb=self._arrive)
        await self._nc.flush()

    async def _arrive(self, message: Msg) -> None:
        # A callback that waited for its handler would let one request at a time through.
        task = self._loop.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Msg) -> None:
        await message.respond(await self._loop.run_in_executor(self._pool, self._handle, message.data))

    @staticmethod
    def _handle(data: bytes) -> bytes:
        return json.dumps(echo(**json.loads(data))).encode()
