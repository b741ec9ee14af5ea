from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import nkeys
import pytest
from helpers.jwt import Operator, user_key
from helpers.waiting import eventually

import lightlink
from lightlink import AuthenticationError, InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

USER = "authorization { user: me, password: hush-right }"
TOKEN = "authorization { token: hush-right }"


def works(url: str | list[str], **identity: Any) -> bool:
    with lightlink.connect(url, **identity) as client:
        client.publish("x", 1)
        client.flush()
        return client.status is lightlink.Status.CONNECTED


def refused(url: str, **identity: Any) -> str:
    with pytest.raises(AuthenticationError) as caught:
        lightlink.connect(url, **identity)
    assert caught.value.servers == [url]
    assert "hush" not in f"{caught.value} {caught.value!r}"
    return str(caught.value)


def test_user_and_password_open_the_door_and_nothing_else_does(fresh_server: StartServer) -> None:
    url = fresh_server(config=USER).url
    assert works(url, user="me", password="hush-right")
    assert works(url.replace("://", "://me:hush-right@"))
    for identity in ({"user": "me", "password": "hush-wrong"}, {"token": "hush-right"}, {}):
        assert "authori" in refused(url, **identity).lower()


def test_a_token_opens_the_door_and_nothing_else_does(fresh_server: StartServer) -> None:
    url = fresh_server(config=TOKEN).url
    assert works(url, token="hush-right")
    assert works(url.replace("://", "://hush-right@"))
    for identity in ({"token": "hush-wrong"}, {"user": "hush-right", "password": "x"}, {}):
        assert "authori" in refused(url, **identity).lower()


def test_one_refusal_among_several_is_an_authentication_error(fresh_server: StartServer) -> None:
    locked = fresh_server(config=TOKEN).url
    with pytest.raises(AuthenticationError) as caught:
        lightlink.connect([locked, "nats://127.0.0.1:1"], token="hush-wrong")
    assert set(caught.value.servers) == {locked, "nats://127.0.0.1:1"}


def test_an_nkey_opens_the_door_and_another_does_not(fresh_server: StartServer, tmp_path: Path) -> None:
    known, unknown = user_key(), user_key()
    url = fresh_server(config=f"authorization {{ users = [{{nkey: {known.public}}}] }}").url
    (tmp_path / "known.nk").write_bytes(known.seed + b"\n")
    (tmp_path / "unknown.nk").write_bytes(unknown.seed)
    assert works(url, nkey=tmp_path / "known.nk")
    assert works(url, nkey=str(tmp_path / "known.nk"))
    seed = (tmp_path / "known.nk").read_text()
    assert works(url, nkey=seed)
    assert works(url, nkey=lambda: seed)
    refused(url, nkey=tmp_path / "unknown.nk")


def test_a_credentials_file_opens_the_door(fresh_server: StartServer, tmp_path: Path) -> None:
    ours, theirs = Operator(), Operator()
    url = fresh_server(config=ours.config, jetstream=False).url
    assert works(url, creds=ours.write_creds(tmp_path / "ours.creds"))
    text = (tmp_path / "ours.creds").read_text()
    assert works(url, creds=text)
    assert works(url, creds=lambda: text)
    assert works(url, creds=text.encode)
    refused(url, creds=theirs.write_creds(tmp_path / "theirs.creds"))
    refused(url)


def test_a_credentials_file_is_read_again_at_each_connect(fresh_server: StartServer, tmp_path: Path) -> None:
    old, new = Operator(), Operator()
    server = fresh_server(config=old.config, jetstream=False)
    creds = old.write_creds(tmp_path / "user.creds")
    with lightlink.connect(server.url, creds=creds, reconnect_wait=0.01) as client:
        server.kill()
        new.write_creds(creds)
        server.config = new.config
        server.start()
        client.flush(timeout=30)


@pytest.mark.parametrize(
    "content",
    [b"", b"no creds\n", b"-----BEGIN NATS USER JWT-----\n", b"\xff\xfe", b"-----BEGIN USER NKEY SEED-----\nSU\n"],
)
def test_a_credentials_file_that_is_none_is_refused_by_name(content: bytes, url: str, tmp_path: Path) -> None:
    creds = tmp_path / "bad.creds"
    creds.write_bytes(content)
    with pytest.raises(InvalidOption, match=r"creds .*bad\.creds.* does not hold a user JWT"):
        lightlink.connect(url, creds=creds)


@pytest.mark.parametrize("content", [b"", b"hush-not-a-seed", b"SUAAAA", b"\xff\xfe", b"U" + b"A" * 55])
def test_an_nkey_file_that_is_none_is_named_and_not_shown(content: bytes, url: str, tmp_path: Path) -> None:
    nkey = tmp_path / "bad.nk"
    nkey.write_bytes(content)
    with pytest.raises(InvalidOption, match=r"nkey .*bad\.nk.* does not hold an nkey seed") as caught:
        lightlink.connect(url, nkey=nkey)
    assert "hush" not in str(caught.value)


