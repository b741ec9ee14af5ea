"""The outbox and inbox of SQLAlchemy: real databases, and processes that are killed at any instant."""

from __future__ import annotations

import json
import random
import signal
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from helpers.postgres import Postgres
from helpers.waiting import eventually
from sqlalchemy.orm import Session

import lightlink
from lightlink.contrib.outbox import OutboxRelay, OutboxRow
from lightlink.contrib.sqlalchemy import Inbox, Outbox
from lightlink.errors import EncodeError, InvalidName, InvalidOption, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartPython

    from lightlink.contrib.outbox import Outcomes, Send

EARLIER, LATER = (datetime.now(timezone.utc) + timedelta(hours=hours) for hours in (-1, 1))
TABLES = """
    import random, sys, time
    import sqlalchemy as sa
    import lightlink
    from lightlink.contrib.sqlalchemy import Inbox, Outbox
    from lightlink.streams import StoredMessage

    database, url, subject = sys.argv[1:4]
    engine = sa.create_engine(database)
    metadata = sa.MetaData()
    orders = sa.Table("orders", metadata, sa.Column("number", sa.String(64), primary_key=True))
    bills = sa.Table("bills", metadata, sa.Column("number", sa.String(64)))
    outbox, inbox = Outbox(metadata), Inbox(metadata)
"""
# Places orders of some customers for ever; every third is rolled back.
SHOP = (
    TABLES
    + """
    who, count = sys.argv[4], 0
    print("ready", flush=True)
    while True:
        count += 1
        time.sleep(0.02)
        number = f"{who}-{count}"
        try:
            with engine.connect() as connection, connection.begin() as transaction:
                connection.execute(orders.insert().values(number=number))
                outbox.add(connection, subject, number, key=f"{who}-{count % 4}")
                if count % 3 == 0:
                    transaction.rollback()
        except sa.exc.OperationalError:
            pass  # SQLite is busy: this order was not placed
"""
)
RELAY = (
    TABLES
    + """
    relay = outbox.relay(engine, lightlink.connect(url, wait=30), interval=0.02, batch=20)
    print("ready", flush=True)
    relay.run()
"""
)
# Writes a bill for each order, in one transaction with the inbox.
BILLING = (
    TABLES
    + """
    from sqlalchemy.orm import Session

    client = lightlink.connect(url, wait=30)

    @client.consume(subject, name="billing", workers=2, ack_wait=5.0)
    def bill(message: StoredMessage) -> None:
        with Session(engine) as session, session.begin():
            if inbox.is_new(session, message, "billing"):
                session.execute(bills.insert().values(number=message.data))

    print("ready", flush=True)
    sys.stdin.readline()
"""
)


