"""Ids are random UUIDs, and no two processes have the same, whoever forked."""

from __future__ import annotations

import ctypes
import os
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from lightlink.protocol import ids

if TYPE_CHECKING:
    from collections.abc import Callable

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


# uWSGI forks its workers without a word to Python; so does the second.
@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["Python", "C"])
def test_a_forked_child_draws_ids_of_its_own(fork: Callable[[], int]) -> None:
    ids.new_id()  # now there are some in stock
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        os.write(writing, "\n".join(ids.new_id() for _ in range(_MANY)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        of_child = set(answer.read().split())
    assert os.waitpid(child, 0)[1] == 0
    assert len(of_child) == _MANY
    assert not of_child & {ids.new_id() for _ in range(_MANY)}
