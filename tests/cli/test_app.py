from __future__ import annotations

import io
import json
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.cli import main
from lightlink.cli.app import COMMANDS
from lightlink.cli.terminal.exits import Exit, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython, StartServer
    from helpers.process import PythonProcess
    from helpers.raw import RawPeer

NOBODY = "--url=nats://127.0.0.1:1"
CLI = """
    import sys
    from lightlink.cli import main
    sys.exit(main())
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Cli(Protocol):
    def __call__(self, *args: str, stdin: bytes = b"") -> Result: ...


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Run the command in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*args: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(args)
        return Result(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    """A service whose name is the test's prefix."""
    service = lightlink.Service(prefix, url)

    @service.rpc
    def add(a: int, b: int = 0) -> int:
        return a + b

    @service.rpc
    def user(name: str) -> dict[str, object]:
        return {"name": name, "tags": ["a", "b"]}

    @service.rpc
    def fail() -> None:
        raise RuntimeError("first line\nsecond line")

    with service:
        yield service


def one_line(text: str) -> str:
    """Return what follows ``error: `` in a text that is that one line and no more."""
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text.removeprefix("error: ").strip()


def listening(python: StartPython, url: str, subject: str, *args: str) -> PythonProcess:
    """Start ``lightlink sub`` in a process of its own; return when the server knows its subscription."""
    process = python(CLI, "sub", subject, f"--url={url}", *args)
    eventually(lambda: f"listening on {subject}\n" in process.stderr, timeout=30)
    return process


# call


@pytest.mark.usefixtures("service")
def test_call_prints_the_result(cli: Cli, url: str, prefix: str) -> None:
    assert cli("call", prefix, "add", '{"a": 1, "b": 2}', f"--url={url}") == (0, "3\n", "")


@pytest.mark.usefixtures("service")
def test_call_prints_for_a_reader_or_on_one_line_for_a_program(cli: Cli, url: str, prefix: str) -> None:
    args = ("call", prefix, "user", '{"name": "Ada"}', f"--url={url}")
    wanted = {"name": "Ada", "tags": ["a", "b"]}
    laid_out = cli(*args).out
    assert laid_out.count("\n") > 1
    assert json.loads(laid_out) == wanted
    on_one_line = cli(*args, "--json").out
    assert on_one_line.count("\n") == 1
    assert json.loads(on_one_line) == wanted


@pytest.mark.usefixtures("service")
def test_call_reads_its_arguments_from_standard_input(cli: Cli, url: str, prefix: str) -> None:
    result = cli("call", prefix, "add", "-", f"--url={url}", stdin=b'{"a": 20, "b": 22}')
    assert result == (0, "42\n", "")


@pytest.mark.parametrize("text", ["{", "[1, 2]", "3", "", "{'a': 1}", '{"a": NaN}'])
def test_arguments_that_are_no_json_object_are_refused_first(cli: Cli, text: str) -> None:
    result = cli("call", "math", "add", text, NOBODY)
    assert result.code == Exit.USAGE
    assert "JSON" in one_line(result.err)


def test_bad_json_on_standard_input_is_refused(cli: Cli) -> None:
    result = cli("call", "math", "add", "-", NOBODY, stdin=b"\xff\xfe")
    assert result.code == Exit.USAGE
    assert "JSON" in one_line(result.err)


def test_a_service_that_nobody_serves_is_told_from_a_timeout(cli: Cli, url: str, prefix: str) -> None:
    result = cli("call", prefix, "add", f"--url={url}", "--timeout=20")
    assert result.code == Exit.NOT_NOW
    assert prefix in one_line(result.err)


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("method", "args", "words"),
    [
        ("subtract", "{}", "subtract"),
        ("add", '{"a": "one"}', "'a'"),
        ("add", "{}", "'a'"),
        ("add", '{"a": 1, "c": 2}', "'c'"),
        ("fail", "{}", "RuntimeError: first line second line"),
    ],
)
def test_an_error_of_the_service_is_one_line_and_exit_code_1(
    cli: Cli, url: str, prefix: str, method: str, args: str, words: str
) -> None:
    result = cli("call", prefix, method, args, f"--url={url}")
    assert result.code == Exit.FAILED
    assert result.out == ""
    # The service of this test lives in this process, and logs there.
    assert words in one_line(result.err.splitlines(keepends=True)[-1])


def test_no_answer_in_time_is_exit_code_4(cli: Cli, url: str, prefix: str) -> None:
    answered = threading.Event()
    service = lightlink.Service(prefix, url)

    @service.rpc
    def wait() -> None:
        answered.wait(60)

    with service:
        result = cli("call", prefix, "wait", f"--url={url}", "--timeout=0.2")
        answered.set()
    assert result.code == Exit.TIMEOUT
    assert "0.2 s" in one_line(result.err)


