"""Ids are random UUIDs, and no two processes have the same, whoever forked."""

from __future__ import annotations

import threading
import uuid

import pytest
from helpers.process import run_python

from lightlink.protocol import ids

_MANY = 1000


def test_an_id_is_a_random_uuid() -> None:
    drawn = {ids.new_id() for _ in range(_MANY)}
    assert len(drawn) == _MANY
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in drawn} == {(4, uuid.RFC_4122)}
    assert all(str(uuid.UUID(each)) == each for each in drawn)


def test_threads_that_draw_at_once_get_ids_of_their_own() -> None:
    start = threading.Barrier(8)
    drawn: list[list[str]] = []

    def draw() -> None:
        start.wait(30)
        drawn.append([ids.new_id() for _ in range(_MANY)])

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({each for of_one in drawn for each in of_one}) == 8 * _MANY


# A process of its own: Python's other threads may not be there when it is forked without a word to it.
DRAW = """
import ctypes, os, sys

from lightlink.protocol import ids

ids.new_id()  # now there are some in stock
child = os.fork() if sys.argv[1] == "Python" else ctypes.PyDLL(None).fork()
drawn = [ids.new_id() for _ in range(int(sys.argv[2]))]
if child:
    assert os.waitpid(child, 0)[1] == 0
print(*drawn, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("who", ["Python", "C"])  # uWSGI forks its workers without a word to Python
def test_a_forked_child_draws_ids_of_its_own(who: str) -> None:
    result = run_python(DRAW, who, _MANY)
    assert result.returncode == 0, result
    drawn = result.stdout.split()
    assert len(drawn) == len(set(drawn)) == 2 * _MANY
