"""Refuse bad plans as a whole, with the place and the reason of every fault, before anything is sent."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.commands.agent.handlers import ANY_TYPE
from lightlink.commands.store import schema
from lightlink.commands.store.presence import MOST_TYPES
from lightlink.errors import InvalidName, InvalidOption, PlanInvalid
from lightlink.protocol import codec
from lightlink.runs.model import conditions, references
from lightlink.runs.model.plan_model import PYTHON_TYPES, REST, Param, PlanData, Step, Undo, duration, share
from lightlink.runs.model.times import check_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lightlink.commands.store.presence import Presence

Fault = tuple[str, str]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_RESERVED = frozenset({"params", "label", "client_id", "run", "result"})
RUN_FACTS = ("id", "plan", "version", "started_by", "reason", "wave")
_MOST_RETRIES = 20
_MOST_STEPS = 100
_DEEPEST = 64
_MOST_VALUES = 100_000


def check_static(plan: PlanData, source: str = "the plan") -> None:
    """Raise PlanInvalid for whatever is wrong with a plan in itself, with all its faults."""
    faults = list(_plan_faults(plan))
    if faults:
        raise PlanInvalid(source, faults)


def check_size(data: Any, source: str) -> None:
    """Raise PlanInvalid for what is nested too deeply, or, as YAML may say in a few lines, more than any plan is."""
    level, count = [data], 0
    for _ in range(_DEEPEST):
        parts = [each for each in level if isinstance(each, (dict, list, tuple))]
        count += sum(map(len, parts))
        if count > _MOST_VALUES:
            raise PlanInvalid(source, [("$", f"holds more than {_MOST_VALUES} values")])
        level = [inner for each in parts for inner in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return
    raise PlanInvalid(source, [("$", f"is nested in more than {_DEEPEST} levels")])


def check_params(plan: PlanData, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters of a run, defaults filled in; raises PlanInvalid, InvalidOption."""
    faults: list[Fault] = []
    try:
        given = dict(params or {})
    except (TypeError, ValueError):
        raise InvalidOption("params", "must be a mapping of names to values", params) from None
    values: dict[str, Any] = {}
    for name, spec in plan.params.items():
        param = spec if isinstance(spec, Param) else Param(type=spec)  # type: ignore[arg-type]  # one in words: __post_init__ has seen to it
        if name not in given:
            if param.default is msgspec.UNSET:
                faults.append((f"params.{name}", "must be given"))
            else:
                values[name] = param.default
            continue
        values[name] = value = given.pop(name)
        if not _is_of(value, param.type):
            faults.append((f"params.{name}", f"must be of type {param.type}, not {type(value).__name__}"))
    faults += [(f"params.{name}", "the plan has no such parameter") for name in given]
    if faults:
        raise PlanInvalid(f"plan {plan.name!r}", faults)
    # As the run's record will carry them; raises EncodeError.
    return dict(codec.decode(codec.encode_json(values, "the parameters"), "the parameters"))


def needs_labels(plan: PlanData) -> bool:
    """Tell whether a plan chooses its targets by labels, or refers to them."""
    values = [plan.lock, *(each for step in plan.wave_steps for each in _references_of(step))]
    return bool(plan.target_spec.labels) or any(path.startswith("label.") for path in references.find(values))


def _references_of(step: Step) -> Iterator[Any]:
    yield from (step.payload, step.args, step.snapshot, step.when, step.expect)
    if isinstance(step.undo, Undo):
        yield step.undo.payload


def unknown_types(plan: PlanData, targets: list[str], online: Iterable[Presence]) -> Iterator[Fault]:
    """Yield where a plan sends what the agents that are online say they do not take."""
    known = {
        each.client_id: set(each.command_types)
        for each in online
        if each.command_types and ANY_TYPE not in each.command_types and len(each.command_types) < MOST_TYPES
    }
    for number, step in enumerate(plan.steps):
        clients = step.targets if step.once else targets
        undo = step.undo.command if isinstance(step.undo, Undo) else ""
        for place, command in (("command", step.command), ("undo.command", undo)):
            deaf = [client for client in clients if command and client in known and command not in known[client]]
            if deaf:
                some = ", ".join(deaf[:3]) + (f" and {len(deaf) - 3} more" if len(deaf) > 3 else "")
                yield f"steps[{number}].{place}", f"{some}: no command of type {command!r}"


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind not in ("bool", "any"):
        return False
    return isinstance(value, PYTHON_TYPES[kind])


# ----------------------------------------------------------------------------------------------------------------------


