"""A deadline counts down, and no further than it is told."""

from __future__ import annotations

import math
import time

from lightlink.concurrency.deadline import Deadline, instant_after


def test_what_remains_ends_at_nothing_or_the_least() -> None:
    over, ahead = Deadline(-1.0), Deadline(60.0)
    assert over.is_over
    assert (over.remaining(), over.remaining(0.5)) == (0.0, 0.5)
    assert over.as_timeout() > 0
    assert not ahead.is_over
    assert 0 < ahead.remaining() <= 60
    assert Deadline(math.inf).remaining() == math.inf


def test_none_is_a_deadline_that_never_comes() -> None:
    assert instant_after(None) == Deadline(None).at == math.inf
    assert not Deadline(None).is_over


def test_a_wait_that_looks_up_between_ends_at_the_deadline() -> None:
    over, never, now = Deadline(0.0), Deadline(None), time.monotonic()
    assert over.at_most(60.0) == over.at
    assert now + 60 <= never.at_most(60.0) < math.inf
