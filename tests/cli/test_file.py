"""``lightlink file``."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from helpers.stored import fetched, messages_in
from helpers.waiting import eventually

import lightlink
from lightlink.cli.file import file
from lightlink.cli.terminal.exits import Exit, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython, StartServer
    from helpers.raw import RawPeer


class Result(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def data(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Command(Protocol):
    def __call__(self, name: str, *args: object, stdin: bytes = b"") -> Result: ...


@pytest.fixture
def command(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, url: str, prefix: str
) -> Iterator[Command]:
    """Run ``lightlink file`` in this process, on a store of the test's own."""
    before = signal.getsignal(signal.SIGTERM)

    def call(name: str, *args: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        bucket = [] if name == "send" else [f"--bucket={prefix}"]
        code = run(file, [name, f"--url={url}", *bucket, *map(str, args)])
        out, err = capsysbinary.readouterr()
        return Result(code, out, err.decode())

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def store(url: str, prefix: str) -> Iterator[lightlink.FileStore]:
    with lightlink.connect(url) as client:
        yield client.file_store(prefix)


def test_a_file_goes_up_and_comes_down(command: Command, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "data.bin").write_bytes(content)
    uploaded = command("upload", tmp_path / "data.bin")
    assert uploaded.code == Exit.DONE, uploaded.err
    file_id, name, size = uploaded.out.decode().split(maxsplit=2)
    assert (name, size.strip()) == ("data.bin", "300.0 kB")
    downloaded = command("download", file_id, tmp_path / "copy.bin")
    assert downloaded.out.decode() == f"{tmp_path / 'copy.bin'}  300.0 kB\n"
    assert (tmp_path / "copy.bin").read_bytes() == content


def test_what_a_file_is_goes_with_it(command: Command, store: lightlink.FileStore, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"content")
    args = ("--name", "report.csv", "--type", "text/plain", "--metadata", "site=berlin", "--metadata", "a=b=c")
    [told] = command("upload", tmp_path / "data.bin", *args, "--json").data
    info = store.info(told["id"])
    assert (info.name, info.content_type, info.metadata) == ("report.csv", "text/plain", {"site": "berlin", "a": "b=c"})
    assert told["digest"] == info.digest
    assert told["metadata"] == info.metadata


def test_standard_input_and_output_are_files_too(command: Command, store: lightlink.FileStore) -> None:
    [told] = command("upload", "-", "--name", "typed", "--json", stdin=b"\x00typed\xff").data
    assert fetched(store, told["id"]) == b"\x00typed\xff"
    assert command("download", told["id"], "-").out == b"\x00typed\xff"


@pytest.mark.parametrize(
    ("name", "saved"),
    [("report.csv", "report.csv"), ("../../etc/passwd", "passwd"), ("a\\b\\c.txt", "c.txt"), ("..", None), ("/", None)],
)
def test_a_download_into_a_directory_stays_there(
    command: Command, store: lightlink.FileStore, tmp_path: Path, name: str, saved: str | None
) -> None:
    info = store.upload(io.BytesIO(b"content"), name=name)
    folder = tmp_path / "folder"
    folder.mkdir()
    result = command("download", info.id, folder)
    assert result.code == Exit.DONE, result.err
    assert [path.name for path in folder.iterdir()] == [saved or info.id]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_download_replaces_nothing_unless_it_is_told_to(
    command: Command, store: lightlink.FileStore, tmp_path: Path
) -> None:
    info = store.upload(io.BytesIO(b"new"))
    target = tmp_path / "target"
    target.write_bytes(b"old")
    refused = command("download", info.id, target)
    assert refused.code == Exit.FAILED
    assert refused.err == f"error: {target} is there already; --force replaces it\n"
    assert target.read_bytes() == b"old"
    [told] = command("download", info.id, target, "--force", "--json").data
    assert (told["path"], told["size"]) == (str(target), 3)
    assert target.read_bytes() == b"new"


def test_files_are_listed_in_a_table_or_as_json(command: Command, store: lightlink.FileStore) -> None:
    assert command("list").out == b"no files\n"
    first = store.upload(io.BytesIO(b"first"), name="first.txt")
    second = store.upload(io.BytesIO(bytes(2_500_000)), name="evil\x1b[2J\nname [red]")
    header, *rows = command("list").out.decode().splitlines()
    assert header.split() == ["ID", "STORED", "SIZE", "NAME"]
    assert [row.split()[0] for row in rows] == [second.id, first.id]
    assert rows[0].endswith(r"2.5 MB  evil\x1b[2J\x0aname [red]")
    assert [told["id"] for told in command("list", "--json").data] == [second.id, first.id]


def test_a_deleted_file_is_gone(command: Command, store: lightlink.FileStore) -> None:
    ids = [store.upload(io.BytesIO(b"content")).id for _ in range(2)]
    assert command("delete", *ids).out.decode() == "".join(f"{file_id} is deleted\n" for file_id in ids)
    assert store.files() == []
    again = command("delete", ids[0])
    assert again.code == Exit.FAILED
    assert again.err.startswith(f"error: no file '{ids[0]}' in file store")


def test_a_file_is_sent_to_a_service(command: Command, url: str, prefix: str, tmp_path: Path) -> None:
    received: list[lightlink.FileInfo] = []
    service = lightlink.Service(prefix, url)
    service.on_file(received.append)
    (tmp_path / "data.csv").write_bytes(b"a;b")
    with service:
        sent = command("send", tmp_path / "data.csv", "--to", prefix)
        assert sent.code == Exit.DONE, sent.err
        [info] = eventually(lambda: received)
    assert (info.name, info.sender) == ("data.csv", "lightlink-cli")
    assert sent.out.decode().split() == [info.id, "data.csv", "3", "bytes"]


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (("upload", "absent.bin"), Exit.USAGE, "'absent.bin' does not exist"),
        (("upload", "/dev/null", "--metadata", "novalue"), Exit.USAGE, "KEY=VALUE"),
        (("send", "/dev/null", "--to", "a.b"), Exit.USAGE, "service name"),
        (("download", "some-id"), Exit.FAILED, "no file 'some-id'"),
        (("delete",), Exit.USAGE, "ID"),
        (("list", "--bucket=a.b"), Exit.USAGE, "bucket name"),
    ],
)
def test_mistakes_are_told_in_one_line(command: Command, args: tuple[str, ...], code: Exit, problem: str) -> None:
    result = command(*args)
    assert result.code == code
    assert result.err.startswith("error: ")
    assert problem in result.err
    assert result.err.count("\n") == 1


