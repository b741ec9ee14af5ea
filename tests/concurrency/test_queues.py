"""Queues hand over in order, and a wait for one is bounded."""

from __future__ import annotations

import threading

import pytest

from lightlink.concurrency.queues import Ranks, Results


def test_results_come_in_order_and_are_waited_for() -> None:
    results: Results[int] = Results()
    threading.Timer(0.1, lambda: [results.put(number) for number in range(3)]).start()
    assert [results.get(30), results.get(), results.get(0.0)] == [0, 1, 2]
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        results.get(0.01)


def test_the_lowest_rank_comes_first_and_then_the_oldest() -> None:
    ranks: Ranks[object] = Ranks()
    for rank, item in [((0, 2), "late"), ((-1, 3), "urgent"), ((0, 1), {"odd": 1}), ((0, 1), {"odd": 2})]:
        ranks.put(rank, item)
    assert len(ranks) == 4
    assert [ranks.take() for _ in range(5)] == ["urgent", {"odd": 1}, {"odd": 2}, "late", None]
