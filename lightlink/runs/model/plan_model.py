"""What a plan consists of, and what its numbers come to. Pure data."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
DEFAULT_TIMEOUT = 30.0

_DURATION = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+(?:\.\d+)?)s)?")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")
REST = "rest"

OnFailure = Literal["stop", "rollback", "rollback_wave", "continue"]
Offline = Literal["include", "skip", "fail"]
OnLocked = Literal["queue", "fail", "replace"]
ParamType = Literal["str", "int", "float", "bool", "list", "dict", "any"]

_BY_TYPE: dict[Any, Any] = {str: "str", int: "int", float: "float", bool: "bool", list: "list", dict: "dict"}
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
    "any": (object,),
}


def duration(value: float | str, option: str = "duration") -> float:
    """Return a duration in seconds: a number of them, or text such as ``90s``, ``10m``, ``1h 30m``, ``7d``.

    Raises InvalidOption.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None or not value.strip():
            raise InvalidOption(option, "must be seconds, or text such as 90s, 10m, 1h 30m or 7d", value)
        days, hours, minutes, seconds = (float(each or 0) for each in match.groups())
        return days * DAY + hours * HOUR + minutes * MINUTE + seconds
    if isinstance(value, bool) or not 0 <= value < 100 * 365 * DAY:
        raise InvalidOption(option, "must be a number of seconds that is not negative", value)
    return float(value)


def share(value: int | str, option: str) -> tuple[int | None, float | None]:
    """Return a number, or a percentage as a fraction: (5, None) or (None, 0.05); raises InvalidOption."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, None
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise InvalidOption(option, "must be a number of targets, or a percentage such as 5%", value)
    return None, float(match[1]) / 100


class _Data(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is common to the parts of a plan: unknown members are refused, and what is not given is not written."""


class Targets(_Data):
    """Which agents: ``ids``, or all known ones that carry ``labels``; ``offline`` says what of those not online."""

    ids: list[str] = []
    labels: dict[str, str] = {}
    offline: Offline = "include"


class Approval(_Data):
    """A gate: ``count`` people of ``by`` (empty: anybody) have to approve within ``expires`` seconds.

    ``not_by="starter"`` excludes who started the run. When nobody answers in time, that counts as a rejection.
    """

    by: list[str] = []
    count: int = 1
    not_by: Literal["", "starter"] = ""
    expires: float | str = DAY


class Window(_Data):
    """When waves may begin: for ``hours`` from each ``opens``: weekday and time (``Sat 22:00``), or cron fields."""

    opens: str
    hours: float
    tz: str = "UTC"


class Param(_Data):
    """A parameter of a plan: its type, its default (none: it must be given) and what it is for."""

    type: ParamType = "any"
    default: Any = msgspec.UNSET
    description: str = ""


if TYPE_CHECKING:
    # A plan that is made in Python may also say `str` for "str".
    ParamSpec = ParamType | type | Param
else:
    ParamSpec = ParamType | Param


class Undo(_Data):
    """The command that takes a step back. Without a ``timeout``, in seconds, it has its step's."""

    command: str
    payload: Any = None
    timeout: float | str | None = None


class Step(_Data):
    """One command, one call of a service, or one snapshot of state, for each target.

    ``command`` is sent to each target with ``payload``; ``call`` (``service.method``) is called with ``args`` instead,
    and of ``snapshot`` (``bucket/pattern``) the values are kept: ``undo="own"`` writes them back.
    ``timeout`` in seconds; ``retries`` repeats what failed or did not run, and what may have run only if it is
    ``idempotent``. The step is left out for a target for which ``when`` does not hold, and has failed where ``expect``
    does not hold of its result. ``after`` names the steps that must have ended before (the one before, by default).
    ``once`` steps stand before or after all others, and are done once for the run, by their one target; those that are
    ``always`` done end the run whatever became of it. ``undo`` takes the step back (``"own"``: by what the agent said
    that undoes it); ``undo_on="begun"`` also where it failed or nobody knows.
    """

    name: str
    command: str = ""
    payload: Any = None
    call: str = ""
    snapshot: str = ""
    args: dict[str, Any] = {}
    timeout: float | str = DEFAULT_TIMEOUT
    retries: int = 0
    idempotent: bool = False
    priority: int = 0
    when: Any = None
    expect: Any = None
    after: list[str] | None = None
    once: bool = False
    targets: list[str] = []
    always: bool = False
    undo: Undo | Literal["own"] | None = None
    undo_on: Literal["done", "begun"] = "done"

    @property
    def seconds(self) -> float:
        """The time that each attempt has."""
        return duration(self.timeout, "timeout")

    @property
    def undo_seconds(self) -> float:
        """The time that each attempt to take it back has."""
        own = self.undo.timeout if isinstance(self.undo, Undo) else None
        return self.seconds if own is None else duration(own, "undo.timeout")


