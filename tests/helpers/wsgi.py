"""WSGI servers that fork, started by the lines that the pages give."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from helpers.docs import ROOT
from helpers.http import Http
from helpers.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython

    from helpers.process import PythonProcess

GUNICORN = """
    import sys
    from gunicorn.app.wsgiapp import run
    sys.argv = ["gunicorn", *sys.argv[1:]]
    run()
"""
UWSGI = """
    import sys
    import pyuwsgi
    pyuwsgi.run(sys.argv[1:])
"""


def deploy(python: StartPython, line: str, folder: Path, **env: str) -> tuple[PythonProcess, Http]:
    """Run a page's line of gunicorn or uWSGI, at a free port, with what is in a folder."""
    name, *words = shlex.split(line)
    if name == "gunicorn":
        code, words = GUNICORN, ["--bind=127.0.0.1:0", "--no-control-socket", *words]
    else:
        code, words = UWSGI, [word.replace("127.0.0.1:8000", "127.0.0.1:0") for word in words]
        assert "127.0.0.1:0" in words
    paths = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests")])
    process = python(code, *words, env={"PYTHONPATH": paths, **env}, options=())
    bound = eventually(
        lambda: re.search(r"(?:Listening at: http://|bound to TCP address )127.0.0.1:(\d+)", process.stderr), timeout=30
    )
    assert bound is not None
    return process, Http(f"http://127.0.0.1:{bound[1]}")
