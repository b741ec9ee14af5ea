"""Where gevent or eventlet has replaced threads and sockets, connecting says so instead of hanging."""

from __future__ import annotations

import pytest
from helpers.process import run_python

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent's threads": "from gevent import monkey; monkey.patch_thread()",
    "gevent without threads": "from gevent import monkey; monkey.patch_all(thread=False)",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "eventlet's threads": "import eventlet; eventlet.monkey_patch(thread=True)",
}


@pytest.mark.parametrize("patch", PATCHES)
def test_connecting_in_a_patched_process_is_refused(patch: str, url: str) -> None:
    finished = run_python(
        f"""
        {PATCHES[patch]}
        import sys
        import lightlink

        try:
            lightlink.connect(sys.argv[1])
        except lightlink.NotReady as exc:
            print(exc)
        """,
        url,
        options=(),
    )
    assert "both must be real" in finished.stdout, finished.stderr
    assert f"{'gevent' if 'gevent' in patch else 'eventlet'} has replaced" in finished.stdout


@pytest.mark.parametrize("library", ["gevent.monkey", "eventlet.patcher"])
def test_a_library_that_is_only_imported_is_no_hindrance(library: str, url: str) -> None:
    finished = run_python(
        f"""
        import sys
        import {library}
        import lightlink

        with lightlink.connect(sys.argv[1]) as client:
            client.flush()
            print(client.status.value)
        """,
        url,
        options=(),
    )
    assert finished.stdout == "connected\n", finished.stderr
