"""Events in the caller's own transaction: an outbox and an inbox for SQLAlchemy (extra ``sqlalchemy``).

::

    outbox = Outbox(Base.metadata)                       # beside your own tables; create_all or a migration makes it

    with Session(engine) as session, session.begin():
        session.add(Order(...))
        outbox.add(session, "orders.placed", {"number": 7}, key="customer-1")

    with outbox.relay(engine, client):                   # or in a process of its own: outbox.relay(...).run()
        ...

On the other side ``inbox.is_new(session, message, "billing")`` says in that transaction whether an event came before.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import sqlite
except ModuleNotFoundError as exc:
    if exc.name != "sqlalchemy":
        raise
    needed = "lightlink.contrib.sqlalchemy needs SQLAlchemy: pip install 'lightlink[sqlalchemy]'"
    raise ModuleNotFoundError(needed, name=exc.name) from exc

from lightlink.contrib.outbox import OutboxRelay, OutboxRow, TwoSteps, in_turn, inbox_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from lightlink.client import Client
    from lightlink.contrib.outbox import Outcomes, Send
    from lightlink.streams.message import StoredMessage

__all__ = ["Inbox", "Outbox"]

# SQLite counts by itself in a column of exactly this type.
_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Outbox:
    """A table of events that are to go out, beside the tables of ``metadata``."""

    def __init__(self, metadata: sa.MetaData, name: str = "lightlink_outbox") -> None:
        self.table = sa.Table(
            name,
            metadata,
            sa.Column("position", _COUNTER, primary_key=True, autoincrement=True),
            sa.Column("id", sa.String(36), nullable=False, unique=True),
            sa.Column("key", sa.String(255), index=True),
            sa.Column("subject", sa.String(1024), nullable=False),
            sa.Column("data", sa.LargeBinary, nullable=False),
            sa.Column("headers", sa.Text, nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False, default=0),
            sa.Column("error", sa.Text, nullable=False, default=""),
        )

    def add(
        self,
        session: Session | sa.Connection,
        subject: str,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Write an event in a session's transaction and return its id; it goes out if that is committed.

        Events of one ``key`` go out in the order in which they were added. Raises InvalidName, EncodeError.
        """
        row = OutboxRow.of(subject, data, key, headers)
        now = _now()
        session.execute(
            self.table.insert().values(
                id=row.id,
                key=key,
                subject=subject,
                data=row.data,
                headers=row.headers_text,
                created_at=now,
                due_at=now,
                attempts=0,
                error="",
            )
        )
        return row.id

    def relay(self, engine: sa.Engine, client: Client, **options: Any) -> OutboxRelay:
        """Return what relays its events over a client: `start`, `run`, or a ``with`` block; see `OutboxRelay`.

        Any number may share the work in PostgreSQL, MySQL and Oracle; with SQLite one is enough: several do the same.
        """
        return OutboxRelay(_Store(self.table, engine), client, **options)


class Inbox:
    """A table of which events were handled, beside the tables of ``metadata``."""

    def __init__(self, metadata: sa.MetaData, name: str = "lightlink_inbox") -> None:
        self.table = sa.Table(
            name,
            metadata,
            sa.Column("consumer", sa.String(255), primary_key=True),
            sa.Column("stream", sa.String(255), primary_key=True),
            sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
            # In microseconds since 1970.
            sa.Column("stored_at", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False, index=True),
        )

    def is_new(self, session: Session | sa.Connection, message: StoredMessage, consumer: str) -> bool:
        """Note in a session's transaction that a consumer handles an event; tell whether it never did before.

        What the transaction writes beside it is written once, however often the event comes: if it is rolled back, so
        is this.
        """
        values = {**inbox_key(message, consumer), "handled_at": _now()}
        if isinstance(session, sa.Connection):
            return self._insert(session, values)
        return self._insert(session.connection(bind_arguments={"clause": self.table}), values)

    def _insert(self, connection: sa.Connection, values: dict[str, Any]) -> bool:
        """Insert a row; tell whether there was none of its key."""
        if connection.dialect.name == "sqlite":
            # Its driver begins no transaction for a savepoint: the savepoint's end would commit.
            insert = sqlite.insert(self.table).values(**values).on_conflict_do_nothing()
            return bool(connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 1)
        try:
            with connection.begin_nested():
                connection.execute(self.table.insert().values(**values))
        except sa.exc.IntegrityError:
            return False
        return True

    def prune(self, session: Session | sa.Connection, older_than: float = 7 * 86_400.0) -> int:
        """Forget what was handled more than ``older_than`` seconds ago, and return how many events that were."""
        before = _now() - timedelta(seconds=older_than)
        done: Any = session.execute(self.table.delete().where(self.table.c.handled_at < before))
        return int(done.rowcount)


