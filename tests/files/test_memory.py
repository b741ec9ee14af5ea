"""A gigabyte goes through a process that stays small (target P6)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import StartPython, StartServer

MIB = 1024 * 1024
LIMIT = 24  # MiB above idle
TRANSFER = """
import io, json, os, sys
from pathlib import Path
import lightlink

SIZE = 1024 * 1024 * 1024
BLOCK = os.urandom(1024 * 1024)

class Source(io.RawIOBase):
    left = SIZE

    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return BLOCK[:size]

class Target(io.RawIOBase):
    size = 0

    def write(self, data):
        self.size += len(data)
        return len(data)

def memory(which):
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) // 1024

def peak_above_idle(transfer):
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    idle = memory("VmRSS")
    transfer()
    return memory("VmHWM") - idle

with lightlink.connect(sys.argv[1]) as client:
    small = client.upload(io.BytesIO(b"content"))
    client.download(small.id, io.BytesIO())
    target = Target()
    up = peak_above_idle(lambda: client.upload(Source(), name="large"))
    down = peak_above_idle(lambda: client.download(client.files()[0].id, target))
    print("peaks", json.dumps({"up": up, "down": down, "size": target.size}), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gigabyte_is_moved_in_little_memory(fresh_server: StartServer, python: StartPython) -> None:
    process = python(TRANSFER, fresh_server().url)
    peaks = json.loads(process.wait_line("peaks", timeout=240))
    assert peaks["size"] == 1024 * MIB
    assert peaks["up"] <= LIMIT
    assert peaks["down"] <= LIMIT
