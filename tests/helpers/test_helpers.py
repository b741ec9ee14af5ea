from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING

import pytest

from helpers.process import alive, run_python
from helpers.raw import RawPeer
from helpers.waiting import eventually

if TYPE_CHECKING:
    from conftest import StartPython


def test_eventually_returns_the_first_true_value_or_fails() -> None:
    values = iter([0, "", "now"])
    assert eventually(lambda: next(values)) == "now"
    with pytest.raises(AssertionError, match=r"still \[\] after 0 s"):
        eventually(list, timeout=0)


@pytest.mark.parametrize("name", ["a.b c", "x" * 100, "ä"])
def test_a_prefix_is_a_valid_name_everywhere(name: str, prefix: str) -> None:
    assert re.fullmatch("[A-Za-z0-9_]{1,50}", prefix)


def test_a_raw_peer_runs_functions_and_coroutines(peer: RawPeer, prefix: str) -> None:
    async def talk(nc: object) -> bytes:
        subscription = await peer.nc.subscribe(prefix)
        await peer.nc.publish(prefix, b"hello")
        message = await subscription.next_msg(30)
        return message.data

    async def own_timeout() -> None:
        raise asyncio.TimeoutError("mine")

    assert peer.run(talk) == b"hello"
    peer.run(peer.nc.flush())
    with pytest.raises(asyncio.TimeoutError, match="mine"):
        peer.run(own_timeout())
    with pytest.raises(TimeoutError, match=r"did not end within 0\.05 s"):
        peer.run(asyncio.sleep(60), timeout=0.05)
    peer.close()
    peer.close()


def test_run_python_returns_what_a_snippet_did() -> None:
    result = run_python(
        """
        import os, sys
        print(sys.argv[1:], os.environ["LL_TEST"])
        sys.exit("sorry")
        """,
        "a",
        1,
        env={"LL_TEST": "ä"},
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, "['a', '1'] ä\n", "sorry\n")
    assert result.duration > 0


def test_run_python_ends_a_snippet_that_takes_too_long() -> None:
    with pytest.raises(AssertionError, match=r"still running after 0\.5 s"):
        run_python("input()", timeout=0.5)


def test_a_python_process_waits_for_lines_and_sends_them(python: StartPython) -> None:
    process = python("print('ready 1'); print('got', input()); raise ValueError('end')")
    assert process.wait_line("ready") == "1"
    process.send_line("this")
    assert process.wait_line("got") == "this"
    with pytest.raises(AssertionError, match="ValueError: end"):
        process.wait_line("more")
    assert process.wait().returncode == 1


def test_a_python_process_is_killed_with_its_group(python: StartPython) -> None:
    process = python(
        """
        import os, signal
        child = os.fork()
        if child:
            print("child", child)
        signal.pause()
        """
    )
    child = int(process.wait_line("child"))
    process.kill()
    process.kill()
    assert not alive(process.pid)
    eventually(lambda: not alive(child))
    assert process.wait().returncode == -signal.SIGKILL
