"""Run a program with limits on its time and on its output, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from lightlink.commands.agent.handlers import Rejected
from lightlink.commands.watchdog import MARK, watchdog
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import join_thread, start_thread
from lightlink.protocol import codec
from lightlink.protocol.ids import new_id
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightlink.concurrency.threads import Event

_CHUNK = 65536
# What is being started while it is looked for is found in another round.
_STRAY_ROUNDS = 5
# How long a program that is asked to end has for it before it is killed.
_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.02
# A program may leave children behind that hold its output open for ever.
_OUTPUT_SECONDS = 1.0
# What a result holds beside the outputs.
_REST_OF_RESULT = 2048


@attrs.frozen
class Limits:
    """How long a program may run, in seconds, and how many bytes of each of its outputs are kept.

    ``room`` is how many bytes both may take up in a result, where some bytes take up six.
    """

    timeout: float
    max_output: int
    room: int = 1 << 40

    @classmethod
    def checked(cls, timeout: float, max_output: int) -> Limits:
        """Return limits; raises InvalidOption."""
        integer("max_output", max_output)
        return cls(seconds("timeout", timeout), max_output)

    def within(self, timeout: float | None, max_payload: int) -> Limits:
        """Return these limits with a time of its own, if one is given, and room for a result of so many bytes."""
        room = max_payload - min(_REST_OF_RESULT, max_payload // 2)
        return attrs.evolve(self, timeout=self.timeout if timeout is None else timeout, room=room)


@attrs.frozen(kw_only=True)
class Finished:
    """How a program ended; ``duration`` in seconds."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool
    timed_out: bool
    cancelled: bool
    duration: float

    def facts(self) -> dict[str, Any]:
        """Return what a result tells."""
        return {name: value for name, value in attrs.asdict(self).items() if name != "cancelled"}


