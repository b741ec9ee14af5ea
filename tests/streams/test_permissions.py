"""What the grants ``--stream`` and ``--consume`` let an identity do, over mutual TLS."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.errors import PermissionDenied, Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from lightlink.certs import CertificateAuthority


@pytest.fixture
def traders(fresh_server: StartServer, authority: CertificateAuthority) -> Iterator[list[lightlink.Client]]:
    """Clients with a grant to publish, with a grant to consume, and with neither."""
    folder = authority.directory
    authority.issue_server(["127.0.0.1"])
    authority.issue("seller", publish=["orders.>"], streams=["ORDERS"])
    authority.issue("biller", consume=["ORDERS"])
    authority.issue("other", publish=["bills.>"])
    url = fresh_server(tls=folder).url
    with ExitStack() as stack:
        yield [
            stack.enter_context(lightlink.connect(url, tls=tls_of(folder, name), name=name))
            for name in ("seller", "biller", "other")
        ]


@pytest.mark.parametrize("partitions", [None, 2])
def test_stream_and_consume_grants_suffice_and_allow_no_more(
    traders: list[lightlink.Client], partitions: int | None
) -> None:
    seller, biller, other = traders
    seller.stream("ORDERS", ["orders.*"], partitions=partitions)
    seen: list[int] = []

    def bill(number: int) -> None:
        if number == 2:
            raise Reject("no such order")
        seen.append(number)

    biller.consume("orders.*", name="billing", stream="ORDERS", partitions=partitions)(bill)
    for number in (1, 2):
        seller.publish_stored("orders.new", number)
    eventually(lambda: seen == [1])
    letters = biller.dead_letters("ORDERS", "billing")
    (letter,) = eventually(letters.list)
    letters.drop(letter.number)
    for since in ("first", timedelta(hours=1)):
        assert [each.data for each in seller.replay("orders.>", stream="ORDERS", since=since)] == [1, 2]
    for attempt in (
        lambda: other.publish_stored("orders.new", 3),
        lambda: biller.publish_stored("orders.new", 3),
        # The stored subject of a partition: only the server may write there.
        lambda: seller.publish_stored("ll.part.0.orders.new", 3),
        lambda: other.stream("ORDERS").info(),
        lambda: other.consume("orders.*", name="x", stream="ORDERS", partitions=partitions)(print),
        lambda: biller.stream("ORDERS").purge(),
        lambda: seller.stream("ORDERS").delete(),
        lambda: seller.dead_letters("ORDERS", "billing").list(),
    ):
        with pytest.raises(PermissionDenied):
            attempt()
    assert seller.stream("ORDERS").info().last_sequence == 2