class Shop:
    """The tables as the test sees them."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.engine = sa.create_engine(database)
        metadata = sa.MetaData()
        self.orders = sa.Table("orders", metadata, sa.Column("number", sa.String(64), primary_key=True))
        self.bills = sa.Table("bills", metadata, sa.Column("number", sa.String(64)))
        self.outbox, self.inbox = Outbox(metadata), Inbox(metadata)
        metadata.drop_all(self.engine)
        metadata.create_all(self.engine)

    def numbers(self, table: sa.Table) -> list[str]:
        with self.engine.connect() as connection:
            return sorted(connection.execute(sa.select(table.c.number)).scalars())

    def waiting(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(self.outbox.table).order_by(self.outbox.table.c.position)))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    if request.param == "sqlite":
        made = Shop(f"sqlite:///{tmp_path / 'shop.sqlite3'}?timeout=30")
    else:
        server = request.getfixturevalue("postgres")
        made = Shop(f"postgresql+psycopg://shop@127.0.0.1:{server.port}/postgres")
    yield made
    made.engine.dispose()


@pytest.fixture
def client(url: str, prefix: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url, timeout=30) as connected:
        connected.stream(f"S_{prefix}", [f"{prefix}.>"])
        yield connected


def change(outbox: Outbox, event_id: str, **values: Any) -> sa.Update:
    return outbox.table.update().where(outbox.table.c.id == event_id).values(**values)


def stored(client: lightlink.Client, prefix: str) -> list[Any]:
    return [event.data for event in client.replay(f"{prefix}.>")]


def test_what_is_committed_goes_out_what_is_rolled_back_stays(
    shop: Shop, client: lightlink.Client, prefix: str
) -> None:
    with Session(shop.engine) as session, session.begin():
        event_id = shop.outbox.add(session, f"{prefix}.a", {"n": 1}, headers={"Tenant": "acme"})
    with Session(shop.engine) as session:
        shop.outbox.add(session, f"{prefix}.a", {"n": 2})
        session.rollback()
    with shop.engine.begin() as connection:
        shop.outbox.add(connection, f"{prefix}.b", b'"as it is"', key="k")
    relay = shop.outbox.relay(shop.engine, client)
    assert relay.relay() == 2
    assert shop.waiting() == []
    first, second = client.replay(f"{prefix}.>")
    assert (first.data, first.headers["Tenant"]) == ({"n": 1}, "acme")
    assert (second.data, second.subject) == ("as it is", f"{prefix}.b")
    assert first.headers["Nats-Msg-Id"].endswith(event_id)
    assert relay.relay() == 0


def test_events_of_a_key_wait_in_order_for_a_refused_one(shop: Shop, client: lightlink.Client, prefix: str) -> None:
    with shop.engine.begin() as connection:
        for number in range(20):
            shop.outbox.add(connection, f"{prefix}.a", number, key="one")
        shop.outbox.add(connection, f"{prefix}-nobody.stores.this", "x", key="bad")
        shop.outbox.add(connection, f"{prefix}.a", "behind it", key="bad")
        shop.outbox.add(connection, f"{prefix}.a", "free")
    assert shop.outbox.relay(shop.engine, client, batch=5).relay() == 21
    numbers = stored(client, prefix)
    assert [each for each in numbers if each != "free"] == list(range(20))
    refused, behind = shop.waiting()
    assert (refused.attempts, refused.error.split(":")[0], behind.attempts) == (1, "NotStored", 0)


def test_a_key_keeps_its_order_whatever_its_writers_clocks_say(
    shop: Shop, client: lightlink.Client, prefix: str
) -> None:
    with shop.engine.begin() as connection:
        ids = [shop.outbox.add(connection, f"{prefix}.a", number, key="one") for number in range(4)]
        connection.execute(change(shop.outbox, ids[1], due_at=LATER))
    assert shop.outbox.relay(shop.engine, client).relay() == 4
    assert stored(client, prefix) == [0, 1, 2, 3]


def test_what_rests_holds_back_those_behind_it_alone(shop: Shop, client: lightlink.Client, prefix: str) -> None:
    """A refused event rests though one of its key stands before it, as where that was committed later."""
    relay = shop.outbox.relay(shop.engine, client)
    with shop.engine.begin() as connection:
        ids = [shop.outbox.add(connection, f"{prefix}.a", number, key="one") for number in range(4)]
        shop.outbox.add(connection, f"{prefix}.a", "another's", key="two")
        connection.execute(change(shop.outbox, ids[1], attempts=1, due_at=LATER))
    assert relay.relay() == 2
    assert stored(client, prefix) == [0, "another's"]
    with shop.engine.begin() as connection:
        connection.execute(change(shop.outbox, ids[1], due_at=EARLIER))
    assert relay.relay() == 3
    assert stored(client, prefix)[2:] == [1, 2, 3]


def test_a_relay_thread_goes_on_after_a_database_outage(shop: Shop, client: lightlink.Client, prefix: str) -> None:
    with shop.outbox.relay(shop.engine, client, interval=0.05) as relay:
        with pytest.raises(NotReady, match="is running already"):
            relay.start()
        for number in range(3):
            with shop.engine.begin() as connection:
                shop.outbox.add(connection, f"{prefix}.a", number)
            relay.nudge()
            eventually(lambda: len(stored(client, prefix)) == number + 1)  # noqa: B023 - awaited here
        with shop.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE lightlink_outbox RENAME TO away"))
        eventually(lambda: relay.stage.value == "running")
        with shop.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE away RENAME TO lightlink_outbox"))
            shop.outbox.add(connection, f"{prefix}.a", "after")
        eventually(lambda: "after" in stored(client, prefix))


def test_what_cannot_go_out_is_refused_where_it_is_written(shop: Shop, client: lightlink.Client) -> None:
    with shop.engine.begin() as connection:
        with pytest.raises(InvalidName):
            shop.outbox.add(connection, "no subject", 1)
        with pytest.raises(EncodeError):
            shop.outbox.add(connection, "a.b", object())
    assert shop.waiting() == []
    with pytest.raises(InvalidOption):
        shop.outbox.relay(shop.engine, client, batch=0)


@pytest.mark.parametrize("strikes", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_nothing_is_lost_or_made_up_whoever_is_killed(
    strikes: int, shop: Shop, client: lightlink.Client, python: StartPython, url: str, prefix: str
) -> None:
    """Shops, relays and a consumer, each killed and started again: one event and one bill for each order committed."""
    dice = random.Random(prefix)
    is_sqlite = shop.database.startswith("sqlite")
    programs = {"shop": SHOP, "relay": RELAY, "billing": BILLING}
    count = 0

    def start(kind: str) -> Any:
        nonlocal count
        count += 1
        process = python(programs[kind], shop.database, url, f"{prefix}.orders", f"shop{count}")
        process.wait_line("ready")
        return process

    wanted = ["shop", "relay", "billing", *([] if is_sqlite else ["shop", "relay"])]
    running = [(kind, start(kind)) for kind in wanted]
    for _ in range(strikes):
        before = len(shop.numbers(shop.orders))
        eventually(lambda: len(shop.numbers(shop.orders)) > before + 3)  # noqa: B023 - awaited here
        place = dice.randrange(len(running))
        kind, victim = running[place]
        victim.signal(signal.SIGKILL)
        victim.wait()
        running[place] = (kind, start(kind))
    for kind, process in running:
        if kind == "shop":
            process.signal(signal.SIGKILL)
            process.wait()
    eventually(lambda: not shop.waiting(), 60)
    ordered = shop.numbers(shop.orders)
    events = stored(client, prefix)
    assert sorted(events) == ordered
    eventually(lambda: len(shop.numbers(shop.bills)) >= len(ordered), 60)
    for _, process in running:
        process.kill()
    assert shop.numbers(shop.bills) == ordered
    for lane in {each.rpartition("-")[0] + str(int(each.rpartition("-")[2]) % 4) for each in events}:
        numbers = [
            int(each.rpartition("-")[2])
            for each in events
            if each.rpartition("-")[0] + str(int(each.rpartition("-")[2]) % 4) == lane
        ]
        assert numbers == sorted(numbers), lane


def test_an_event_is_handled_once_and_forgotten_later(shop: Shop, client: lightlink.Client, prefix: str) -> None:
    client.publish_stored(f"{prefix}.a", 1)
    (event,) = client.replay(f"{prefix}.>")
    with Session(shop.engine) as session, session.begin():
        assert shop.inbox.is_new(session, event, "billing")
        assert not shop.inbox.is_new(session, event, "billing")
        assert shop.inbox.is_new(session, event, "shipping")
    with Session(shop.engine) as session:
        assert not shop.inbox.is_new(session, event, "billing")
        session.rollback()
    with Session(shop.engine) as session, session.begin():
        assert shop.inbox.prune(session, 3600) == 0
        assert shop.inbox.prune(session, -1) == 2
        assert shop.inbox.is_new(session, event, "billing")


@pytest.mark.parametrize("kind", [Session, sa.Connection])
def test_a_rollback_takes_the_note_of_an_event_back(
    shop: Shop, client: lightlink.Client, prefix: str, kind: type[Session | sa.Connection]
) -> None:
    client.publish_stored(f"{prefix}.a", 1)
    (event,) = client.replay(f"{prefix}.>")
    for is_kept in (False, True):
        with Session(shop.engine) if kind is Session else shop.engine.connect() as session:
            assert shop.inbox.is_new(session, event, "billing")
            session.execute(shop.bills.insert().values(number="1"))
            if is_kept:
                session.commit()
            else:
                session.rollback()
        assert shop.numbers(shop.bills) == (["1"] if is_kept else [])
    with Session(shop.engine) as session:
        assert not shop.inbox.is_new(session, event, "billing")


def test_an_event_of_a_stream_made_anew_is_new(shop: Shop, client: lightlink.Client, prefix: str) -> None:
    found = []
    for _ in range(2):
        client.publish_stored(f"{prefix}.a", 1)
        (event,) = client.replay(f"{prefix}.>")
        with Session(shop.engine) as session, session.begin():
            found.append((event.sequence, shop.inbox.is_new(session, event, "billing")))
        client.stream(f"S_{prefix}").delete()
        client.stream(f"S_{prefix}", [f"{prefix}.>"])
    assert found == [(1, True), (1, True)]


# SQLite, which locks the whole database ------------------------------------------------------------------------------


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(f"sqlite:///{tmp_path / 'shop.sqlite3'}?timeout=30")
    yield made
    made.engine.dispose()


def acknowledge(client: lightlink.Client, event: lightlink.Message) -> None:
    """Answer as a stream does that has stored an event."""
    client.publish(event.reply, {"stream": "S", "seq": 1})


def test_nobody_waits_for_a_relay_whose_server_says_nothing(
    sqlite_shop: Shop, client: lightlink.Client, prefix: str
) -> None:
    outbox, engine = sqlite_shop.outbox, sqlite_shop.engine
    with engine.begin() as connection:
        outbox.add(connection, f"{prefix}-silent", 1)
    with client.subscribe(f"{prefix}-silent") as silent, outbox.relay(engine, client, interval=0.05) as relay:
        event = silent.get(30)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")  # to find the database locked is an error now
            outbox.add(connection, f"{prefix}.a", 2)
            connection.commit()
            connection.exec_driver_sql("PRAGMA busy_timeout = 30000")
        acknowledge(client, event)
        eventually(lambda: not sqlite_shop.waiting())
        assert (stored(client, prefix), relay.relayed) == ([2], 2)


def test_what_went_out_is_not_sent_again_while_others_write(
    sqlite_shop: Shop, client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However long that takes: in the end the stream would know its id no longer."""
    outbox, engine = sqlite_shop.outbox, sqlite_shop.engine
    impatient = sa.create_engine(sqlite_shop.database.replace("=30", "=0"))
    with engine.begin() as connection:
        outbox.add(connection, f"{prefix}-silent", 1)
    with client.subscribe(f"{prefix}-silent") as silent, outbox.relay(impatient, client, interval=0.01) as relay:
        event = silent.get(30)
        with engine.begin() as connection:
            outbox.add(connection, f"{prefix}-silent", 2)
            caplog.clear()
            acknowledge(client, event)
            eventually(lambda: caplog.text.count("the outbox waits: OperationalError") > 2)
        event = silent.get(30)
        assert event.data == 2
        acknowledge(client, event)
        eventually(lambda: not sqlite_shop.waiting())
        assert relay.relayed == 2
    impatient.dispose()


