"""A deadline counts down, and no further than it is told."""

from __future__ import annotations

import math

from lightlink.concurrency.deadline import Deadline


def test_what_remains_ends_at_nothing_or_the_least() -> None:
    over, ahead = Deadline(-1.0), Deadline(60.0)
    assert over.is_over
    assert (over.remaining(), over.remaining(0.5)) == (0.0, 0.5)
    assert over.as_timeout() > 0
    assert not ahead.is_over
    assert 0 < ahead.remaining() <= 60
    assert Deadline(math.inf).remaining() == math.inf
