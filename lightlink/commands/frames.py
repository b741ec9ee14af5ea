"""Commands as tables: of pandas, and of a notebook."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.commands.model import Command
from lightlink.protocol import html

if TYPE_CHECKING:
    from collections.abc import Sequence

_PANDAS = "pandas"
_SHOWN = ("client_id", "command_type", "status", "status_detail", "result", "error", "created_at")


def to_dataframe(commands: Sequence[Command]) -> Any:
    """Return a pandas DataFrame with a row for each command and a column for each of its facts.

    Raises ModuleNotFoundError without pandas.
    """
    try:
        # By name: it has no annotations, which a user's type checker would complain of.
        pandas = importlib.import_module(_PANDAS)
    except ModuleNotFoundError as exc:
        if exc.name != "pandas":
            raise
        needed = "to_dataframe needs pandas: pip install 'lightlink[notebook]'"
        raise ModuleNotFoundError(needed, name=exc.name) from exc
    columns = [field.name for field in attrs.fields(Command)]
    return pandas.DataFrame([attrs.asdict(each, recurse=False) for each in commands], columns=columns)


def to_html(title: str, commands: Sequence[Command]) -> str:
    """Return how a notebook shows commands."""
    return html.rows(title, _SHOWN, ([getattr(each, name) for name in _SHOWN] for each in commands), len(commands))