class _Output:
    """Reads a stream, on a thread of its own, to its end or until `text` gives up, and keeps its two ends."""

    def __init__(self, stream: IO[bytes], limit: int, name: str) -> None:
        self._stream = stream
        self._given_up = False
        self._head_limit = (limit + 1) // 2
        self._tail_limit = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0
        self._thread = start_thread(self._read, name)

    @property
    def truncated(self) -> bool:
        """Whether some of it was not kept."""
        return self._cut > 0

    def text(self, timeout: float) -> str:
        """Return what was kept, once the stream has ended or after ``timeout`` seconds."""
        if not join_thread(self._thread, timeout):
            # A child that left the group holds it open.
            self._given_up = True
            join_thread(self._thread, 2 * _POLL_SECONDS)
        return self._shown()

    def text_within(self, room: int) -> str:
        """Return what was kept, of which so much is cut that it takes up at most ``room`` bytes in JSON."""
        if not self._cut:
            whole = self._head + self._tail
            self._head, self._tail = whole[: len(whole) // 2], whole[len(whole) // 2 :]
        while (size := json_size(text := self._shown())) > room and (kept := len(self._head) + len(self._tail)):
            # The two ends stay, and a little less than there is room for: not all bytes take up the same.
            left = kept * room // size * 15 // 16
            del self._head[left - left // 2 :], self._tail[: max(len(self._tail) - left // 2, 0)]
            self._cut += kept - len(self._head) - len(self._tail)
        return text

    def _shown(self) -> str:
        mark = f"\n[... {self._cut} bytes cut ...]\n" if self._cut else ""
        return self._head.decode("utf-8", "replace") + mark + self._tail.decode("utf-8", "replace")

    def _read(self) -> None:
        with self._stream:
            poller = select.poll()
            poller.register(self._stream, select.POLLIN)
            while not self._given_up:
                if poller.poll(_POLL_SECONDS * 1000):
                    data = os.read(self._stream.fileno(), _CHUNK)
                    if not data:
                        return
                    self._keep(data)

    def _keep(self, data: bytes) -> None:
        room = self._head_limit - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(room, 0) :]
        surplus = len(self._tail) - self._tail_limit
        if surplus > 0:
            del self._tail[:surplus]
            self._cut += surplus


def json_size(text: str) -> int:
    """Return how many bytes a text takes up in a result."""
    return len(codec.encode_json(text))


def run_program(
    command: Sequence[str], stdin: str, cwd: Path, environment: Mapping[str, str], limits: Limits, cancelled: Event
) -> Finished:
    """Run a program to its end, or until its time is over or ``cancelled`` is set; raises Rejected if it cannot start.

    It leads a session of its own, so that whatever it starts ends with it; where it is cancelled or overdue, or this
    process dies, that holds for what left the session too, as far as the system shows which programs those are
    (``/proc``).
    """
    started = time.monotonic()
    mark = new_id()
    process = _start(command, stdin, cwd, {**environment, MARK: mark}, mark)
    try:
        outputs = _outputs_of(process, limits.max_output)
        watchdog.note_group(mark, process.pid)
        ended = _wait(process, Deadline(limits.timeout), cancelled)
    except BaseException:
        # Nobody else would end it: there may be no more threads, or file descriptors, for a while.
        _end(process, mark)
        _end_strays(f"{MARK}={mark}".encode())
        raise
    was_cancelled = not ended and cancelled.is_set()
    timed_out = not ended and not was_cancelled
    _end(process, mark)
    if not ended:
        _end_strays(f"{MARK}={mark}".encode())
    texts = [output.text(_OUTPUT_SECONDS) for output in outputs]
    sizes = [json_size(text) for text in texts]
    if sum(sizes) > limits.room:
        # Each has half of the room, and what the other leaves.
        shares = [max(limits.room // 2, limits.room - other) for other in reversed(sizes)]
        texts = [output.text_within(share) for output, share in zip(outputs, shares, strict=True)]
    stdout, stderr = texts
    return Finished(
        exit_code=process.returncode,
        stdout=stdout,
        stderr=stderr,
        truncated=any(output.truncated for output in outputs),
        timed_out=timed_out,
        cancelled=was_cancelled,
        duration=round(time.monotonic() - started, 3),
    )


def _start(
    command: Sequence[str], stdin: str, cwd: Path, environment: Mapping[str, str], mark: str
) -> subprocess.Popen[bytes]:
    # A file, and not a pipe, which the program need not empty.
    with tempfile.TemporaryFile() as file:
        file.write(stdin.encode("utf-8", "replace"))
        file.seek(0)
        watchdog.begin(mark)
        try:
            process = subprocess.Popen(
                list(command),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
        except BaseException as exc:
            watchdog.end(mark)
            if isinstance(exc, (OSError, ValueError)):
                raise Rejected(f"{command[0]} cannot be started: {exc}") from exc
            raise
    return process


def _outputs_of(process: subprocess.Popen[bytes], limit: int) -> list[_Output]:
    """Have the outputs of a program read; closes those for which there is no thread."""
    streams = [(name, stream) for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)) if stream]
    outputs: list[_Output] = []
    try:
        for name, stream in streams:
            outputs.append(_Output(stream, limit, f"lightlink-{name}-{process.pid}"))
    except BaseException:
        for _, stream in streams[len(outputs) :]:
            stream.close()
        raise
    return outputs


def _wait(process: subprocess.Popen[bytes], deadline: Deadline, cancelled: Event) -> bool:
    """Wait until a program has ended, its time is over or somebody cancels it; tell whether it has ended."""
    while not (ended := _has_ended(process)) and not deadline.is_over:
        if cancelled.wait(_POLL_SECONDS):
            break
    return ended


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a program has ended, and leave its id taken, so that its group is no other's."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a program with all that it started: politely, and then for good."""
    deadline = Deadline(_GRACE_SECONDS)
    if not _has_ended(process):
        _signal(process, signal.SIGTERM)
    while not _has_ended(process) and not deadline.is_over:
        time.sleep(_POLL_SECONDS)
    # What it left behind in its group holds its output open, and nobody waits for it any more.
    _signal(process, signal.SIGKILL)
    try:
        watchdog.end(mark, process.pid)
    finally:
        process.wait()


def _end_strays(mark: bytes) -> None:
    """Kill what a program started that has left its session (``setsid``): it carries the program's environment."""
    for _ in range(_STRAY_ROUNDS):
        strays = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _carries(folder, mark)]
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _carries(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or is another user's
        return False


def _signal(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # they all ended
        os.killpg(process.pid, sign)
