"""The console's assets: all of them in the wheel, and nothing loaded from other sites."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import click
import pytest

import lightlink
from lightlink.cli.app import cli

ROOT = Path(lightlink.__file__).parent
ASSETS = ROOT / "http" / "console" / "assets"
FILES = sorted(file for file in ASSETS.rglob("*") if file.is_file())


def test_the_wheel_contains_every_asset() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT.parent / "setup.cfg")
    patterns = settings["options.package_data"]["lightlink.http.console"].split(",")
    taken = {file for pattern in patterns for file in ASSETS.parent.glob(pattern.strip())}

    assert taken == {*FILES}


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".js"], ids=lambda file: file.name)
def test_modules_import_existing_files_and_build_no_html(file: Path) -> None:
    text = file.read_text()
    for name in re.findall(r'^import .*? from "([^"]+)";$', text, re.MULTILINE):
        assert (file.parent / name).resolve() in FILES, name
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    # Only XML namespaces, which are never fetched.
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_every_command_line_shown_exists() -> None:
    text = "".join(file.read_text() for file in (ASSETS / "pages").glob("*.js"))
    lines = re.findall(r'"(lightlink [^"]+)"', text)
    assert len(lines) >= 8
    for line in lines:
        command: click.Command = cli
        context = click.Context(cli)
        for word in line.split()[1:]:
            if not isinstance(command, click.Group):
                break
            found = command.get_command(context, word)
            assert found is not None, line
            command = found
        assert not isinstance(command, click.Group), line


def test_the_example_agent_of_the_overview_works() -> None:
    (code,) = re.findall(r"const AGENT = `(.*?)`;", (ASSETS / "pages" / "overview.js").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["agent"].client_id == "greenhouse"
    assert names["open_"]("the left one") == "the left one is open"
