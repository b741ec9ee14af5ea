"""Times that come again: cron's five fields in a time zone, and windows that open at them.

A time that does not exist, as clocks go forward, is the first instant after; one that exists twice counts once
(as in Debian's cron, which cronsim follows).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from lightlink.runs.model.plan_model import Window

_WEEKLY = re.compile(r"(mon|tue|wed|thu|fri|sat|sun) (\d{1,2}):(\d{2})", re.IGNORECASE)
_MOST_HOURS = 7 * 24
_FIELDS = 5


def next_time(cron: str, tz: str, after: datetime) -> datetime:
    """Return the first time of a cron expression after an instant, in UTC; raises InvalidOption."""
    return _first(cron, tz, after, reverse=False)


def last_time(cron: str, tz: str, at: datetime) -> datetime:
    """Return the last time of a cron expression up to an instant, in UTC; raises InvalidOption."""
    # By whole seconds: cronsim before 2.8, the last for Python 3.10, drops the rest and looks before what is left.
    return _first(cron, tz, at.replace(microsecond=0) + timedelta(seconds=1), reverse=True)


def check_window(window: Window) -> None:
    """Raise InvalidOption for a window that never opens, or never closes."""
    next_time(_opening(window), window.tz, datetime(2026, 1, 1, tzinfo=timezone.utc))
    if not 0 < window.hours <= _MOST_HOURS:
        raise InvalidOption("hours", f"must be more than 0, and {_MOST_HOURS} at most", window.hours)


def opens_at(window: Window, at: datetime) -> datetime:
    """Return when a window is open: ``at`` if it is, else the next opening."""
    opened = last_time(_opening(window), window.tz, at)
    if at < opened + timedelta(hours=window.hours):
        return at
    return next_time(_opening(window), window.tz, at)


def _opening(window: Window) -> str:
    match = _WEEKLY.fullmatch(window.opens.strip())
    if match is None:
        return window.opens
    day, hour, minute = match.groups()
    return f"{int(minute)} {int(hour)} * * {day.lower()}"


def _first(cron: str, tz: str, instant: datetime, *, reverse: bool) -> datetime:
    simulate, problem = _import_cronsim()
    if len(cron.split()) != _FIELDS:  # with one for seconds, times would come faster than anybody looks
        raise InvalidOption("cron", "must be five fields, as 30 2 * * *", cron)
    try:
        zone = ZoneInfo(tz)
    except (KeyError, ValueError, OSError):
        raise InvalidOption("tz", "is no time zone, such as Europe/Berlin", tz) from None
    try:
        found: datetime = next(simulate(cron, instant.astimezone(zone), reverse=reverse))
    except problem as exc:
        raise InvalidOption("cron", f"must be five fields, as 30 2 * * *: {exc}", cron) from None
    except StopIteration:
        raise InvalidOption("cron", "never comes", cron) from None
    return found.astimezone(timezone.utc)


def _import_cronsim() -> tuple[Any, type[Exception]]:
    try:
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - an extra; plans without times need it not
    except ImportError:
        raise InvalidOption("cron", "needs cronsim: pip install 'lightlink[runs]'", "cron") from None
    return CronSim, CronSimError