class PlanData(_Data):
    """What to do to which agents: see docs/how-to/runs.md.

    ``params`` are given at the start (a type, or a `Param`). ``waves`` part the targets: numbers, percentages of all,
    and ``rest``; after each but the last ``soak`` seconds pass, and ``between`` has people approve. More than
    ``max_failures`` targets that failed (a number, or a percentage of all) end the run by ``on_failure``. At most
    ``max_concurrency`` commands run at a time. With ``barrier=False`` a target does not wait for others between steps.
    ``lock`` names what no two runs may touch at the same time; it may refer to each target's labels. After ``timeout``
    seconds the run has failed, whatever it waits for. Waves begin in the ``window`` only; a rollback does not wait.
    """

    name: str
    version: str = ""
    description: str = ""
    params: dict[str, ParamSpec] = {}
    targets: list[str] | Targets = []
    waves: list[int | str] = msgspec.field(default_factory=lambda: [REST])
    soak: float | str = 0.0
    between: Approval | None = None
    max_failures: int | str = 0
    max_concurrency: int | None = None
    on_failure: OnFailure = "stop"
    barrier: bool = True
    lock: str | list[str] = []
    on_locked: OnLocked = "queue"
    timeout: float | str = DAY
    window: Window | None = None
    steps: list[Step] = []

    def __post_init__(self) -> None:
        """Let parameters be given by Python's own types."""
        try:
            given = dict(self.params)
        except (TypeError, ValueError):
            raise InvalidOption("params", "must be a mapping of names to types", self.params) from None
        self.params = {
            name: kind if isinstance(kind, Param) else _BY_TYPE.get(kind, kind) for name, kind in given.items()
        }

    # What the numbers come to ---------------------------------------------------------------------------------------

    @property
    def target_spec(self) -> Targets:
        """Which agents, however it was written."""
        return self.targets if isinstance(self.targets, Targets) else Targets(ids=self.targets)

    @property
    def locks(self) -> list[str]:
        """The locks' names, with references."""
        return [self.lock] if isinstance(self.lock, str) else self.lock

    @property
    def seconds(self) -> float:
        """The time that a run has."""
        return duration(self.timeout, "timeout")

    @property
    def soak_seconds(self) -> float:
        """The time that passes after each wave."""
        return duration(self.soak, "soak")

    @property
    def first_steps(self) -> list[Step]:
        """The steps that are done once, before the waves; without waves all but those that are always done."""
        has_waves = any(not step.once for step in self.steps)
        return list(itertools.takewhile(lambda step: step.once and (has_waves or not step.always), self.steps))

    @property
    def wave_steps(self) -> list[Step]:
        """The steps that are done for each target."""
        return [step for step in self.steps if not step.once]

    @property
    def last_steps(self) -> list[Step]:
        """The steps that are done once, after the waves."""
        return self.steps[len(self.first_steps) + len(self.wave_steps) :]

    def failures_allowed(self, targets: int) -> int:
        """Return how many of so many targets may fail: a percentage is rounded down."""
        number, fraction = share(self.max_failures, "max_failures")
        return number if number is not None else int(targets * (fraction or 0.0) + 1e-9)

    def wave_sizes(self, targets: int) -> list[int]:
        """Return into how many targets each wave parts so many: a percentage is rounded up, and is at least one.

        What the waves leave over is a last wave of its own; waves for which nothing is left are left out.
        """
        sizes = []
        left = targets
        for wave in [*self.waves, REST]:
            if left == 0:
                break
            if wave == REST:
                size = left
            else:
                number, fraction = share(wave, "waves")
                size = number if number is not None else max(1, -int(-(targets * (fraction or 0.0) - 1e-9) // 1))
            sizes.append(min(size, left))
            left -= sizes[-1]
        return sizes


def names_of(steps: Sequence[Step]) -> list[str]:
    """Return the names of some steps."""
    return [step.name for step in steps]
