"""Every page is followed from top to bottom: what is printed in it is run, and says what it should."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import lightlink

if TYPE_CHECKING:
    from documentation.conftest import Read
    from helpers.pages import Reader

MAKE = "needs the network and minutes; make and the suite are what runs this test"
INSTALL = "the packages are there; tests/documentation/test_packaging.py installs them"


def use_its_server(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the server that a page starts, on a free port."""
    (server,) = reader.start("nats-server at ")
    found = re.search(r"nats-server at (\S+)", server.stdout)
    assert found
    monkeypatch.setenv("LIGHTLINK_URL", found[1])


def test_the_readme(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = read("README.md", server=False, replace={"--port 4222": "--port 0"})
    reader.leave_out(MAKE)
    reader.leave_out(INSTALL)
    use_its_server(reader, monkeypatch)
    reader.save("calc.py")
    reader.run_beside("lightlink run calc:service", "serving math")
    assert reader.python() == "3\n7\n{'user_id': 'U001'}\n{'t': 21.5}\n"
    reader.save("pump.py")
    reader.run_beside("lightlink agent run pump:agent", "takes commands")
    assert reader.python().startswith("{'rpm': 900}\n{")
    assert reader.python() == "completed {'done': 1}\n"


def test_installing(read: Read) -> None:
    reader = read("docs/how-to/install.md", server=False)
    reader.leave_out(INSTALL)
    assert reader.python() == "True\n"


def test_the_index(read: Read) -> None:
    reader = read("docs/index.md")
    service = lightlink.Service("math")
    service.register("add", lambda a, b: a + b)
    with service:
        assert reader.python() == "3\n"


def test_the_link(read: Read) -> None:
    reader = read("docs/how-to/link.md")
    reader.python()
    assert reader.python() == "3\n"
    assert reader.python() == "Point(x=1.0, y=2.0)\n"
    assert reader.python() == "math.add: argument 'b': expected `int`, got `str`\n"
    assert "{'user_id': 'U001'}\n" in reader.python()
    reader.python()
    reader.python()
    assert (reader.folder / "copy.csv").read_text() == "apple,3\n"
    reader.python()


def test_commands(read: Read) -> None:
    reader = read("docs/how-to/commands.md")
    reader.python()
    sent = reader.python()
    assert sent.startswith("{'restarted_after': 5}\n")
    assert sent.endswith("['completed', 'completed']\n['client-001']\n")
    assert reader.python() == "failed\n"
    reader.python()
    assert '"client_id":"client-001"' in reader.shell()


def test_daemons(read: Read) -> None:
    reader = read("docs/how-to/daemons.md")
    reader.python()
    assert reader.python() == "did 1\n"
    assert reader.python() == "control.reload\n"
    assert reader.python() == "0\n"
    assert reader.python() == "21.5\n"


def test_the_shell(read: Read) -> None:
    reader = read("docs/how-to/shell.md")
    (reader.folder / "shop.py").write_text(
        'import lightlink\nservice = lightlink.Service("math")\nservice.register("add", lambda a, b: a + b)\n'
    )
    reader.start("serving math", "listening on ")
    printed = reader.shell()
    assert "3\n" in printed
    assert "device.sensor01\n" in printed
    assert "data.csv" in printed
