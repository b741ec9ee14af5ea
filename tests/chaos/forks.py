"""Calls made by a forked child with its parent's client, in the parent's books."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from typing import TYPE_CHECKING, Any

from lightlink.errors import CallError, ConnectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.ledger import Calls

# How long a child may take before it counts as hung, in seconds.
_HUNG = 60.0


def call_in_child(calls: Calls, call: Callable[[int], Any], times: int) -> None:
    """Make calls, ``call(number)``, in a forked child; AssertionError when it hangs or crashes."""
    numbers = [calls.reserve() for _ in range(times)]
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        _make(call, numbers, writable)
    os.close(writable)
    told = b""
    deadline = time.monotonic() + _HUNG
    while select.select([readable], [], [], max(deadline - time.monotonic(), 0))[0]:
        piece = os.read(readable, 65536)
        if not piece:
            break
        told += piece
    else:
        os.kill(child, signal.SIGABRT)
    os.close(readable)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"a forked child ended with {status} after {told!r}"
    for line in told.splitlines():
        calls.settle(*json.loads(line))


def _make(call: Callable[[int], Any], numbers: list[int], writable: int) -> None:
    """Make the calls and write down how each ended, for `Calls.settle`; never returns."""
    status = 1
    try:
        for number in numbers:
            try:
                answer, outcome = call(number), "answered"
            except CallError as exc:
                answer, outcome = number, type(exc).__name__
            except ConnectError:
                answer, outcome = number, "not connected"
            line = json.dumps([number, outcome, answer, time.monotonic()])
            os.write(writable, line.encode() + b"\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Whatever happens, the child must not go on with what its parent does.
        os._exit(status)