@pytest.mark.parametrize("args", [("call", "a", "b"), ("pub", "a", "1"), ("sub", "a")])
def test_no_server_is_exit_code_3_and_names_the_server(python: StartPython, args: tuple[str, ...]) -> None:
    result = python(CLI, *args, NOBODY).wait()
    assert result.returncode == Exit.NOT_CONNECTED
    assert "127.0.0.1:1" in one_line(result.stderr)


def test_a_name_that_nats_refuses_is_a_usage_error(cli: Cli, url: str) -> None:
    result = cli("pub", "two words", "1", f"--url={url}")
    assert result.code == Exit.USAGE
    assert "two words" in one_line(result.err)


# pub


def test_pub_sends_the_json_as_it_was_written(cli: Cli, url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, client.subscribe(prefix, raw=True) as events:
        client.flush()
        text = '{"price": 1.10,  "id": 12345678901234567890123}'
        assert cli("pub", prefix, text, f"--url={url}").code == Exit.DONE
        assert events.get(timeout=30).data == text.encode()


def test_pub_reads_standard_input_and_reports_as_json(cli: Cli, url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, client.subscribe(prefix) as events:
        client.flush()
        result = cli("pub", prefix, "-", "--json", f"--url={url}", stdin=b'{"n": 1}')
        assert json.loads(result.out) == {"subject": prefix, "bytes": 8}
        assert events.get(timeout=30).data == {"n": 1}


def test_pub_refuses_what_is_not_json_unless_told_that_it_is_raw(cli: Cli, url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, client.subscribe(prefix, raw=True) as events:
        client.flush()
        refused = cli("pub", prefix, "hello", f"--url={url}")
        assert refused.code == Exit.USAGE
        assert "JSON" in one_line(refused.err)
        assert cli("pub", prefix, "hello", "--raw", f"--url={url}").code == Exit.DONE
        assert events.get(timeout=30).data == b"hello"


# sub


def test_sub_prints_each_message_and_ends_after_count(python: StartPython, url: str, prefix: str) -> None:
    process = listening(python, url, f"{prefix}.*", "--count=2")
    with lightlink.connect(url) as client:
        client.publish(f"{prefix}.a", {"n": 1})
        client.publish(f"{prefix}.b", [2])
    result = process.wait()
    assert result.returncode == Exit.DONE
    assert result.stdout == f'{prefix}.a  {{"n":1}}\n{prefix}.b  [2]\n'


def test_sub_as_json_tells_everything_of_a_message(python: StartPython, url: str, prefix: str, peer: RawPeer) -> None:
    process = listening(python, url, prefix, "--count=1", "--json")
    peer.run(peer.nc.publish(prefix, b'{"n":1}', reply="answer.here", headers={"Kind": "test"}))
    peer.run(peer.nc.flush())
    assert json.loads(process.wait().stdout) == {
        "subject": prefix,
        "data": {"n": 1},
        "headers": {"Kind": "test"},
        "reply": "answer.here",
    }


def test_sub_skips_what_is_not_json_and_says_so(python: StartPython, url: str, prefix: str) -> None:
    process = listening(python, url, prefix, "--count=2")
    with lightlink.connect(url) as client:
        client.publish(prefix, b"not json")
        client.publish(prefix, 1)
    result = process.wait()
    assert result.stdout == f"{prefix}  1\n"
    assert "skipped: " in result.stderr
    assert "not json" in result.stderr


def test_sub_raw_prints_payloads_as_they_are(python: StartPython, url: str, prefix: str) -> None:
    process = listening(python, url, prefix, "--count=1", "--raw")
    with lightlink.connect(url) as client:
        client.publish(prefix, b"not json")
    assert process.wait().stdout == "not json\n"


def test_sub_gives_up_after_its_timeout(cli: Cli, url: str, prefix: str) -> None:
    result = cli("sub", prefix, f"--url={url}", "--timeout=0.1")
    assert result.code == Exit.TIMEOUT
    assert "0.1 s" in result.err


def test_sub_shares_the_messages_of_a_queue_group(python: StartPython, url: str, prefix: str) -> None:
    received: queue.Queue[object] = queue.Queue()
    with lightlink.connect(url) as client:
        client.subscribe(prefix, received.put, queue="group")
        process = listening(python, url, prefix, "--count=1", "--queue=group")
        sent = 0
        while process.stdout == "":
            client.publish(prefix, sent)
            sent += 1
            client.flush()
        process.wait()
        # Now there is one member left, and it gets messages in order: what it is to get comes before this one.
        client.publish(prefix, "last")
        mine = list(iter(lambda: received.get(timeout=30), "last"))
    theirs = int(process.stdout.split()[-1])
    assert theirs not in mine


def test_ctrl_c_ends_sub_with_130_and_no_traceback(python: StartPython, url: str, prefix: str) -> None:
    process = listening(python, url, prefix)
    process.signal_group(signal.SIGINT)
    result = process.wait()
    assert result.returncode == Exit.INTERRUPTED
    assert "Traceback" not in result.stderr


# server


def test_server_prints_its_address_and_stops_when_asked(python: StartPython) -> None:
    process = python(CLI, "server", "--port=0", "--json")
    announced = json.loads(process.wait_line(""))
    with lightlink.connect(announced["url"]) as client:
        client.flush()
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == Exit.DONE
    with pytest.raises(lightlink.ConnectError):
        lightlink.connect(announced["url"])


def test_ctrl_c_stops_the_server_with_exit_code_0(python: StartPython) -> None:
    process = python(CLI, "server", "--port=0")
    process.wait_line("nats-server at ")
    process.signal_group(signal.SIGINT)
    result = process.wait()
    assert result.returncode == Exit.DONE
    assert result.stderr == ""


def test_a_server_that_dies_is_an_error(python: StartPython) -> None:
    process = python(CLI, "server", "--port=0", "--json")
    announced = json.loads(process.wait_line(""))
    os.kill(announced["pid"], signal.SIGKILL)
    result = process.wait()
    assert result.returncode == Exit.FAILED
    assert announced["url"] in one_line(result.stderr)


def test_server_runs_a_cluster_and_says_which_of_it_has_ended(python: StartPython) -> None:
    process = python(CLI, "server", "--cluster=3", "--port=0", "--json")
    announced = json.loads(process.wait_line("", timeout=60))
    first, *others = announced["nodes"]
    with lightlink.connect(announced["urls"]) as client:
        client.state("facts", replicas=3).set("fact", 1, timeout=30)
        os.kill(first["pid"], signal.SIGKILL)
        assert eventually(lambda: f"{first['name']} at {first['url']} has ended" in process.stderr)
        assert client.state("facts").get("fact", timeout=30) == 1
    process.signal(signal.SIGTERM)
    assert process.wait(60).returncode == Exit.DONE
    for node in others:
        with pytest.raises(lightlink.ConnectError):
            lightlink.connect(node["url"])


def test_a_cluster_that_is_killed_is_an_error(python: StartPython) -> None:
    process = python(CLI, "server", "--cluster=2", "--port=0")
    assert process.wait_line("a cluster at ", timeout=60).count("nats://") == 2
    lines = [process.wait_line(f"  node-{number}: nats://") for number in (1, 2)]
    for line in lines:
        os.kill(int(line.rpartition("process ")[2].rstrip(")\n")), signal.SIGKILL)
    result = process.wait()
    assert result.returncode == Exit.FAILED
    assert "all servers of the cluster" in result.stderr


@pytest.mark.parametrize("option", ["--tls=.", "--store-dir=data", "--no-jetstream", "--host=::1"])
def test_a_cluster_takes_no_option_that_it_would_ignore(cli: Cli, option: str) -> None:
    result = cli("server", "--cluster=3", option)
    assert result.code == Exit.USAGE
    assert "--cluster and --" in result.err


def test_server_with_tls_lets_in_whom_it_knows(python: StartPython, cli: Cli, tmp_path: Path) -> None:
    assert cli("certs", "init", str(tmp_path)).code == Exit.DONE
    assert cli("certs", "issue", str(tmp_path), "web").code == Exit.DONE
    process = python(CLI, "server", "--port=0", "--json", f"--tls={tmp_path}")
    url = json.loads(process.wait_line(""))["url"]
    assert url.startswith("tls://")
    authority = f"--tls-ca={tmp_path / 'ca.pem'}"
    ours = (f"--tls-cert={tmp_path / 'web.pem'}", f"--tls-key={tmp_path / 'web.key'}")
    assert cli("pub", "events.new", "1", f"--url={url}", authority, *ours).code == Exit.DONE
    assert cli("pub", "other", "1", f"--url={url}", authority, *ours).code == Exit.FAILED
    assert cli("pub", "events.new", "1", f"--url={url}", authority).code == Exit.NOT_CONNECTED


def test_server_with_tls_says_who_may_connect_and_how(
    python: StartPython, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "certs"
    assert cli("certs", "init", str(folder)).code == Exit.DONE
    assert cli("certs", "issue", str(folder), "ops", "--role=admin").code == Exit.DONE
    assert cli("certs", "issue", str(folder), "web").code == Exit.DONE
    process = python(CLI, "server", "--port=0", f"--tls={folder}")
    url = process.wait_line("nats-server at ").split()[0]
    assert process.wait_line("known to it: ") == "ops (admin), web (client)"
    options = process.wait_line("connect with: ").split()
    assert options[:2] == ["--url", url]
    assert cli("pub", "anything", "1", *options).code == Exit.DONE
    # The environment may name the files, and options what is missing there.
    monkeypatch.setenv("LIGHTLINK_TLS_CA", str(folder / "ca.pem"))
    assert cli("pub", "anything", "1", *options[:2], *options[4:]).code == Exit.DONE
    monkeypatch.setenv("LIGHTLINK_TLS_CERT", str(folder / "web.pem"))
    monkeypatch.setenv("LIGHTLINK_TLS_KEY", str(folder / "web.key"))
    assert cli("pub", "events.a", "1", f"--url={url}").code == Exit.DONE
    refused = cli("pub", "anything", "1", f"--url={url}")
    assert refused.code == Exit.FAILED
    assert "may not publish to 'anything'" in refused.err


def test_server_with_tls_and_nobody_to_connect_says_so(python: StartPython, cli: Cli, tmp_path: Path) -> None:
    assert cli("certs", "init", str(tmp_path)).code == Exit.DONE
    process = python(CLI, "server", "--port=0", f"--tls={tmp_path}")
    assert f"lightlink certs issue {tmp_path} NAME" in process.wait_line("nobody may connect yet")


def test_server_with_tls_and_no_certificates_names_the_folder(cli: Cli, tmp_path: Path) -> None:
    result = cli("server", f"--tls={tmp_path}")
    assert result.code == Exit.USAGE
    assert str(tmp_path) in one_line(result.err)


@pytest.mark.parametrize("command", [("call", "math", "add"), ("pub", "a", "1"), ("sub", "a")])
def test_a_key_that_is_not_fit_is_one_line_that_names_it(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert cli("certs", "init", str(tmp_path)).code == Exit.DONE
    assert cli("certs", "issue", str(tmp_path), "web").code == Exit.DONE
    key = tmp_path / "web.key"
    key.chmod(0o644)
    files = (f"--tls-ca={tmp_path / 'ca.pem'}", f"--tls-cert={tmp_path / 'web.pem'}", f"--tls-key={key}")
    result = cli(*command, NOBODY, *files)
    assert result.code == Exit.NOT_CONNECTED
    assert str(key) in one_line(result.err)


def test_a_configuration_and_tls_do_not_go_together(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("")
    assert cli("server", f"--tls={tmp_path}", f"--config={config}").code == Exit.USAGE


def test_a_missing_nats_server_is_one_line(python: StartPython) -> None:
    result = python(CLI, "server", env={"LIGHTLINK_NATS_SERVER": "/nowhere/nats-server"}).wait()
    assert result.returncode == Exit.FAILED
    assert "/nowhere/nats-server" in one_line(result.stderr)


def test_a_port_in_use_is_one_line(cli: Cli, fresh_server: StartServer) -> None:
    taken = fresh_server().port
    result = cli("server", f"--port={taken}")
    assert result.code == Exit.FAILED
    assert "address already in use" in one_line(result.err)


# Who we are


def test_user_and_password_are_used(cli: Cli, fresh_server: StartServer) -> None:
    server = fresh_server(config='authorization { user: "ada", password: "secret" }')
    good = cli("pub", "a", "1", f"--url={server.url}", "--user=ada", "--password=secret")
    assert good.code == Exit.DONE
    bad = cli("pub", "a", "1", f"--url={server.url}", "--user=ada", "--password=wrong")
    assert bad.code == Exit.NOT_CONNECTED
    assert "wrong" not in bad.err


def test_a_token_is_used(cli: Cli, fresh_server: StartServer) -> None:
    server = fresh_server(config='authorization { token: "secret" }')
    assert cli("pub", "a", "1", f"--url={server.url}", "--token=secret").code == Exit.DONE
    assert cli("pub", "a", "1", f"--url={server.url}").code == Exit.NOT_CONNECTED


def test_the_environment_names_the_server(cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLINK_URL", url)
    assert cli("pub", "a", "1").code == Exit.DONE


def test_a_certificate_without_its_key_is_a_usage_error(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    certificate = tmp_path_factory.mktemp("tls") / "cert.pem"
    certificate.write_text("")
    result = cli("pub", "a", "1", NOBODY, f"--tls-cert={certificate}")
    assert result.code == Exit.USAGE
    assert "key" in one_line(result.err)


# The command as a whole


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(cli: Cli, name: str) -> None:
    result = cli(name, "--help")
    assert result.code == Exit.DONE
    assert f"lightlink {name}" in result.out


@pytest.mark.parametrize("name", ["run", "call", "pub", "sub"])
def test_every_command_that_connects_has_the_options_for_it(cli: Cli, name: str) -> None:
    text = cli(name, "--help").out
    for option in (
        "--url",
        "--creds",
        "--nkey",
        "--user",
        "--password",
        "--token",
        "--tls-ca",
        "--tls-cert",
        "--tls-key",
    ):
        assert option in text


def test_version_names_the_version(cli: Cli) -> None:
    assert cli("--version").out.startswith("lightlink 0.")


@pytest.mark.parametrize(
    "args", [("nothing",), ("call",), ("call", "a", "b", "--timeout=0"), ("sub", "a", "--count=x")]
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(cli: Cli, args: tuple[str, ...]) -> None:
    result = cli(*args)
    assert result.code == Exit.USAGE
    assert "--help" in one_line(result.err)


def test_without_arguments_the_help_is_shown(cli: Cli) -> None:
    result = cli()
    assert result.code == Exit.USAGE
    assert "Usage: lightlink" in result.out + result.err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_package_is_one_line_that_names_the_extra(python: StartPython, missing: str) -> None:
    result = python(
        f"import sys; sys.modules[{missing!r}] = None\n" + "from lightlink.cli import main; sys.exit(main())"
    ).wait()
    assert result.returncode == Exit.FAILED
    assert "lightlink[cli]" in one_line(result.stderr)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lightlink.ConnectError([], 1.0), Exit.NOT_CONNECTED),
        (lightlink.AuthenticationError([], 1.0), Exit.NOT_CONNECTED),
        (lightlink.CallTimeout("s", "m", 1.0), Exit.TIMEOUT),
        (lightlink.FlushTimeout(1.0, "connected"), Exit.TIMEOUT),
        (lightlink.ServiceUnavailable("s", "m"), Exit.NOT_NOW),
        (lightlink.ServiceBusy("s", "m", "busy", "busy"), Exit.NOT_NOW),
        (lightlink.DeadlineExceeded("s", "m", "deadline_exceeded", "late"), Exit.NOT_NOW),
        (lightlink.HandlerError("s", "m", "handler_error", "oops"), Exit.FAILED),
        (lightlink.InvalidName("subject", "a b", "no"), Exit.USAGE),
        (lightlink.PayloadTooLarge("s", 2, 1), Exit.FAILED),
    ],
)
def test_the_exit_code_says_what_may_have_happened(error: Exception, code: Exit) -> None:
    assert exit_code(error) == code


# demo


def test_the_demo_shows_each_chapter_and_ends_well(python: StartPython) -> None:
    result = python(CLI, "demo").wait()
    assert result.returncode == Exit.DONE
    assert result.stderr == ""
    for words in (
        "three apples: 1.5",
        "InvalidArguments: ",
        "ServiceUnavailable: ",
        "orders.shipped",
        "it has ended as rolled_back",
    ):
        assert f"> {words}" in result.stdout
    # It shows the code that it ran.
    assert 'client.call("shop", "total", {"item": "apple", "count": 3}, timeout=5)' in result.stdout


def test_the_demo_over_tls_shows_the_same_and_who_is_kept_out(python: StartPython) -> None:
    result = python(CLI, "demo", "--tls", env={"LIGHTLINK_TLS_CA": "/nowhere"}).wait()
    assert result.returncode == Exit.DONE
    assert result.stderr == ""
    assert "tls://127.0.0.1:" in result.stdout
    for words in (
        "three apples: 1.5",
        "orders.shipped",
        "the guest asks for a price: 0.5",
        "PermissionDenied: permission denied: 'guest' may not subscribe to 'orders.*'",
        "AuthenticationError: could not authenticate with NATS",
        "the result: updated - attempts: 1",
        "the gateway saw it move: True",
        "the agent noticed: nothing",
    ):
        assert f"> {words}" in result.stdout


def test_no_standard_input_is_a_wrong_command_line(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "stdin", None)  # what `<&-` does
    for arguments in (["pub", "x", "-"], ["call", "math", "add", "-"], ["file", "upload", "-"]):
        assert main([*arguments, f"--url={url}"]) == Exit.USAGE
        assert capsys.readouterr().err.startswith("error: there is no standard input")
    signal.signal(signal.SIGTERM, before)
