"""The how-to page: its code runs, its lines run, its table of statuses is the map."""

from __future__ import annotations

import re
import sys
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import pytest
from helpers.docs import ROOT, blocks, run, run_pytest, shell_lines
from helpers.wsgi import deploy

import lightlink
from lightlink.contrib.flask import STATUSES
from lightlink.contrib.flask.extension import _DEFAULTS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython

PAGE = "how-to/flask.md"


def test_the_page_s_app_passes_the_page_s_test(tmp_path: Path) -> None:
    set_up, views, _, tests = blocks(PAGE, "python")
    (tmp_path / "shop.py").write_text(set_up + views)
    (tmp_path / "test_shop.py").write_text(tests)

    assert "1 passed" in run_pytest(tmp_path)


def test_the_page_s_lines_run(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text("".join(blocks(PAGE, "python")[:2]))
    module: dict[str, Any] = {}
    monkeypatch.setenv("LIGHTLINK_URL", url)
    exec(compile(blocks(PAGE, "python")[2], "prices.py", "exec"), module)
    with module["service"]:
        lines = shell_lines(PAGE, "flask ")
        script = "\n".join(["set -e", f'flask() {{ {sys.executable} -m flask "$@"; }}', *lines])
        said = run(["/bin/sh", "-c", script], tmp_path, FLASK_LIGHTLINK_URL=url)
    assert len(lines) == 6
    assert "JetStream:  answers" in said
    assert "\n0.5\n" in said


@pytest.mark.parametrize("carrier", ["uwsgi", pytest.param("gunicorn", marks=pytest.mark.slow)])
def test_the_page_s_servers_serve(python: StartPython, tmp_path: Path, url: str, carrier: str) -> None:
    (tmp_path / "shop.py").write_text("".join(blocks(PAGE, "python")[:2]))
    service = lightlink.Service("prices", url)
    service.register("of", lambda item: {"apple": 0.5}[item])
    (line,) = shell_lines(PAGE, f"{carrier} ")
    with service:
        process, http = deploy(python, line, tmp_path, FLASK_LIGHTLINK_URL=url)
        assert [http.get("/price/apple").json["price"] for _ in range(8)] == [0.5] * 8
        assert http.get("/health/ready").status == 200
        process.signal(SIGTERM)
        process.wait()


def test_the_page_tells_every_setting_and_status() -> None:
    text = (ROOT / "docs" / PAGE).read_text()
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", text, re.MULTILINE)
    told = {name: int(status) for status, names in rows for name in names.split("`")}
    assert {kind.__name__: status for kind, status in STATUSES.items()}.items() <= told.items()
    for name in _DEFAULTS:
        assert name.removeprefix("LIGHTLINK_TLS") in text