def test_relays_that_meet_at_sqlite_keep_the_order_of_a_key(
    sqlite_shop: Shop, client: lightlink.Client, prefix: str
) -> None:
    outbox, engine = sqlite_shop.outbox, sqlite_shop.engine
    with engine.begin() as connection:
        outbox.add(connection, f"{prefix}-silent", "first", key="one")
        for number in range(5):
            outbox.add(connection, f"{prefix}.a", number, key="one")
    relays = [outbox.relay(engine, client, interval=0.05) for _ in range(2)]
    with client.subscribe(f"{prefix}-silent") as silent:
        for relay in relays:
            relay.start()
        for event in [silent.get(30) for _ in relays]:
            acknowledge(client, event)
        eventually(lambda: not sqlite_shop.waiting())
        for relay in relays:
            relay.stop()
    assert stored(client, prefix) == [0, 1, 2, 3, 4]
    assert sum(relay.relayed for relay in relays) == 6


class Held:
    """What holds rows, and keeps what became of them."""

    def __init__(self, rows: list[OutboxRow]) -> None:
        self.rows = rows
        self.outcomes: Outcomes = {}

    def take(self, most: int, send: Send) -> int:
        self.outcomes = send(self.rows[:most])
        return 0

    def close(self) -> None: ...


def test_a_batch_that_takes_long_leaves_the_rest_for_the_next(
    client: lightlink.Client, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlink.contrib.outbox._BATCH_SECONDS", 0.0)
    rows = [OutboxRow.of(f"{prefix}.a", number, "one", None) for number in range(3)]
    held = Held(rows)
    OutboxRelay(held, client).relay()
    assert held.outcomes == {rows[0].id: None}


def begins_itself(path: Path) -> sa.Engine:
    """An engine for SQLite as SQLAlchemy's documentation has it for savepoints that work."""
    engine = sa.create_engine(f"sqlite:///{path}")

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def begins_always(path: Path) -> sa.Engine:
    """An engine for SQLite as the driver's own documentation recommends."""
    return sa.create_engine(f"sqlite:///{path}", connect_args={"autocommit": False})


@pytest.mark.parametrize(
    "make",
    [
        begins_itself,
        pytest.param(begins_always, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="it came with 3.12")),
    ],
)
def test_sqlite_may_begin_its_transactions_otherwise(
    client: lightlink.Client, prefix: str, tmp_path: Path, make: Callable[[Path], sa.Engine]
) -> None:
    engine, metadata = make(tmp_path / "shop.sqlite3"), sa.MetaData()
    outbox, inbox = Outbox(metadata), Inbox(metadata)
    metadata.create_all(engine)
    for is_kept in (False, True):
        with Session(engine) as session:
            outbox.add(session, f"{prefix}.a", is_kept)
            if is_kept:
                session.commit()
    assert outbox.relay(engine, client).relay() == 1
    (event,) = client.replay(f"{prefix}.>")
    assert event.data is True
    for is_kept in (False, True, True):
        with Session(engine) as session:
            found = inbox.is_new(session, event, "billing")
            if is_kept:
                session.commit()
    assert not found
    engine.dispose()


def test_headers_are_kept_as_text() -> None:
    row = OutboxRow.of("a.b", {"x": 1}, None, {"A": "1"})
    assert json.loads(row.headers_text) == {"A": "1"}