def test_what_the_disk_complains_of_is_told_in_one_line(
    command: Command, store: lightlink.FileStore, tmp_path: Path
) -> None:
    info = store.upload(io.BytesIO(b"content"))
    result = command("download", info.id, tmp_path / "absent" / "file")
    assert result.code == Exit.FAILED
    assert result.err == f"error: [Errno 2] No such file or directory: '{tmp_path / 'absent'}'\n"


def test_a_terminal_sees_how_far_it_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, store: lightlink.FileStore, tmp_path: Path
) -> None:
    info = store.upload(io.BytesIO(bytes(5_000_000)), name="zeros.bin")
    assert command("download", info.id, tmp_path / "silent").err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    shown = command("download", info.id, tmp_path / "shown").err
    assert "download" in shown
    assert "100%" in shown
    assert "5.0/5.0 MB" in shown
    assert "B/s" in shown  # how fast depends on the machine
    assert command("download", info.id, tmp_path / "quiet", "--quiet").err == ""


def test_a_stalled_transfer_has_the_exit_code_of_a_timeout(fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url) as client:
        client.subscribe("$O.>", lambda _: server.kill(), raw=True)
        assert run(file, ["upload", f"--url={server.url}", "/dev/zero", "--stall-timeout=0.5"]) == Exit.TIMEOUT


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, 143)])
def test_an_interrupted_upload_leaves_nothing(
    python: StartPython, url: str, prefix: str, peer: RawPeer, sign: signal.Signals, code: int
) -> None:
    process = python(
        f"import sys; sys.argv[1:] = ['file', 'upload', '/dev/zero', '--url={url}', '--bucket={prefix}']\n"
        "from lightlink.cli import main\nsys.exit(main())\n"
    )
    with lightlink.connect(url) as client:
        watched = client.subscribe(f"$O.{prefix}.C.>", raw=True)
        client.flush()
        watched.get(timeout=30)
        process.signal(sign)
        finished = process.wait()
    assert finished.returncode == code
    assert "Traceback" not in finished.stderr
    assert messages_in(peer, prefix) == 0


def test_what_a_killed_upload_has_left_is_swept_away(command: Command, store: lightlink.FileStore, url: str) -> None:
    kept = store.upload(io.BytesIO(b"content"))
    with lightlink.connect(url) as client:
        client.publish(f"$O.{store.bucket}.C.left", b"half a file")
        client.flush()
    assert command("sweep").out == b"0 chunks removed\n"  # it may still go on
    assert eventually(lambda: command("sweep", "--older-than=1", "--json").data[0]["chunks"], timeout=30) == 1
    assert [info.id for info in store.files()] == [kept.id]


def test_a_sweep_leaves_uploads_a_second_at_least(command: Command) -> None:
    refused = command("sweep", "--older-than=0.5")
    assert refused.code == Exit.USAGE
    assert "--older-than" in refused.err