def _plan_faults(plan: PlanData) -> Iterator[Fault]:
    if not plan.name.strip() or len(plan.name) > 200:
        yield "name", "must be 1 to 200 characters of text"
    if not plan.steps:
        yield "steps", "there is none"
    if len(plan.steps) > _MOST_STEPS:
        yield "steps", f"more than {_MOST_STEPS}"
    yield from _number_faults(plan)
    yield from _target_faults(plan)
    for name, spec in plan.params.items():
        if not _NAME.fullmatch(name):
            yield f"params.{name}", "a name is letters, digits, _ and -, and begins with a letter"
        if isinstance(spec, Param) and spec.default is not msgspec.UNSET and not _is_of(spec.default, spec.type):
            yield f"params.{name}.default", f"must be of type {spec.type}"
    for lock in plan.locks:
        for path in references.find(lock):
            yield from _reference_fault(plan, "lock", path, [], allow_results=False)
        yield from (("lock", reason) for reason in references.slips(lock))
    yield from _order_faults(plan)
    for number, step in enumerate(plan.steps):
        yield from _step_faults(plan, number, step)


def _number_faults(plan: PlanData) -> Iterator[Fault]:
    yield from _try("timeout", lambda: duration(plan.timeout, "timeout"))
    if plan.window is not None:
        window = plan.window
        yield from _try("window", lambda: check_window(window))
    yield from _try("soak", lambda: duration(plan.soak, "soak"))
    yield from _try("max_failures", lambda: share(plan.max_failures, "max_failures"))
    if plan.max_concurrency is not None and plan.max_concurrency < 1:
        yield "max_concurrency", "must be at least 1"
    yield from _wave_faults(plan)
    gate = plan.between
    if gate is not None:
        yield from _try("between.expires", lambda: duration(gate.expires, "expires"))
        if gate.count < 1:
            yield "between.count", "must be at least 1"
        if gate.by and len(set(gate.by)) < gate.count:
            yield "between.count", f"{gate.count} have to approve, and only {len(set(gate.by))} may"


def _wave_faults(plan: PlanData) -> Iterator[Fault]:
    if not plan.waves:
        yield "waves", "there is none"
    for number, wave in enumerate(plan.waves):
        place = f"waves[{number}]"
        if wave == REST:
            if number != len(plan.waves) - 1:
                yield place, "rest can only be the last"
        elif wave == 0 or wave == "0%":
            yield place, "must be more than nothing"
        else:
            yield from _try(place, lambda wave=wave: share(wave, "a wave"))  # type: ignore[misc]


def _target_faults(plan: PlanData) -> Iterator[Fault]:
    spec = plan.target_spec
    if spec.ids and spec.labels:
        yield "targets", "give ids or labels, not both"
    for client_id in spec.ids:
        yield from _try("targets", lambda client_id=client_id: schema.client_id(client_id))  # type: ignore[misc]
    if len(set(spec.ids)) < len(spec.ids):
        yield "targets", "an agent is named twice"


def _order_faults(plan: PlanData) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, step in enumerate(plan.steps):
        place = f"steps[{number}].name"
        if not _NAME.fullmatch(step.name) or step.name in _RESERVED:
            reserved = ", ".join(sorted(_RESERVED))
            yield place, f"{step.name!r}: a name is letters, digits, _ and -, a letter first, and none of {reserved}"
        if step.name in seen:
            yield place, f"there are two steps {step.name!r}"
        seen.add(step.name)
    inner = plan.steps[len(plan.first_steps) :]
    inner = inner[: len(inner) - len(plan.last_steps)] if plan.last_steps else inner
    for step in inner:
        if step.once:
            yield f"steps[{plan.steps.index(step)}].once", "steps that are done once stand before or after all others"
    yield from _cycle_fault(plan)


def _cycle_fault(plan: PlanData) -> Iterator[Fault]:
    left = {step.name: set(predecessors(plan, step)) for step in plan.wave_steps}
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        if not free:
            yield "steps", f"after: {' -> '.join([*left, next(iter(left))])} is a circle"
            return
        for name in free:
            del left[name]


def _step_faults(plan: PlanData, number: int, step: Step) -> Iterator[Fault]:
    place = f"steps[{number}]"
    yield from _kind_faults(place, step)
    yield from _try(f"{place}.timeout", lambda: _positive(step.seconds))
    yield from _try(f"{place}.undo.timeout", lambda: _positive(step.undo_seconds))
    if not 0 <= step.retries <= _MOST_RETRIES:
        yield f"{place}.retries", f"must be 0 to {_MOST_RETRIES}"
    yield from _once_faults(place, step)
    if step.undo == "own" and step.call:
        yield f"{place}.undo", "a call has nothing of its own that undoes it; name a command"
    if step.undo is not None and step.call:
        yield f"{place}.undo", "a call is not undone"
    if step.undo is not None and number >= len(plan.steps) - len(plan.last_steps):
        yield f"{place}.undo", "what is done after all others is not taken back"
    if step.always and number < len(plan.first_steps):
        yield f"{place}.always", "only a last step that is done once can be done always"
    for other in step.after or []:
        if other == step.name:
            yield f"{place}.after", "a step cannot come after itself"
        elif other not in {each.name for each in plan.wave_steps}:
            yield f"{place}.after", f"there is no step {other!r} of the waves"
    yield from _data_faults(plan, place, step)


