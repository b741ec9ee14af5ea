"""``lightlink state``."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.cli import main
from lightlink.cli.state import state
from lightlink.cli.terminal.exits import Exit, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython

CLI = """
    import sys
    from lightlink.cli import main
    sys.exit(main())
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Command(Protocol):
    def __call__(self, name: str, /, *args: str, stdin: bytes = b"") -> Result: ...


@pytest.fixture
def command(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, url: str, prefix: str
) -> Iterator[Command]:
    """Run ``lightlink state`` in this process, on a bucket of the test's own."""
    before = signal.getsignal(signal.SIGTERM)

    def call(name: str, *args: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run(state, [name, f"--url={url}", f"--bucket={prefix}", *args])
        out, err = capsysbinary.readouterr()
        return Result(code, out.decode("latin-1"), err.decode())

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def bucket(url: str, prefix: str) -> Iterator[lightlink.StateBucket[Any]]:
    with lightlink.connect(url) as client:
        yield client.state(prefix, history=5)


def test_a_value_goes_in_and_comes_out(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    done = command("set", "a.b", '{"t": 21.5}')
    assert (done.code, done.out) == (0, "a.b is at revision 1\n")
    assert bucket.get("a.b") == {"t": 21.5}
    assert command("get", "a.b", "--json").out == '{"t":21.5}\n'
    assert json.loads(command("get", "a.b").out) == {"t": 21.5}
    (entry,) = command("get", "a.b", "--entry", "--json").data
    assert (entry["key"], entry["value"], entry["revision"]) == ("a.b", {"t": 21.5}, 1)


def test_a_value_is_read_from_standard_input(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    assert command("set", "key", "-", "--json", stdin=b"[1, 2]").data == [
        {"bucket": bucket.name, "key": "key", "revision": 1}
    ]
    assert bucket.get("key") == [1, 2]


def test_raw_values_need_not_be_json(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    assert command("set", "key", "{not json").code == Exit.USAGE
    assert command("set", "key", "-", "--raw", stdin=b"\xff{not json").code == 0
    assert command("get", "key", "--raw").out.encode("latin-1") == b"\xff{not json\n"
    refused = command("get", "key")
    assert refused.code == Exit.FAILED
    assert refused.err.startswith("error: cannot decode")


def test_writes_can_be_conditional(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    assert command("set", "key", "1", "--create").code == 0
    again = command("set", "key", "2", "--create")
    assert (again.code, again.err.count("\n")) == (Exit.FAILED, 1)
    assert "exists already" in again.err
    assert command("set", "key", "2", "--revision", "1").code == 0
    assert command("set", "key", "3", "--revision", "1").code == Exit.FAILED
    assert command("delete", "key", "--revision", "1").code == Exit.FAILED
    assert bucket.get("key") == 2
    assert command("set", "key", "3", "--create", "--revision", "1").code == Exit.USAGE


def test_a_ttl_is_given_on(command: Command, bucket: lightlink.StateBucket[Any], prefix: str) -> None:
    assert command("set", "key", "1", "--ttl", "1").code == 0
    eventually(lambda: command("get", "key").code == Exit.FAILED)
    assert command("set", "key", "1", "--ttl", "0.1").code == Exit.USAGE


def test_a_missing_key_is_an_error_in_one_line(command: Command, prefix: str) -> None:
    missing = command("get", "none")
    assert (missing.code, missing.out) == (Exit.FAILED, "")
    assert missing.err == f"error: no value for key 'none' in bucket '{prefix}'\n"


def test_a_bad_key_is_a_usage_error(command: Command) -> None:
    assert command("get", "a b").code == Exit.USAGE
    assert command("watch", "a..b").code == Exit.USAGE


def test_keys_are_listed_by_pattern(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    for key in ("a.1", "a.2", "b.1"):
        bucket.set(key, 1)
    bucket.delete("a.2")
    assert command("keys").out == "a.1\nb.1\n"
    assert command("keys", "a.*").out == "a.1\n"
    assert command("keys", "none.*").out == ""
    assert command("keys", "*.1", "--json").data == ["a.1", "b.1"]


def test_delete_removes_and_purge_forgets(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("key", 1)
    assert command("delete", "key").out == "key is deleted\n"
    assert command("history", "key").out == "key  1\nkey  (delete)\n"
    assert command("delete", "key", "--purge", "--json").data[0]["deleted"]
    changes = command("history", "key", "--json").data
    assert [(change["operation"], change["value"], change["revision"]) for change in changes] == [("purge", None, 3)]


def test_watch_current_prints_the_values_and_ends(command: Command, bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("a", 1)
    bucket.set("bad", b"{not json")
    bucket.set("b", {"x": 2})
    shown = command("watch", "--current")
    assert (shown.code, shown.out) == (0, 'a  1\nb  {"x":2}\n')
    assert shown.err.startswith("skipped: cannot decode")
    assert command("watch", "--current", "--raw").out == 'a  1\nbad  {not json\nb  {"x":2}\n'


def test_watch_prints_changes_as_they_come(
    python: StartPython, bucket: lightlink.StateBucket[Any], url: str, prefix: str
) -> None:
    bucket.set("key.a", 1)
    args = ("state", "watch", "key.*", f"--bucket={prefix}", f"--url={url}", "--json", "--count=3")
    with python(CLI, *args) as watching:
        assert json.loads("{" + watching.wait_line("{"))["value"] == 1
        bucket.set("key.b", "two")
        assert json.loads("{" + watching.wait_line("{"))["value"] == "two"
        bucket.delete("key.a")
        assert json.loads("{" + watching.wait_line("{"))["operation"] == "delete"
        assert watching.wait().returncode == 0


def test_watch_ends_with_ctrl_c(python: StartPython, bucket: lightlink.StateBucket[Any], url: str, prefix: str) -> None:
    bucket.set("key", 1)
    with python(CLI, "state", "watch", f"--bucket={prefix}", f"--url={url}") as watching:
        assert watching.wait_line("key") == "1"
        watching.signal_group(signal.SIGINT)
        ended = watching.wait()
        assert ended.returncode == Exit.INTERRUPTED
        assert "Traceback" not in ended.stderr


def test_watch_gives_up_in_time(command: Command) -> None:
    late = command("watch", "--timeout", "0.2")
    assert (late.code, late.out) == (Exit.TIMEOUT, "")
    assert "0 changes of > within 0.2 s" in late.err


def test_buckets_are_listed_and_removed(url: str, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with lightlink.connect(url) as client:
        client.state(prefix, history=2, ttl=60).set("a", 1)
    assert main(["state", "buckets", f"--url={url}"]) == 0
    assert f"{prefix}  1 messages" in capsys.readouterr().out
    assert main(["state", "destroy", prefix, "--yes", f"--url={url}"]) == 0
    assert main(["state", "destroy", prefix, "--yes", f"--url={url}"]) == 1
    assert f"there is no bucket '{prefix}'" in capsys.readouterr().err
