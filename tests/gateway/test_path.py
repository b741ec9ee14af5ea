from __future__ import annotations

from lightlink.gateway.path import Path

HOME, TRAIN, OTHER = ("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)


def test_little_is_sent_to_an_address_before_it_is_validated() -> None:
    path = Path(HOME)
    assert path.may_send(10**6, 0.0)
    ping = path.move(TRAIN, 100, 1.0)
    assert (path.current, path.is_validated) == (TRAIN, False)
    assert [path.may_send(1200, 1.0) for _ in range(4)] == [True, True, True, False]
    path.note_received(1200 + 300)
    assert path.may_send(1200, 1.0)
    path.note_acknowledged(ping)
    assert path.is_validated
    assert path.may_send(10**6, 1.0)


def test_a_path_that_fails_validation_falls_back() -> None:
    path = Path(HOME)
    path.move(TRAIN, 100, 1.0)
    assert path.may_send(100, 7.0)
    assert path.current == HOME


def test_an_ack_validates_only_its_own_address() -> None:
    path = Path(HOME)
    first = path.move(TRAIN, 100, 1.0)
    path.move(OTHER, 100, 1.1)
    path.note_acknowledged(first)
    assert not path.is_validated


def test_late_packets_from_the_previous_address_do_not_migrate() -> None:
    path = Path(HOME)
    path.move(TRAIN, 100, 1.0)
    assert not path.is_move(HOME, 1.1)
    assert path.is_move(HOME, 2.0)
    assert path.is_move(OTHER, 1.1)
    assert not path.is_move(TRAIN, 2.0)
