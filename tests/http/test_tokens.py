"""Where tokens come from: a file, a function, or nowhere, and then only this machine is answered."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import Browser, Http, HttpProcess, tokens_file
from helpers.process import PythonProcess, run_python

import lightlink
from lightlink.commands import CommandManager
from lightlink.errors import InvalidOption
from lightlink.http import FileTokens, Limits, Token, create_app
from lightlink.http.server import HttpServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lightlink.server import EmbeddedServer

OPS, OTHER = "ops-secret-0123456789", "other-secret-0123456789"
ALL = {"scope": ["read", "send"]}
ENTRY: dict[str, Any] = {"name": "ops", "token": OPS, **ALL}


# The file -------------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_counts_at_once(server: EmbeddedServer, tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "tokens.json", ENTRY)
    with HttpProcess(server.url, f"--tokens={path}", token=OPS) as running:
        assert running.http.get("/api/commands").status == 200
        tokens_file(path, {**ENTRY, "token": OTHER})
        assert running.http.get("/api/commands").status == 401
        path.write_text("not json")
        assert Http(running.url, OTHER).get("/api/commands").status == 401  # revoked or not, nobody can tell


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "JSON is malformed"),
        ({"tokens": []}, "holds none"),
        ({"tokens": [{"name": "a", "token": OPS}]}, "Object missing required field `scope`"),
        ({"tokens": [{"name": "a", "token": OPS, "scope": []}]}, "must be some of read, send, plan, approve, fleet"),
        ({"tokens": [{"name": "a", "token": OPS, "scope": ["write"]}]}, "Invalid enum value 'write'"),
        ({"tokens": [{"name": "a", "token": OPS, **ALL, "client": ["x"]}]}, "unknown field `client`"),
        ({"tokens": [{"name": "a", "token": "short", **ALL}]}, "shorter than 16 characters"),
        ({"tokens": [{"name": "a", "token": "not a token but words", **ALL}]}, "use ASCII without spaces"),
        ({"tokens": [{"name": "a", "token": OPS, **ALL, "rate": 0}]}, "above 0"),
        ({"tokens": [{"name": "a", **ALL}]}, "a: give either token or sha256"),
        ({"tokens": [{"name": "a", "token": OPS, "sha256": "0" * 64, **ALL}]}, "a: give either token or sha256"),
        ({"tokens": [{"name": "a", "sha256": "abc", **ALL}]}, "sha256 has 64 hexadecimal digits"),
        ({"tokens": [{"name": "a b", "token": OPS, **ALL}]}, "use 1 to 64 letters"),
        ({"tokens": [{"name": "a", "token": OPS, **ALL, "clients": [""]}]}, "must be a list of texts"),
        (
            {"tokens": [{"name": "a", "token": OPS, **ALL}, {"name": "b", "token": OPS, **ALL}]},
            "share a name or a secret",
        ),
        ({"tokens": [{"name": "a", "token": OPS, **ALL}, {"name": "a", "token": OTHER, **ALL}]}, "share a name"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))

    with pytest.raises(InvalidOption) as refused:
        FileTokens(path)

    assert reason in str(refused.value)
    assert OPS not in str(refused.value)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="No such file"):
        FileTokens(tmp_path / "none.json")


def test_a_file_that_everybody_can_read_is_complained_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tokens_file(tmp_path / "tokens.json", ENTRY)
    path.chmod(0o644)

    FileTokens(path)

    assert f"everybody on this machine can read the tokens in {path}" in caplog.text


def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    tokens = FileTokens(tokens_file(tmp_path / "tokens.json", ENTRY))

    assert OPS not in repr(tokens) + repr(tokens(OPS))


# From a function, and none at all -------------------------------------------------------------------------------------


@pytest.fixture
def manager(url: str) -> Iterator[CommandManager]:
    with lightlink.connect(url) as client, CommandManager(client) as made:
        yield made


def test_tokens_may_come_from_a_function(manager: CommandManager) -> None:
    def check(secret: str) -> Token | None:
        return Token(name="me", scope={"read"}) if secret == "sesame" else None

    browser = Browser(create_app(manager, tokens=check))

    assert browser.get("/api/commands", headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert browser.get("/api/commands", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_function_that_fails_lets_nobody_in(manager: CommandManager, caplog: pytest.LogCaptureFixture) -> None:
    def check(secret: str) -> Token | None:
        raise RuntimeError("the directory is down")

    answer = Browser(create_app(manager, tokens=check)).get("/api/commands", headers={"Authorization": "Bearer x"})

    assert answer.json
    assert (answer.status_code, answer.json["error"]) == (500, "internal error; the server's log says more")
    assert "the directory is down" in caplog.text


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "2001:db8::1", "::ffff:10.0.0.7"])
def test_without_tokens_other_machines_are_not_answered(manager: CommandManager, address: str) -> None:
    app = create_app(manager)

    answer = Browser(app).get("/api/commands", environ_overrides={"REMOTE_ADDR": address})

    assert answer.status_code == 403
    assert answer.json
    assert answer.json["error"] == f"no tokens are configured, so only this machine is answered, and not {address}"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8475",
        "localhost.evil.example",
        "127.evil.example",
        "127.0.0.1.evil.example",
        "::ffff:127.evil.example",
        "localhost.",
        "0x7f.1",
        "[2001:db8::1]:80",
    ],
)
def test_a_browser_told_a_false_name_is_not_answered(manager: CommandManager, host: str) -> None:
    answer = Browser(create_app(manager)).get("/api/commands", headers={"Host": host})

    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost:8475", "127.0.0.1", "127.0.0.1:80", "[::1]:8475", "LOCALHOST"])
def test_without_tokens_this_machine_is_answered(manager: CommandManager, host: str) -> None:
    answer = Browser(create_app(manager)).get("/api/commands", headers={"Host": host})

    assert answer.status_code == 200


def test_an_app_that_something_else_guards_may_answer_everybody(manager: CommandManager) -> None:
    browser = Browser(create_app(manager, open_to_all=True))

    answer = browser.get("/api/commands", headers={"Host": "x.example"}, environ_overrides={"REMOTE_ADDR": "10.0.0.7"})

    assert answer.status_code == 200


def test_without_tokens_it_does_not_listen_elsewhere(url: str) -> None:
    with pytest.raises(AssertionError, match="without tokens only a loopback address such as "):
        HttpProcess(url, "--listen=0.0.0.0:0")


def test_with_tokens_it_listens_elsewhere(url: str, tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "tokens.json", ENTRY)
    with HttpProcess(url, f"--tokens={path}", "--listen=0.0.0.0:0") as running:
        port = running.http.port

        assert Http(f"http://127.0.0.1:{port}", OPS).get("/api/commands").status == 200


def test_without_tokens_it_says_so(url: str) -> None:
    code = "import sys; from lightlink.cli import main; sys.exit(main(sys.argv[1:]))"
    with PythonProcess(code, "http", f"--url={url}", "--listen=127.0.0.1:0") as process:
        line = process.wait_line("listening on ")

    assert "no tokens are configured, so only this machine is answered" in line


def test_limits_that_cannot_be_are_refused(manager: CommandManager) -> None:
    with pytest.raises(InvalidOption, match="max_body"):
        Limits(max_body=0)
    with pytest.raises(InvalidOption, match="limits"):
        create_app(manager, limits={"max_body": 1})  # type: ignore[arg-type]


def test_without_the_extra_the_error_says_what_to_install() -> None:
    hidden = """
        import sys
        for package in ("werkzeug", "waitress", "prometheus_client"):
            sys.modules[package] = None
        try:
            import lightlink.http
        except ModuleNotFoundError as exc:
            print(exc)
        from lightlink.cli import main
        sys.exit(main(["http"]))
    """

    finished = run_python(hidden, env={"LIGHTLINK_URL": "nats://127.0.0.1:1", **os.environ})

    assert finished.stdout.startswith("lightlink.http needs werkzeug")
    assert finished.stderr.startswith("error: lightlink.http needs werkzeug")
    assert finished.stderr.rstrip().endswith("pip install 'lightlink[http]'")
    assert len(finished.stderr.splitlines()) == 1
    assert finished.returncode == 1


PROXIED = (
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-By",
    "X-Forwarded-Server",
    "Forwarded",
    "X-Real-IP",
    "CF-Connecting-IP",
    "Via",
)


@pytest.mark.parametrize("name", PROXIED)
def test_without_tokens_what_a_proxy_forwards_is_not_answered(manager: CommandManager, name: str) -> None:
    answer = Browser(create_app(manager)).get("/api/commands", headers={name: "127.0.0.1"})
    assert answer.status_code == 403
    assert answer.json
    assert name in answer.json["error"]


def test_nor_does_our_server_answer_what_a_proxy_forwards(manager: CommandManager, prefix: str) -> None:
    """Its WSGI server would delete these headers before the app sees them, if it were let."""
    body = {"client_id": prefix, "command_type": "stop"}
    urls: list[str] = []
    with HttpServer(create_app(manager), "127.0.0.1:0", urls.append):
        http = Http(urls[0])
        for name in PROXIED:
            assert name in http.get("/api/commands", headers={name: "203.0.113.9"}).error
            assert http.post("/api/command", body, headers={name: "127.0.0.1"}).status == 403
        assert http.get(f"/api/commands?client_id={prefix}").json["commands"] == []


def test_without_tokens_an_address_that_is_not_told_is_refused(manager: CommandManager) -> None:
    answer = Browser(create_app(manager)).get("/api/commands", environ_overrides={"REMOTE_ADDR": ""})
    assert answer.status_code == 403


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_without_tokens_what_changes_something_is_json(manager: CommandManager, content_type: str) -> None:
    browser = Browser(create_app(manager))
    headers = {"Content-Type": content_type} if content_type else {}
    for path, data in (("/api/command/x/cancel", b""), ("/api/command", b"{}"), ("/api/broadcast", b"{}")):
        assert browser.post(path, data=data, headers=headers).status_code == 415


@pytest.mark.parametrize("broken", ["removed", "garbage", "empty"])
def test_a_token_file_that_cannot_be_read_revokes_all(manager: CommandManager, tmp_path: Path, broken: str) -> None:
    file = tmp_path / "tokens.json"
    secret = "0123456789abcdef"
    content = json.dumps({"tokens": [{"name": "a", "scope": ["read"], "token": secret}]})
    file.write_text(content)
    browser = Browser(create_app(manager, tokens=file))
    headers = {"Authorization": f"Bearer {secret}"}
    assert browser.get("/api/commands", headers=headers).status_code == 200
    if broken == "removed":
        file.unlink()
    else:
        file.write_text("" if broken == "empty" else "{")
    assert browser.get("/api/commands", headers=headers).status_code == 401
    file.write_text(content)
    assert browser.get("/api/commands", headers=headers).status_code == 200
