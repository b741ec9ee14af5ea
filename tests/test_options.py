from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python

import lightlink
from lightlink.errors import InvalidOption
from lightlink.options import TLS, ConnectOptions, read_context
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

SECRETS = {"password": "hush-password", "token": "hush-token"}


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting of the machine counts; contexts are looked for in the test's own folder."""
    for name in ("LIGHTLINK_URL", "NATS_URL", "NATS_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"LIGHTLINK_TLS_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def write_context(folder: Path, name: str, **content: Any) -> None:
    contexts = folder / "nats" / "context"
    contexts.mkdir(parents=True, exist_ok=True)
    (contexts / f"{name}.json").write_text(json.dumps(content))


def select_context(folder: Path, name: str) -> None:
    (folder / "nats" / "context.txt").write_text(f"{name}\n")


def refusal(*args: Any, **settings: Any) -> str:
    with pytest.raises(InvalidOption) as caught:
        ConnectOptions.resolve(*args, **settings)
    return str(caught.value)


# Where settings come from ---------------------------------------------------------------------------------------------


def test_without_any_setting_the_local_server_is_meant() -> None:
    assert ConnectOptions.resolve().servers == ("nats://127.0.0.1:4222",)


def test_an_argument_wins_over_environment_and_context(config_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(config_home, "chosen", url="nats://context:1")
    select_context(config_home, "chosen")
    assert ConnectOptions.resolve().servers == ("nats://context:1",)
    monkeypatch.setenv("NATS_URL", "nats://nats-env:1")
    assert ConnectOptions.resolve().servers == ("nats://nats-env:1",)
    monkeypatch.setenv("LIGHTLINK_URL", "nats://lightlink-env:1")
    assert ConnectOptions.resolve().servers == ("nats://lightlink-env:1",)
    assert ConnectOptions.resolve("nats://argument:1").servers == ("nats://argument:1",)


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLINK_URL", "")
    monkeypatch.setenv("LIGHTLINK_TLS_CA", "")
    options = ConnectOptions.resolve()
    assert (options.servers, options.tls) == (("nats://127.0.0.1:4222",), None)


def test_a_context_that_is_named_wins_over_the_environment(config_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(config_home, "prod", url="nats://prod:1", token="t", ca="/prod.pem")
    monkeypatch.setenv("LIGHTLINK_URL", "nats://elsewhere:1")
    monkeypatch.setenv("LIGHTLINK_TLS_CA", "/elsewhere.pem")
    options = ConnectOptions.resolve(context="prod")
    assert (options.servers, options.token, options.tls) == (("nats://prod:1",), "t", TLS(ca="/prod.pem"))


def test_a_contexts_identity_is_not_shown_to_another_server(config_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(config_home, "chosen", url="nats://context:1", token="t")
    select_context(config_home, "chosen")
    assert ConnectOptions.resolve("nats://argument:1").token is None
    monkeypatch.setenv("NATS_URL", "nats://env:1")
    assert ConnectOptions.resolve().token is None


def test_the_variable_nats_context_selects_before_the_file_does(
    config_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_context(config_home, "a", url="nats://a:1")
    write_context(config_home, "b", url="nats://b:1")
    select_context(config_home, "a")
    assert ConnectOptions.resolve().servers == ("nats://a:1",)
    monkeypatch.setenv("NATS_CONTEXT", "b")
    assert ConnectOptions.resolve().servers == ("nats://b:1",)


def test_contexts_live_in_the_home_folder_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_context(tmp_path / ".config", "home", url="nats://home:1")
    assert ConnectOptions.resolve(context="home").servers == ("nats://home:1",)


def test_a_user_without_a_home_has_no_contexts_and_no_trouble() -> None:
    code = """
    import os
    for name in ("HOME", "XDG_CONFIG_HOME", "NATS_CONTEXT", "NATS_URL", "LIGHTLINK_URL"):
        os.environ.pop(name, None)
    from lightlink.options import ConnectOptions
    import pwd
    pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))  # as in a container with a made-up user id
    print(ConnectOptions.resolve().servers)
    """
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("('nats://127.0.0.1:4222',)\n", "")


def test_everything_a_context_can_say_is_taken(config_home: Path, tmp_path: Path) -> None:
    creds = tmp_path / "user.creds"
    creds.write_text("")
    write_context(config_home, "c", url="tls://a:1,tls://b:2", creds=str(creds), ca="/ca", cert="/cert", key="/key")
    options = ConnectOptions.resolve(context="c")
    assert options.servers == ("tls://a:1", "tls://b:2")
    assert options.creds == creds
    assert options.tls == TLS(ca="/ca", cert="/cert", key="/key")
    write_context(config_home, "d", user="u", password="p", inbox_prefix="_INBOX_u", description="x", color_scheme="")
    options = ConnectOptions.resolve(context="d")
    assert (options.user, options.password, options.inbox_prefix) == ("u", "p", "_INBOX_u")


def test_a_user_alone_in_a_context_is_a_token(config_home: Path) -> None:
    write_context(config_home, "c", user="the-token")
    options = ConnectOptions.resolve(context="c")
    assert (options.user, options.token) == (None, "the-token")


@pytest.mark.parametrize("field", ["nsc", "user_jwt"])
def test_an_unsupported_identity_in_a_context_is_not_left_out(field: str, config_home: Path) -> None:
    write_context(config_home, "c", **{field: "something"})
    assert f"{field} is not supported" in refusal(context="c")


@pytest.mark.parametrize("name", ["../secrets", "a/b", ".hidden"])
def test_a_contexts_name_is_not_a_path(name: str) -> None:
    assert "is not a name" in refusal(context=name)


def test_a_context_that_was_asked_for_must_be_there_and_readable(config_home: Path) -> None:
    assert "No such file" in refusal(context="missing")
    contexts = config_home / "nats" / "context"
    contexts.mkdir(parents=True)
    for content, problem in ((b"{", "is not JSON"), (b"[]", "does not hold a JSON object"), (b"\xff", "is not JSON")):
        (contexts / "bad.json").write_bytes(content)
        assert problem in refusal(context="bad")
    select_context(config_home, "missing")
    assert "No such file" in refusal()


def test_nothing_selected_means_no_context(config_home: Path) -> None:
    assert read_context() == {}
    (config_home / "nats").mkdir()
    select_context(config_home, "")
    assert read_context() == {}


@pytest.mark.parametrize("content", [{"url": 5}, {"user": 5, "password": "x"}, {"ca": 5}, {"creds": ["x"]}])
def test_a_context_with_wrong_values_is_an_invalid_option(content: dict[str, Any], config_home: Path) -> None:
    write_context(config_home, "c", **content)
    assert refusal(context="c")


def test_tls_files_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"LIGHTLINK_TLS_{name}", f"/{name}.pem")
    assert ConnectOptions.resolve().tls == TLS(ca="/CA.pem", cert="/CERT.pem", key="/KEY.pem")
    assert ConnectOptions.resolve(tls=TLS(ca="/mine.pem")).tls == TLS(ca="/mine.pem")


@pytest.mark.parametrize("mine", [{"token": "mine"}, {"user": "mine", "password": "mine"}])
def test_an_identity_argument_replaces_the_contexts_whole(mine: dict[str, str], config_home: Path) -> None:
    write_context(config_home, "c", url="nats://c:1", user="theirs", password="theirs")
    options = ConnectOptions.resolve(context="c", **mine)
    assert {name: getattr(options, name) for name in ("user", "password", "token") if getattr(options, name)} == mine


def test_an_identity_in_a_url_argument_replaces_the_contexts(config_home: Path) -> None:
    write_context(config_home, "c", token="theirs")
    options = ConnectOptions.resolve("nats://me:pw@h:1", context="c")
    assert (options.user, options.password, options.token) == ("me", "pw", None)


# URLs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("host", ("nats://host:4222",)),
        ("host:5222", ("nats://host:5222",)),
        ("nats://host", ("nats://host:4222",)),
        ("tls://host:1/", ("tls://host:1",)),
        ("nats://a:1,nats://b:2", ("nats://a:1", "nats://b:2")),
        (" nats://a:1 , , tls://b ", ("nats://a:1", "tls://b:4222")),
        (["nats://a:1", "b"], ("nats://a:1", "nats://b:4222")),
        (("nats://a:1",), ("nats://a:1",)),
        ("nats://127.0.0.1:1", ("nats://127.0.0.1:1",)),
        ("nats://[::1]:1", ("nats://[::1]:1",)),
    ],
)
def test_one_or_several_servers_can_be_named_in_many_ways(url: Any, servers: tuple[str, ...]) -> None:
    assert ConnectOptions.resolve(url).servers == servers


@pytest.mark.parametrize(
    "url",
    [
        "",
        ",",
        [],
        [""],
        5,
        [5],
        b"nats://a:1",
        "http://host:1",
        "ws://host:1",
        "nats://",
        "nats://host:port",
        "nats://host:99999",
        "nats://host/path",
        "nats://host?query",
        "nats://host#fragment",
        "nats://ho st:1",
        "nats://[::1",
        "nats://a:1\r\nPUB x 0",
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: Any) -> None:
    assert refusal(url).startswith("invalid url")


def test_an_empty_list_of_servers_does_not_mean_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://env:1")
    assert "at least one server" in refusal([])


def test_credentials_move_out_of_the_urls() -> None:
    options = ConnectOptions.resolve("nats://me:p%40ss@a:1,nats://me:p%40ss@b:2")
    assert options.servers == ("nats://a:1", "nats://b:2")
    assert (options.user, options.password) == ("me", "p@ss")
    options = ConnectOptions.resolve(["nats://the%2Dtoken@a:1", "nats://b:2"])
    assert (options.servers, options.token) == (("nats://a:1", "nats://b:2"), "the-token")


def test_an_argument_wins_over_credentials_in_the_url() -> None:
    options = ConnectOptions.resolve("nats://me:pw@a:1", user="other", password="secret")
    assert (options.user, options.password) == ("other", "secret")


def test_urls_that_name_different_users_are_refused() -> None:
    assert "different users" in refusal("nats://a:1@h:1,nats://b:2@h:2")


# Secrets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"user": "u", "password": SECRETS["password"]}, {"token": SECRETS["token"]}])
def test_a_secret_is_in_no_repr(settings: dict[str, Any]) -> None:
    assert "hush" not in repr(ConnectOptions(**settings))
    assert "hush" not in str(ConnectOptions(**settings))


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:hush@host:1",
        "nats://hush@host:1",
        "nats://u:hush@host:port",
        "http://u:hush@host:1",
        "nats://u:hush@host:1/path",
        "nats://u:1#hush@host:1",
        "nats://u:1?hush@host:1",
        "nats://u:hu/sh@host:1",
        "nats://u:hush@",
        "nats://u:hush@[::1",
        "nats://a:hush@h:1,nats://b:hush@h:1",
        ["nats://u:hush@host:1", 5],
    ],
)
def test_a_secret_in_a_url_is_in_no_repr_and_no_message(url: Any) -> None:
    try:
        shown = repr(ConnectOptions.resolve(url))
    except InvalidOption as exc:
        shown = f"{exc} {exc!r}"
    assert "hush" not in shown
    assert "hu/sh" not in shown


@pytest.mark.parametrize("name", ["password", "token"])
def test_a_secret_of_the_wrong_type_is_in_no_message(name: str) -> None:
    settings: dict[str, Any] = {"user": "u", name: ["hush"]}
    with pytest.raises(InvalidOption) as caught:
        ConnectOptions(**settings)
    assert "hush" not in str(caught.value)


# Values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "reconnect_wait", "ping_interval", "outbox_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "5", None, True])
def test_a_time_must_be_a_number_above_0(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=name):
        ConnectOptions(**{name: value})


@pytest.mark.parametrize("name", ["outbox_messages", "outbox_bytes", "workers"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "5", True])
def test_a_number_of_things_must_be_a_whole_number_above_0(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=name):
        ConnectOptions(**{name: value})


@pytest.mark.parametrize("value", ["", "a b", "a.*", "a.>", "a..b", ".a", "a.", "a\r\nPUB x 0", "x" * 257, 5])
def test_an_inbox_prefix_must_be_a_subject(value: Any) -> None:
    with pytest.raises(InvalidOption, match="inbox_prefix"):
        ConnectOptions(inbox_prefix=value)


@pytest.mark.parametrize("value", ["_INBOX", "_INBOX_me.x", "ünï"])
def test_an_inbox_prefix_may_be_any_subject(value: str) -> None:
    assert ConnectOptions(inbox_prefix=value).inbox_prefix == value


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"user": "u"}, "invalid user: is given without password"),
        ({"password": "p"}, "invalid password: is given without user"),
        ({"user": "u", "password": "p", "token": "t"}, "choose one way"),
        ({"token": "t", "nkey": "/dev/null"}, "choose one way"),
        ({"creds": "/no/such.creds"}, "no such file"),
        ({"nkey": "/no/such.nk"}, "no such file"),
        ({"creds": 5}, "is not a path"),
        ({"tls": "yes"}, "must be lightlink.TLS"),
        ({"on_error": "print"}, "is not callable"),
        ({"colour": "red"}, "no such setting"),
        ({"name": 5}, "invalid name 'int': must be a string"),
        ({"context": 5}, "invalid context 5: is not a name"),
        ({"name": None, "timeout": "x"}, "timeout"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(settings: dict[str, Any], problem: str) -> None:
    assert problem in refusal(**settings)


def test_tls_files_go_in_pairs() -> None:
    with pytest.raises(InvalidOption, match="cert is given without key"):
        TLS(cert="/c")
    with pytest.raises(InvalidOption, match="key is given without cert"):
        TLS(key="/k")
    with pytest.raises(InvalidOption, match="hostname"):
        TLS(hostname=5)  # type: ignore[arg-type]


def test_a_tilde_in_a_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TLS(ca="~/ca.pem").ca == tmp_path / "ca.pem"


@pytest.mark.parametrize(("servers", "tls", "wants"), [("a", None, False), ("tls://a", None, True), ("a", TLS(), True)])
def test_tls_is_wanted_when_it_is_named_anywhere(servers: str, tls: TLS | None, wants: bool) -> None:
    assert ConnectOptions.resolve([servers, "nats://b"], tls=tls).wants_tls is wants


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        ConnectOptions().timeout = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, -1, "1", None, float("nan"), float("inf"), True])
def test_a_timeout_given_to_a_method_is_checked_alike(value: Any) -> None:
    with pytest.raises(InvalidOption, match="timeout"):
        seconds("timeout", value)
    assert seconds("timeout", 1) == 1.0


