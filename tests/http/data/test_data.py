"""Services, streams, dead letters, state and files over real HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from helpers.http import Events, Http, HttpProcess, tokens_file
from helpers.waiting import eventually

import lightlink
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer

    from lightlink.server import EmbeddedServer

ALL, LOOKER, OLD, LIMITED = (
    "all-0123456789abcdef",
    "looker-0123456789abc",
    "old-0123456789abcdef",
    "some-0123456789abcde",
)
JSON = {"Content-Type": "application/json"}
FILE = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def running(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProcess]:
    tokens = tokens_file(
        tmp_path_factory.mktemp("tokens") / "tokens.json",
        {"name": "all", "scope": ["read", "send", "call", "data", "edit"], "token": ALL},
        {"name": "looker", "scope": ["data"], "token": LOOKER},
        {"name": "old", "scope": ["read", "send", "plan", "approve"], "token": OLD},
        {"name": "limited", "scope": ["call", "data", "edit"], "token": LIMITED, "clients": ["berlin-*"]},
    )
    with HttpProcess(server.url, f"--tokens={tokens}", token=ALL) as process:
        yield process


@pytest.fixture
def http(running: HttpProcess) -> Http:
    return running.http


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def put(http: Http, path: str, body: Any) -> Any:
    return http.request("PUT", path, json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def test_a_method_is_called(http: Http, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)

    @service.rpc
    def half(number: float) -> float:
        if number < 0:
            raise ValueError("below zero")
        return number / 2

    with service:
        path = f"/api/services/{prefix}/half"
        assert http.post(path, {"arguments": {"number": 3}}).json["result"] == 1.5
        failed = http.post(path, {"arguments": {"number": -1}})
        assert (failed.status, "below zero" in failed.error) == (502, True)
        assert http.post(path, {"arguments": {"number": "x"}}).status == 400
        assert http.post(f"/api/services/{prefix}/third", {}).status == 404
    assert http.post(path, {"arguments": {"number": 3}}).status == 503


def test_events_are_published_and_seen_as_they_pass(http: Http, client: lightlink.Client, prefix: str) -> None:
    with http.open(f"/api/tail?subject={prefix}.%3E") as opened:
        events = Events(opened)
        assert http.post("/api/publish", {"subject": f"{prefix}.json", "data": {"a": 1}}).status == 200
        client.connection.publish(f"{prefix}.text".encode(), b"\xff not JSON")
        seen: list[Any] = []
        while len(seen) < 2:
            line = events.line()
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))

    assert [(each["subject"], each.get("data"), each.get("text")) for each in seen] == [
        (f"{prefix}.json", {"a": 1}, None),
        (f"{prefix}.text", None, "\ufffd not JSON"),
    ]
    assert http.get("/api/tail?subject=a..b").status == 400
    assert http.post("/api/publish", {"subject": "a.*"}).status == 400


@pytest.mark.parametrize("subject", ["$JS.API.STREAM.PURGE.LIGHTLINK_COMMANDS", "_INBOX.a", "ll.commands.a.b", "ll"])
def test_an_event_is_never_an_order_to_the_server(http: Http, subject: str) -> None:
    assert http.post("/api/publish", {"subject": subject}).status == 403
    assert http.get(f"/api/tail?subject={subject}").status == 403


def test_a_tail_of_everything_shows_events_only(http: Http, prefix: str) -> None:
    with http.open("/api/tail") as opened:
        events = Events(opened)
        http.post("/api/command", {"client_id": prefix, "command_type": "secret"})
        http.get("/api/commands")
        http.post("/api/publish", {"subject": prefix, "data": 1})
        while not (line := events.line()).startswith("data: "):
            pass

    assert json.loads(line[6:])["subject"] == prefix


def test_streams_tell_how_far_consumers_are_behind(http: Http, client: lightlink.Client, prefix: str) -> None:
    client.stream(prefix, [f"{prefix}.>"], max_bytes=1_000_000)
    client.publish_stored(f"{prefix}.new", {"id": 1})

    @client.consume(f"{prefix}.>", name="billing")
    def bill(message: Any) -> None:
        raise lightlink.Reject("no such customer")

    eventually(lambda: http.get("/api/dead-letters").json["letters"])
    (stream,) = [each for each in http.get("/api/streams").json["streams"] if each["name"] == prefix]

    assert (stream["messages"], stream["max_bytes"], stream["subjects"]) == (1, 1_000_000, [f"{prefix}.>"])
    assert [(each["name"], each["waiting"]) for each in stream["consumers"]] == [("billing", 0)]


def test_dead_letters_are_tried_again_or_dropped(http: Http, client: lightlink.Client, prefix: str) -> None:
    client.stream(prefix, [f"{prefix}.>"])
    good, handled = set[int](), []

    @client.consume(f"{prefix}.>", name="billing")
    def bill(message: Any) -> None:
        if message["id"] not in good:
            raise lightlink.Reject("no such customer")
        handled.append(message["id"])

    for number in (1, 2):
        client.publish_stored(f"{prefix}.new", {"id": number})

    def mine() -> list[dict[str, Any]]:
        return [each for each in http.get("/api/dead-letters").json["letters"] if each["stream"] == prefix]

    eventually(lambda: len(mine()) == 2)
    first, second = mine()
    assert (first["subject"], first["data"], first["attempts"]) == (f"{prefix}.new", {"id": 1}, 1)
    assert "no such customer" in first["error"]
    good.add(1)
    where = {"stream": prefix, "consumer": "billing"}
    assert http.post("/api/dead-letters/redeliver", {**where, "number": first["number"]}).status == 200
    assert http.post("/api/dead-letters/drop", {**where, "number": second["number"]}).status == 200
    eventually(lambda: handled == [1])
    assert mine() == []
    assert http.post("/api/dead-letters/drop", {**where, "number": second["number"]}).status == 404


def test_state_is_written_over_what_was_looked_at(
    http: Http, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    # While another test still follows all subjects, nobody says of a first write that no stream takes it.
    peer.run(peer.nc.jetstream().create_key_value(bucket=prefix, history=5))
    bucket = client.state(prefix, history=5)
    bucket.set("limits/eu.day", {"most": 1})
    path = f"/api/state/{prefix}/limits/eu.day"

    (shown,) = http.get(path).json["revisions"]
    assert shown["value"] == {"most": 1}
    written = put(http, path, {"value": {"most": 2}, "revision": shown["revision"]}).json["revision"]
    late = put(http, path, {"value": {"most": 9}, "revision": shown["revision"]})
    assert (late.status, bucket.get("limits/eu.day")) == (409, {"most": 2})
    assert put(http, f"/api/state/{prefix}/new", {"value": 1, "revision": 0}).status == 200
    assert put(http, f"/api/state/{prefix}/new", {"value": 1, "revision": 0}).status == 409
    assert http.get(f"/api/state/{prefix}").json == {"success": True, "total": 2, "keys": ["limits/eu.day", "new"]}
    assert http.get(f"/api/state/{prefix}?pattern=*.day&limit=1").json["total"] == 1
    assert http.request("DELETE", f"{path}?revision={shown['revision']}", headers=JSON).status == 409
    assert http.request("DELETE", f"{path}?revision={written}", headers=JSON).status == 200
    assert [each["operation"] for each in http.get(path).json["revisions"]] == ["delete", "put", "put"]
    assert prefix in [each["name"] for each in http.get("/api/state").json["buckets"]]


def test_a_visit_makes_no_bucket_and_touches_none_of_ours(http: Http, prefix: str) -> None:
    missing = put(http, f"/api/state/{prefix}/a", {"value": 1, "revision": 0})
    own = [http.get(f"/api/state/{name}") for name in (subjects.AGENTS_BUCKET, subjects.STATUS_BUCKET)]

    assert [missing.status, *(each.status for each in own)] == [404, 403, 403]
    names = [each["name"] for each in http.get("/api/state").json["buckets"]]
    assert not [name for name in names if name == prefix or name.lower().startswith("lightlink")]
    assert http.get(f"/api/state/{prefix}").status == 404


def test_files_come_and_go_whole(http: Http, prefix: str) -> None:
    content = bytes(range(256)) * 8000
    uploaded = http.request("PUT", f"/api/files?name=r%C3%A9sum%C3%A9.html&bucket={prefix}", content, headers=FILE)
    file = uploaded.json["file"]
    assert (file["name"], file["size"], file["metadata"]) == ("résumé.html", len(content), {"uploaded_by": "all"})
    path = f"/api/files/{file['id']}?bucket={prefix}"
    listed = http.get(f"/api/files?bucket={prefix}").json
    assert (listed["total"], prefix in listed["buckets"]) == (1, True)
    assert [(each["id"], each["digest"]) for each in listed["files"]] == [(file["id"], file["digest"])]

    fetched = http.get(path)
    assert fetched.body == content
    assert fetched.headers["Content-Disposition"].startswith("attachment")
    # Never a page of this site.
    assert fetched.headers.get_content_type() == "application/octet-stream"
    assert http.request("DELETE", path, headers=JSON).status == 200
    assert http.get(path).status == 404


NAMES = {
    "report.pdf": 'attachment; filename="report.pdf"',
    "résumé.html": "attachment; filename=\"resume.html\"; filename*=UTF-8''r%C3%A9sum%C3%A9.html",
    "报告 1.pdf": "attachment; filename=\"__ 1.pdf\"; filename*=UTF-8''%E6%8A%A5%E5%91%8A%201.pdf",
    'a"b\\%c;.txt': "attachment; filename=\"a_b__c;.txt\"; filename*=UTF-8''a%22b%5C%25c%3B.txt",
    "a\r\nX-Evil: b\0": 'attachment; filename="a__X-Evil: b_"',
    "\u202egpj.exe": 'attachment; filename="_gpj.exe"',
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_handed_out_under_it(http: Http, prefix: str, name: str) -> None:
    uploaded = http.request("PUT", f"/api/files?name={quote(name)}&bucket={prefix}", b"abc", headers=FILE)

    fetched = http.get(f"/api/files/{uploaded.json['file']['id']}?bucket={prefix}")

    assert (fetched.status, fetched.body) == (200, b"abc")
    assert fetched.headers["Content-Disposition"] == NAMES[name]
    assert "X-Evil" not in fetched.headers


def test_what_an_older_token_may_has_not_grown(running: HttpProcess) -> None:
    old, looker, limited = (Http(running.url, token) for token in (OLD, LOOKER, LIMITED))
    reads = ("/api/streams", "/api/dead-letters", "/api/state", "/api/files", "/api/tail")

    assert {old.get(path).status for path in reads} == {403}
    assert {limited.get(path).status for path in reads} == {403}
    assert {looker.get(path).status for path in reads[:-1]} == {200}
    assert looker.request("PUT", "/api/files?name=a", b"x", headers=FILE).status == 403
    assert looker.post("/api/publish", {"subject": "a"}).status == 403
    assert looker.post("/api/services/a/b", {}).status == 403


def test_a_file_is_taken_from_this_sites_pages_only(server: EmbeddedServer) -> None:
    with HttpProcess(server.url) as process:
        plain = process.http.request("PUT", "/api/files?name=a", b"x", headers={"Content-Type": "text/plain"})
        assert plain.status == 415
