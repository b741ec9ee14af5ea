"""How objects look in a notebook: small tables, in which nothing that a peer has sent is more than text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.protocol.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LONGEST = 200
_MOST_ROWS = 50


def facts(title: str, values: Mapping[str, Any]) -> str:
    """Return a table with a line for each fact; those that are None or empty text are left out."""
    lines = [
        f"<tr><th>{_cell(name)}</th><td>{_cell(value)}</td></tr>" for name, value in values.items() if _says(value)
    ]
    return _table(title, lines)


def rows(title: str, columns: Sequence[str], values: Iterable[Sequence[Any]], count: int) -> str:
    """Return a table with a line for each row, of ``count`` in all the first 50."""
    head = "".join(f"<th>{_cell(name)}</th>" for name in columns)
    shown = [row for row, _ in zip(values, range(_MOST_ROWS), strict=False)]
    lines = [f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in shown]
    if count > len(shown):
        lines.append(f'<tr><td colspan="{len(columns)}">... and {count - len(shown)} more</td></tr>')
    return _table(title, [f"<tr>{head}</tr>", *lines])


def _table(title: str, lines: Sequence[str]) -> str:
    return f"<table><caption>{_cell(title)}</caption>{''.join(lines)}</table>"


def _says(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value)


def _cell(value: Any) -> str:
    from html import escape  # noqa: PLC0415 - its table of entities is for notebooks only

    text = visible(value if isinstance(value, str) else repr(value) if isinstance(value, (dict, list)) else str(value))
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")
