from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from lightlink.concurrency import turns

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_few_loops_leave_the_interval_alone_and_many_stretch_it() -> None:
    before = sys.getswitchinterval()
    for _ in range(20):
        turns.loop_began()
    assert sys.getswitchinterval() == before
    for _ in range(280):
        turns.loop_began()
    assert sys.getswitchinterval() == pytest.approx(before * 300 / 32, rel=0.15)
    for _ in range(300):
        turns.loop_ended()
    assert sys.getswitchinterval() == pytest.approx(before, rel=0.01)


def test_the_interval_stays_within_a_tenth_of_a_second() -> None:
    for _ in range(5000):
        turns.loop_began()
    assert sys.getswitchinterval() <= 0.1
    for _ in range(5000):
        turns.loop_ended()


def test_what_the_program_has_chosen_is_never_undercut() -> None:
    sys.setswitchinterval(0.2)
    for _ in range(300):
        turns.loop_began()
    assert sys.getswitchinterval() == pytest.approx(0.2, rel=0.01)
    sys.setswitchinterval(0.01)
    for _ in range(300):
        turns.loop_ended()
    assert sys.getswitchinterval() == pytest.approx(0.01, rel=0.01)