def test_a_credentials_file_that_goes_bad_is_tried_until_good(fresh_server: StartServer, tmp_path: Path) -> None:
    operator = Operator()
    server = fresh_server(config=operator.config, jetstream=False)
    creds = operator.write_creds(tmp_path / "user.creds")
    good = creds.read_text()
    with lightlink.connect(server.url, creds=creds, reconnect_wait=0.01, reconnect_wait_max=0.02) as client:
        server.kill()
        creds.write_text("being written")
        server.start()
        eventually(lambda: "authentication" in server.log_file.read_text() or client._connection.session.losses)
        eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        creds.write_text(good)
        client.flush(timeout=30)


def test_without_nkeys_the_message_says_how_to_get_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    nkey = tmp_path / "user.nk"
    nkey.write_bytes(user_key().seed)
    with pytest.raises(InvalidOption, match=r"pip install 'lightlink\[nkeys\]'"):
        lightlink.connect(url, nkey=nkey)


def test_an_identity_without_its_inbox_can_publish_but_not_call(
    fresh_server: StartServer,
) -> None:
    config = 'authorization { users = [{user: a, password: a, permissions: {publish: ">", subscribe: "Free.>"}}] }'
    with lightlink.connect(fresh_server(config=config).url, user="a", password="a") as client:
        with client.subscribe("Free.a") as subscription:
            client.publish("Free.a", 1)
            assert subscription.get(timeout=30).data == 1
        with pytest.raises(lightlink.PermissionDenied) as caught:
            client.call("math", "add", {})
        assert caught.value.operation == "subscribe"
        assert caught.value.subject.startswith("_INBOX.")


def test_an_inbox_prefix_of_its_own_is_used_for_replies(fresh_server: StartServer) -> None:
    config = """authorization { users = [
        {user: a, password: a, permissions: {subscribe: "_INBOX_a.>"}}, {user: b, password: b}] }"""
    url = fresh_server(config=config).url
    service = lightlink.Service("echo", url, user="b", password="b")
    service.register("echo", lambda x: x)
    with service, lightlink.connect(url, user="a", password="a", inbox_prefix="_INBOX_a") as client:
        assert client.call("echo", "echo", {"x": 1}) == 1


def test_a_refused_publish_is_told_by_hook_and_flush(fresh_server: StartServer) -> None:
    config = 'authorization { users = [{user: a, password: a, permissions: {publish: {deny: "Secret.>"}}}] }'
    errors: list[Exception] = []
    url = fresh_server(config=config).url
    with lightlink.connect(url, user="a", password="a", on_error=errors.append) as client:
        client.publish("Secret.Plans", 1)
        with pytest.raises(lightlink.PermissionDenied) as caught:
            client.flush()
        assert (caught.value.operation, caught.value.subject) == ("publish", "Secret.Plans")
        client.flush()
        eventually(lambda: errors)
    assert [str(error) for error in errors] == [str(caught.value)]


def test_a_call_that_may_not_be_published_is_told_at_once(fresh_server: StartServer) -> None:
    config = 'authorization { users = [{user: a, password: a, permissions: {publish: {deny: "$SRV.>"}}}] }'
    with lightlink.connect(fresh_server(config=config).url, user="a", password="a") as client:
        with pytest.raises(lightlink.PermissionDenied, match=r"publish to '\$SRV\.math\.add'"):
            client.call("math", "add", {}, timeout=30)
        with pytest.raises(lightlink.PermissionDenied):
            client.submit("math", "add", {}, timeout=30).result(timeout=30)


def test_an_identity_taken_away_ends_the_client(fresh_server: StartServer) -> None:
    server = fresh_server(config=USER)
    errors: list[Exception] = []
    client = lightlink.connect(
        server.url,
        user="me",
        password="hush-right",
        reconnect_wait=0.01,
        refusal_timeout=0,
        on_error=errors.append,
        timeout=20,
    )
    subscription = client.subscribe("x")
    server.kill()
    server.config = TOKEN
    server.start()
    with pytest.raises(AuthenticationError) as caught:
        client.call("math", "add", {})
    assert "hush" not in f"{caught.value!r}"
    eventually(lambda: client.status is lightlink.Status.CLOSED)
    eventually(lambda: errors)
    assert isinstance(errors[-1], AuthenticationError)
    assert list(subscription) == []
    client.close()


def test_the_helper_that_signs_is_the_real_thing() -> None:
    assert nkeys.from_seed(bytearray(user_key().seed)).public_key.startswith(b"U")