@pytest.mark.parametrize("value", ["1", b"1", [], float("nan")])
def test_a_wait_for_what_is_no_time_is_refused(url: str, prefix: str, value: Any) -> None:
    with lightlink.connect(url) as client:
        reader, changes = client.subscribe(prefix), client.watch_state(prefix)
        waits: list[Callable[[Any], object]] = [
            client.close,
            reader.get,
            reader.stop,
            changes.get,
            changes.stop,
            lambda timeout: list(client.watch_state(prefix).current(timeout)),
        ]
        for wait in waits:
            with pytest.raises(InvalidOption, match="timeout"):
                wait(value)
        assert not reader.closed
        assert not changes.closed


@pytest.mark.parametrize("value", [1e300, 10**400])
def test_a_time_too_long_to_wait_for_is_for_ever(url: str, prefix: str, value: Any) -> None:
    client = lightlink.connect(url, timeout=value, connect_timeout=value, ping_interval=value)
    with lightlink.Service(prefix, client) as service:
        client.flush()
        client.flush(value)
        reader, changes = client.subscribe(prefix), client.watch_state(prefix, timeout=value)
        client.publish(prefix, 1)
        client.set_state(prefix, 2, timeout=value)
        assert (reader.get(value).data, changes.get(value).value) == (1, 2)
        reader.stop(value)
        service.stop(value)
    client.close(float("inf"))
    assert client.status is lightlink.Status.CLOSED


