"""Plans: what to do to which agents, in which order. Built in Python, or read from YAML or JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from lightlink.errors import InvalidOption, PlanInvalid
from lightlink.protocol import codec
from lightlink.runs.model import references
from lightlink.runs.model.checks import check_size, check_static
from lightlink.runs.model.plan_model import (
    DAY,
    DEFAULT_TIMEOUT,
    Offline,
    OnFailure,
    OnLocked,
    ParamType,
    PlanData,
    Step,
    Undo,
)
from lightlink.validators import seconds

if TYPE_CHECKING:
    import os

# What a command may take beyond its time until it is known to have ended, and the next is sent.
_ROUND_SECONDS = 60.0
# What may be chosen where a plan has words of ours.
_CHOICES: dict[str, tuple[str, ...]] = {
    "on_failure": get_args(OnFailure),
    "on_locked": get_args(OnLocked),
    "offline": get_args(Offline),
    "not_by": ("starter",),
    "undo_on": ("done", "begun"),
    "undo": ("own",),
    "params": get_args(ParamType),
    "type": get_args(ParamType),
}


class Plan(PlanData):
    """What to do to which agents: see `PlanData` for its settings, and docs/how-to/runs.md."""

    def step(
        self,
        name: str,
        command: str = "",
        payload: Any = None,
        *,
        undo: tuple[str, Any] | Undo | Literal["own"] | None = None,
        **options: Any,
    ) -> Plan:
        """Add a step and return the plan; ``options`` are those of `Step`, ``undo`` may be (command, payload)."""
        if isinstance(undo, tuple):
            undo = Undo(*undo)
        try:
            self.steps = [*self.steps, Step(name, command, payload, undo=undo, **options)]
        except TypeError as exc:
            raise InvalidOption(f"step {name!r}", str(exc), sorted(options)) from None
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Return the plan in a file of YAML or JSON; raises PlanInvalid with every fault, OSError."""
        data = Path(path).read_bytes()
        return cls.parse(data, as_json=Path(path).suffix == ".json", source=str(path))

    @classmethod
    def parse(cls, data: bytes | str, *, as_json: bool = False, source: str = "the plan") -> Plan:
        """Return the plan in text of YAML, or of JSON; raises PlanInvalid, InvalidOption where PyYAML is missing."""
        yaml = None if as_json else _import_yaml()
        try:
            raw = _yaml(data, yaml) if yaml else codec.decode(data.encode() if isinstance(data, str) else data, source)
        except ValueError as exc:
            raise PlanInvalid(source, [("$", str(exc))]) from None
        return cls.of(raw, source)

    @classmethod
    def of(cls, data: Any, source: str = "the plan") -> Plan:
        """Return a plan from decoded data, checked; raises PlanInvalid."""
        check_size(data, source)
        try:
            plan = msgspec.convert(data, cls)
        except msgspec.ValidationError as exc:
            raise PlanInvalid(source, [_type_fault(exc)]) from None
        check_static(plan, source)
        return plan

    def checked(self) -> Plan:
        """Return the plan as those who carry it out read it; raises PlanInvalid, also for values of wrong types."""
        source = f"plan {self.name!r}"
        try:
            data = msgspec.to_builtins(self)
        except (TypeError, RecursionError) as exc:
            raise PlanInvalid(source, [("$", str(exc))]) from None
        return self.of(data, source)

    def dump(self, *, as_json: bool = False) -> str:
        """Return the plan as text of YAML, or of JSON."""
        if as_json:
            return msgspec.json.format(msgspec.json.encode(self)).decode() + "\n"
        yaml = _import_yaml()
        text: str = yaml.safe_dump(msgspec.to_builtins(self), sort_keys=False, allow_unicode=True)
        return text

    @staticmethod
    def schema() -> dict[str, Any]:
        """Return the JSON Schema of plans, for editors."""
        return msgspec.json.schema(Plan)


def one_step_plan(
    client_ids: list[str],
    command_type: str,
    payload: Any = None,
    *,
    kept: float,
    timeout: float = DEFAULT_TIMEOUT,
    priority: int = 0,
    max_concurrency: int | None = None,
    max_failures: int | None = None,
) -> Plan:
    """Return the plan that sends one command to each of some agents, as `CommandManager.send_many` would.

    What it does is known for ``kept`` seconds, which is as long as it may take; raises InvalidOption.
    """
    if seconds("timeout", timeout) > kept:
        raise InvalidOption("timeout", "is longer than what runs do is kept (StoreOptions.retention)", timeout)
    rounds = math.ceil(len(client_ids) / max_concurrency) if max_concurrency else 1
    # The time of each command counts from when it is sent.
    whole = max(DAY, rounds * (timeout + _ROUND_SECONDS))
    plan = Plan(
        f"send {command_type}",
        targets=client_ids,
        timeout=min(whole, kept),
        max_concurrency=max_concurrency,
        max_failures=max_failures or 0,
        on_failure="continue" if max_failures is None else "stop",
        barrier=False,
    )
    return plan.step("send", command_type, references.escaped(payload), timeout=timeout, priority=priority)


def _type_fault(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the place and the reason of a value of a wrong type; where there is a choice, with what may be chosen."""
    reason, _, place = str(error).partition(" - at `")
    place = place.rstrip("`").removeprefix("$.") or "$"
    choices = _CHOICES.get(place.removesuffix("[...]").rpartition(".")[2], ())
    if choices and reason.startswith("Invalid enum value"):
        reason += f": must be one of {', '.join(filter(None, choices))}"
    return place, reason


def _yaml(data: bytes | str, yaml: Any) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # an extra, which may be missing
        """Refuses what YAML forbids and PyYAML takes: of two members of one name it would keep the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in names:
                    reason = f"{key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
                names.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None)
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(data, Loader)
    except yaml.YAMLError as exc:
        raise ValueError(f"not YAML: {exc}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _import_yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra; plans made in Python need it not
    except ImportError:
        raise InvalidOption("plan", "needs PyYAML: pip install 'lightlink[runs]'", "YAML") from None
    return yaml
