"""The console over real HTTP: its assets, its sessions, and how it refuses cross-site requests."""

from __future__ import annotations

import json
import time
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from helpers.http import Answer, Browser, Http, HttpProcess, tokens_file

import lightlink
from lightlink.commands import CommandManager
from lightlink.http import create_app
from lightlink.http.console import session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lightlink.server import EmbeddedServer

OPS, READER, LEAVER = "ops-0123456789abcdef", "reader-0123456789abcdef", "leaver-0123456789abcdef"
SAME = {"Sec-Fetch-Site": "same-origin"}
ENTRIES = (
    {"name": "ops.team", "scope": ["read", "send"], "token": OPS},
    {"name": "reader", "scope": ["read"], "token": READER},
    {"name": "leaver", "scope": ["read"], "token": LEAVER},
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokens_file(tmp_path_factory.mktemp("tokens") / "tokens.json", *ENTRIES)


@pytest.fixture(scope="module")
def running(server: EmbeddedServer, tokens: Path) -> Iterator[HttpProcess]:
    with HttpProcess(server.url, f"--tokens={tokens}") as process:
        yield process


def log_in(http: Http, token: str = OPS) -> tuple[Answer, str]:
    answer = http.post("/console/session", {"token": token}, headers=SAME)
    return answer, answer.headers.get("Set-Cookie", "").partition(";")[0]


def send(http: Http, headers: dict[str, str]) -> Answer:
    body = {"client_id": "greenhouse", "command_type": "open", "timeout": 1}
    return http.post("/api/command", body, headers=headers)


@pytest.mark.parametrize(
    ("path", "mimetype"),
    [
        ("/", "text/html"),
        ("/console/app.js", "text/javascript"),
        ("/console/pages/agents.js", "text/javascript"),
        ("/console/style.css", "text/css"),
    ],
)
def test_assets_have_security_headers_and_etags(running: HttpProcess, path: str, mimetype: str) -> None:
    answer = running.http.get(path)

    assert answer.status == 200
    assert answer.headers.get_content_type() == mimetype
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    again = running.http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize("path", ["/console/none.js", "/console/../session.py", "/console/%2e%2e/session.py"])
def test_only_assets_are_served(running: HttpProcess, path: str) -> None:
    assert running.http.get(path).status == 404


def test_logging_in_creates_a_session(running: HttpProcess) -> None:
    assert running.http.get("/console/session").json["name"] == ""

    answer, cookie = log_in(running.http)

    assert answer.json["name"] == "ops.team"
    facts = answer.headers["Set-Cookie"]
    assert "HttpOnly" in facts
    assert "SameSite=Strict" in facts
    assert OPS not in facts
    assert running.http.get("/console/session", headers={"Cookie": cookie}).json["scope"] == ["read", "send"]
    assert running.http.get("/api/commands", headers={"Cookie": cookie}).status == 200
    assert running.http.get("/api/commands").status == 401


def test_an_invalid_token_creates_no_session(running: HttpProcess) -> None:
    answer, cookie = log_in(running.http, "guessed-0123456789")

    assert answer.status == 401
    assert cookie == ""


def test_the_cookie_is_secure_except_on_loopback(running: HttpProcess) -> None:
    answer = running.http.post("/console/session", {"token": OPS}, headers={**SAME, "Host": "fleet.example"})

    facts = answer.headers["Set-Cookie"]
    assert facts.startswith("__Host-lightlink=")
    assert "Secure" in facts
    assert "Path=/" in facts
    assert "Domain" not in facts


def test_forged_and_expired_cookies_are_refused(running: HttpProcess) -> None:
    _, cookie = log_in(running.http, READER)
    value = SimpleCookie(cookie)["lightlink"].value
    name, expiry, signature = value.rsplit(".", 2)
    later = f"{name}.{int(expiry) + 1}.{signature}"
    other = f"ops.team.{expiry}.{signature}"
    past = f"{name}.{int(time.time()) - 1}.{signature}"

    for forged in (later, other, past, "", "a.b.c", value[:-1], f"{name}.{expiry}.", "é.1.2"):
        headers = {"Cookie": f"lightlink={forged}".encode().decode("latin-1")}
        assert running.http.get("/api/commands", headers=headers).status == 401, forged


def test_a_session_ends_with_its_token(running: HttpProcess, tokens: Path) -> None:
    _, cookie = log_in(running.http, LEAVER)
    assert running.http.get("/api/commands", headers={"Cookie": cookie}).status == 200

    tokens.write_text(json.dumps({"tokens": [*ENTRIES[:2], {**ENTRIES[2], "token": "another-0123456789"}]}))

    assert running.http.get("/api/commands", headers={"Cookie": cookie}).status == 401


def test_a_session_has_only_the_scopes_of_its_token(running: HttpProcess) -> None:
    _, cookie = log_in(running.http, READER)

    answer = send(running.http, {"Cookie": cookie, **SAME})

    assert answer.status == 403
    assert "may not send" in answer.error


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (SAME, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "{own}"}, 403),
        ({"Origin": "{own}"}, 200),
        ({}, 403),
        ({**SAME, "Content-Type": "text/plain"}, 415),
    ],
)
def test_cross_site_requests_are_refused(running: HttpProcess, headers: dict[str, str], status: int) -> None:
    _, cookie = log_in(running.http)
    given = {name: value.replace("{own}", running.url) for name, value in headers.items()}

    assert send(running.http, {"Cookie": cookie, **given}).status == status


def test_a_bearer_token_needs_no_origin(running: HttpProcess) -> None:
    assert send(Http(running.url, OPS), {"Content-Type": "text/plain"}).status == 200


def test_logging_out_deletes_the_cookie(running: HttpProcess) -> None:
    headers = {**SAME, "Content-Type": "application/json"}

    answer = running.http.request("DELETE", "/console/session", headers=headers)

    assert answer.status == 200
    assert "Max-Age=0" in answer.headers["Set-Cookie"]


def test_the_console_can_be_switched_off(server: EmbeddedServer) -> None:
    with HttpProcess(server.url, "--no-console") as process:
        assert process.http.get("/").status == 404
        assert process.http.get("/console/app.js").status == 404
        assert process.http.get("/health").status == 200


def test_a_session_lasts_eight_hours(server: EmbeddedServer, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(session, "time", SimpleNamespace(time=lambda: now))
    with lightlink.connect(server.url) as client, CommandManager(client) as manager:
        browser = Browser(create_app(manager, tokens=tokens), use_cookies=False)
        answer = browser.post("/console/session", json={"token": OPS}, headers=SAME)
        assert "Max-Age=28800" in answer.headers["Set-Cookie"]
        headers = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}

        now += 8 * 3600
        assert browser.get("/api/commands", headers=headers).status_code == 200
        now += 1
        assert browser.get("/api/commands", headers=headers).status_code == 401


def test_no_header_of_a_proxy_tells_scheme_or_host(running: HttpProcess) -> None:
    """Or who can send one could have another site's page taken for our own."""
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Port": "443",
        "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
    }
    http = running.http

    answer = http.post("/console/session", {"token": OPS}, headers={**forged, "Origin": http.url})
    evil = http.post("/console/session", {"token": OPS}, headers={**forged, "Origin": "https://evil.example"})

    assert answer.headers["Set-Cookie"].startswith("lightlink=")  # as for plain HTTP on this machine
    assert evil.status == 403