@pytest.mark.parametrize("field", ["socks_proxy", "user_seed", "user_jwt", "nsc"])
def test_what_a_context_asks_and_we_cannot_is_said(config_home: Path, field: str) -> None:
    write_context(config_home, "prod", url="nats://prod:1", **{field: "x"})
    with pytest.raises(InvalidOption, match=f"{field} is not supported"):
        ConnectOptions.resolve(context="prod")


@pytest.mark.parametrize(("field", "api"), [("jetstream_domain", "$JS.hub.API"), ("jetstream_api_prefix", "hub")])
def test_a_context_says_where_jetstream_is(config_home: Path, field: str, api: str) -> None:
    write_context(config_home, "prod", url="nats://prod:1", **{field: "hub"})
    assert ConnectOptions.resolve(context="prod").jetstream_api == api


@pytest.mark.parametrize("url", ["nats://app:Hunter2,x@h", "nats://app:Hunter2 x@h:1", "app:Hunter2,x@h"])
def test_a_password_with_a_comma_is_not_shown(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        ConnectOptions.resolve(url)
    assert "Hunter2" not in str(caught.value)


def test_the_port_0_is_refused() -> None:
    with pytest.raises(InvalidOption, match="port 0"):
        ConnectOptions.resolve("nats://127.0.0.1:0")
