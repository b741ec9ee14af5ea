"""The curl session of samples/http_commands, with real curl, and the part of it that docs/http.md shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "http_commands"
DOCS = ROOT / "docs" / "http.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_session_says_what_it_shows() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", SAMPLE / "everything.py"],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert result.returncode == 0, result.stderr
    for words in (
        '{"status":"ok","time":"',
        '"message":"Command sent successfully"}',
        '"status":"completed","status_detail":"","created_at":"',
        '"result":{"left":0.5,"right":0.0}',
        '"total":2,"success_count":2,"failed_count":0,"results":[{"client_id":"cellar"',
        '"message":"Command sent to 2 clients"}',
        '{"client_id":"attic","command_id":"',
        '{"success":false,"error":"client not connected: garage"}',
        '"status":"failed","status_detail":"cancelled"',
        '"labels":{"site":"berlin"},"state":"online"',
        "greenhouse was told: a storm is coming",
        "cellar was told: all clear",
        "event: command\ndata: ",
        '"error":"comand_type: unknown; known are: client_id, command_type, ',
        'command_sent_total{command_type="open_window"}',
        'command_failed_total{command_type="water"} 1.0',
    ):
        assert words in result.stdout, (words, result.stdout)
    ids = re.findall(r'"command_id":"([^"]+)","message"', result.stdout)
    first, *retries = ids
    assert len(retries) == 2
    assert first != retries[0] == retries[1]


def test_what_the_documentation_shows_is_in_the_session() -> None:
    session = (SAMPLE / "session.sh").read_text()
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL) if "curl" in block]

    assert len(blocks) >= 6
    for block in blocks:
        assert block in session


def test_the_documentation_names_every_call_and_metric() -> None:
    from lightlink.http.routes import ROUTES

    text = DOCS.read_text()

    for route in ROUTES:
        path = re.sub(r"<[^>]+>", "ID", route.path)
        assert f"`{route.method} {path}`" in text