class _Store:
    def __init__(self, table: sa.Table, engine: sa.Engine) -> None:
        self._table = table
        self._engine = engine
        self._two_steps = TwoSteps(self._read, self._finish)

    def take(self, most: int, send: Send) -> int:
        if self._engine.dialect.name == "sqlite":
            return self._two_steps.take(most, send)
        with self._engine.begin() as connection:
            rows = self._lock(connection, most)
            return self._settle(connection, rows, send(rows) if rows else {})

    def close(self) -> None:
        """Leave the engine's connections alone: its owner closes them."""

    def _read(self, most: int) -> list[OutboxRow]:
        with self._engine.connect() as connection:
            return self._lock(connection, most)

    def _finish(self, rows: list[OutboxRow], outcomes: Outcomes) -> int:
        with self._engine.begin() as connection:
            return self._settle(connection, rows, outcomes)

    def _lock(self, connection: sa.Connection, most: int) -> list[OutboxRow]:
        """Return the first row of each key that nobody else has, and those behind it, but for what rests."""
        table, earlier = self._table, self._table.alias()
        is_resting = sa.and_(table.c.attempts > 0, table.c.due_at > _now())
        is_first = ~sa.exists().where(earlier.c.key == table.c.key, earlier.c.position < table.c.position)
        rows = sa.select(table, sa.case((is_resting, 1), else_=0).label("is_resting")).order_by(table.c.position)
        first = rows.where(~is_resting, sa.or_(table.c.key.is_(None), is_first))
        found = list(connection.execute(first.limit(most).with_for_update(skip_locked=True, of=table)).mappings())
        keys = {row["key"] for row in found if row["key"] is not None}
        if keys and len(found) < most:
            # Nobody else takes these: the first of their keys is locked.
            taken = [row["position"] for row in found]
            behind = rows.where(table.c.key.in_(keys), table.c.position.not_in(taken)).limit(most - len(found))
            found += connection.execute(behind).mappings()
        return in_turn(_row(each) for each in sorted(found, key=lambda each: each["position"]))

    def _settle(self, connection: sa.Connection, rows: list[OutboxRow], outcomes: Outcomes) -> int:
        table = self._table
        done = [row.id for row in rows if row.id in outcomes and outcomes[row.id] is None]
        removed = 0
        if done:
            removed = connection.execute(table.delete().where(table.c.id.in_(done))).rowcount
        for row in rows:
            error = outcomes.get(row.id)
            if error is not None:
                due_at = _now() + timedelta(seconds=row.delay())
                values = {"attempts": row.attempts + 1, "error": error, "due_at": due_at}
                connection.execute(table.update().where(table.c.id == row.id).values(**values))
        return removed


def _row(found: sa.RowMapping) -> OutboxRow:
    return OutboxRow(
        found["id"],
        found["key"],
        found["subject"],
        bytes(found["data"]),
        json.loads(found["headers"]),
        attempts=found["attempts"],
        is_resting=bool(found["is_resting"]),
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)
