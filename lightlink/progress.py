"""Progress for who looks on: a bar of tqdm's where it is installed, lines of text elsewhere."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import InvalidOption

_TQDM = "tqdm.auto"
_LINE_EVERY_SECONDS = 2.0


class ProgressBar:
    """A bar with a title that is told how far something is; ``unit`` is what is counted, empty for a fraction of 1.

    A context manager.
    """

    def __init__(self, title: str, total: float | None, unit: str) -> None:
        bar = _tqdm()
        self._shown: _Bar | _Lines = _Lines(title, total, unit) if bar is None else _Bar(bar, title, total, unit)

    def show(self, done: float, total: float | None, note: str = "") -> None:
        """Show how much is done, of how much if that is known."""
        self._shown.show(done, total, note)

    def close(self) -> None:
        """Leave it as it is now."""
        self._shown.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_wanted(progress: Any) -> bool:
    """Tell whether ``progress`` asks for a bar (True); raises InvalidOption unless it is a function, a flag or None."""
    if progress is None or isinstance(progress, bool):
        return bool(progress)
    if not callable(progress):
        raise InvalidOption("progress", "is not callable", type(progress).__name__)
    return False


class _Bar:
    def __init__(self, tqdm: Any, title: str, total: float | None, unit: str) -> None:
        sizes: dict[str, Any] = {"unit_scale": True, "unit_divisor": 1024} if unit == "B" else {}
        if not unit:  # a fraction
            sizes = {"bar_format": "{l_bar}{bar}| {elapsed}{postfix}"}
        self._bar = tqdm(total=total, desc=title, unit=unit, **sizes)

    def show(self, done: float, total: float | None, note: str) -> None:
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.refresh()
        self._bar.close()


class _Lines:
    """A line now and then, and one for the end."""

    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._last = (0.0, total, "")
        self._said = (-1.0, total, "")
        self._next = Deadline(_LINE_EVERY_SECONDS)

    def show(self, done: float, total: float | None, note: str) -> None:
        self._last = (done, total, note)
        if self._next.is_over:
            self._next = Deadline(_LINE_EVERY_SECONDS)
            self._say()

    def close(self) -> None:
        if self._said != self._last:
            self._say()

    def _say(self) -> None:
        self._said = self._last
        done, total, note = self._last
        much = f"{done / total:.0%}" if total else f"{done:g} {self._unit}"
        print(f"{self._title}: {much} {note}".rstrip(), file=sys.stderr)  # noqa: T201 - it is there to be seen


def _tqdm() -> Any:
    """Return tqdm's class for where this runs, a notebook or a terminal; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            # In a notebook without ipywidgets it says so, and draws its bar as text.
            warnings.simplefilter("ignore")
            # By name: it has no annotations, which a user's type checker would complain of.
            return importlib.import_module(_TQDM).tqdm
    except ModuleNotFoundError:
        return None
