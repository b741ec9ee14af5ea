"""Ctrl-C and SIGTERM end what follows, whichever thread the system gives the signal to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import lightlink

if TYPE_CHECKING:
    from conftest import StartPython, StartServer

FOLLOWING = {
    "sub": ["sub", "silence"],
    "state watch": ["state", "watch"],
    "command watch": ["command", "watch"],
    "command send": ["command", "send", "nobody", "work"],
    "stream replay": ["stream", "replay", "orders.>", "--follow"],
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("what", FOLLOWING)
def test_a_signal_that_another_thread_gets_ends_it(
    what: str, name: str, fresh_server: StartServer, python: StartPython
) -> None:
    url = fresh_server().url
    with lightlink.connect(url) as client:
        client.stream("ORDERS", ["orders.>"])
    process = python(
        f"""
        import signal, sys, threading, time, traceback
        from lightlink.cli import main

        def press():
            looks = 0
            while looks < 10:  # until it follows, and no longer connects
                time.sleep(0.02)
                frames = traceback.walk_stack(sys._current_frames()[threading.main_thread().ident])
                waits = any(frame.f_code.co_name == "wait_in_parts" for frame, _ in frames)
                looks = looks + 1 if waits else 0
            signal.pthread_kill(threading.get_ident(), signal.{name})

        threading.Thread(target=press, daemon=True).start()
        sys.exit(main())
        """,
        *FOLLOWING[what],
        "--url",
        url,
    )
    done = process.wait(60)
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], done.stderr
    assert "Traceback" not in done.stderr