def _kind_faults(place: str, step: Step) -> Iterator[Fault]:
    if sum(map(bool, (step.command, step.call, step.snapshot))) != 1:
        yield place, "has to have a command, a call or a snapshot, and one of them only"
    if step.snapshot and not re.fullmatch(r"[^/\s]+/\S+", step.snapshot):
        yield f"{place}.snapshot", f"must be bucket/pattern, not {step.snapshot!r}"
    if step.snapshot and isinstance(step.undo, Undo):
        yield f"{place}.undo", "a snapshot is written back: undo is own"
    if step.call and not re.fullmatch(r"[\w-]+\.[\w.-]+", step.call):
        yield f"{place}.call", f"must be service.method, not {step.call!r}"
    if not step.command and step.payload is not None:
        yield f"{place}.payload", "only a command has a payload; a call has args"
    if step.args and not step.call:
        yield f"{place}.args", "a command has a payload"


def _once_faults(place: str, step: Step) -> Iterator[Fault]:
    if step.once:
        if step.after is not None:
            yield f"{place}.after", "steps that are done once follow one another"
        if step.command and len(step.targets) != 1:
            yield f"{place}.targets", "a step that is done once has one target"
        for client_id in step.targets:
            yield from _try(f"{place}.targets", lambda client_id=client_id: schema.client_id(client_id))  # type: ignore[misc]
    elif step.targets:
        yield f"{place}.targets", "only steps that are done once have targets of their own"
    if step.always and not step.once:
        yield f"{place}.always", "only a last step that is done once can be done always"


def _data_faults(plan: PlanData, place: str, step: Step) -> Iterator[Fault]:
    before = _known_before(plan, step)
    undo = step.undo.payload if isinstance(step.undo, Undo) else None
    for option, value, known in (
        ("payload", step.payload, before),
        ("args", step.args, before),
        ("snapshot", step.snapshot, before),
        ("when", step.when, before),
        ("expect", step.expect, [*before, "result"]),
        ("undo.payload", undo, [*before, step.name]),
    ):
        for path in references.find(value):
            yield from _reference_fault(plan, f"{place}.{option}", path, known)
        yield from ((f"{place}.{option}", reason) for reason in references.slips(value))
    for option, value in (("when", step.when), ("expect", step.expect)):
        if value is not None and (reason := conditions.fault(value)):
            yield f"{place}.{option}", reason


def _known_before(plan: PlanData, step: Step) -> list[str]:
    """Return the names of the steps whose results a step may refer to."""
    if step.once:
        return [each.name for each in itertools.takewhile(lambda each: each is not step, plan.steps) if each.once]
    found: dict[str, None] = {}
    todo = list(predecessors(plan, step))
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = None
            todo += predecessors(plan, next(each for each in plan.wave_steps if each.name == name))
    return [*(each.name for each in plan.first_steps), *found]


def predecessors(plan: PlanData, step: Step) -> list[str]:
    """Return the names of the steps of the waves that must have ended before a step begins."""
    names = [each.name for each in plan.wave_steps]
    if step.after is not None:
        return [name for name in step.after if name in names and name != step.name]
    index = names.index(step.name)
    return names[index - 1 : index] if index else []


def _reference_fault(
    plan: PlanData, place: str, path: str, known: list[str], *, allow_results: bool = True
) -> Iterator[Fault]:
    if not references.is_path(path):
        yield place, f"${{{path}}} is no reference: names between dots, as in ${{params.version}}"
        return
    root, *rest = path.split(".")
    steps = {step.name for step in plan.steps} if allow_results else set()
    if root in steps:
        reason = _step_reference_fault(root, rest, known)
    else:
        reason = _fact_fault(plan, root, rest, "result" in known)
    if reason:
        yield place, f"${{{path}}}: {reason}"


def _step_reference_fault(step: str, rest: list[str], known: list[str]) -> str:
    if step not in known:
        return f"the step {step!r} is not one that has ended before"
    return "" if rest[:1] == ["result"] else f"of a step there is ${{{step}.result}}"


def _fact_fault(plan: PlanData, root: str, rest: list[str], in_expect: bool) -> str:
    if root == "params":
        return "" if rest and rest[0] in plan.params else "the plan has no such parameter"
    if root == "run":
        return "" if len(rest) == 1 and rest[0] in RUN_FACTS else f"of a run there are {', '.join(RUN_FACTS)}"
    if root == "result":
        return "" if in_expect else "only expect knows the result of its own step"
    is_there = (root == "client_id" and not rest) or (root == "label" and bool(rest))
    return "" if is_there else "there is no such thing to refer to; a ${ that is meant as text is $${"


def _positive(value: float) -> None:
    if value <= 0:
        raise InvalidOption("timeout", "must be more than 0", value)


def _try(place: str, check: Callable[[], object]) -> Iterator[Fault]:
    try:
        check()
    except InvalidOption as exc:
        yield place, f"{exc.reason}, not {exc.value!r}"
    except InvalidName as exc:
        yield place, str(exc)
