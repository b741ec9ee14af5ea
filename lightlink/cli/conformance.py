"""``lightlink conformance``: judge programs of other languages by the wire format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightlink.cli.terminal.exits import Exit
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, to_json
from lightlink.cli.terminal.printing import say
from lightlink.conformance import STEP_CHECKS, ClientJudge, StepJudge, judge_agent, judge_service
from lightlink.conformance.vectors import text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightlink.cli.terminal.options import Link
    from lightlink.conformance import Verdict


only_option = click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be repeated.")


@click.group()
def conformance() -> None:
    """Judge services, clients, agents and managers of other languages.

    What must hold and does not is exit code 1; what only should hold is noted. docs/conformance.md says what the
    program under test has to do.
    """


@conformance.command()
@click.argument("name", default="conformance")
@click.option("--timeout", type=SECONDS, default=5.0, show_default=True, metavar="SECONDS", help="For each answer.")
@json_option
@link_options
@click.pass_context
def service(ctx: click.Context, link: Link, name: str, timeout: float, as_json: bool) -> None:
    """Judge the running service NAME (default: conformance)."""
    with link.connect() as client:
        _tell(ctx, judge_service(client, name, timeout), as_json=as_json)


@conformance.command()
@click.argument("name", default="conformance")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, metavar="SECONDS", help="For each step.")
@json_option
@link_options
@click.pass_context
def client(ctx: click.Context, link: Link, name: str, timeout: float, as_json: bool) -> None:
    """Judge a client: be the service NAME that it calls (default: conformance)."""
    with link.connect() as connected, ClientJudge(connected, name) as judge:
        if not as_json:
            say(f"waiting for a client that calls {name}.next")
        _tell(ctx, judge.verdicts(timeout), as_json=as_json)


@conformance.command()
@click.argument("client_id", default="conformance")
@click.option("--timeout", type=SECONDS, default=5.0, show_default=True, metavar="SECONDS", help="For each thing.")
@only_option
@json_option
@link_options
@click.pass_context
def agent(ctx: click.Context, link: Link, client_id: str, timeout: float, only: tuple[str, ...], as_json: bool) -> None:
    """Judge the running agent CLIENT_ID (default: conformance)."""
    with link.connect() as client:
        _tell(ctx, judge_agent(client, client_id, timeout, only or None), as_json=as_json)


@conformance.command()
@click.argument("kind", type=click.Choice(list(STEP_CHECKS)))
@click.argument("name", default="conformance")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, metavar="SECONDS", help="For each step.")
@only_option
@json_option
@link_options
@click.pass_context
def steps(
    ctx: click.Context, link: Link, kind: str, name: str, timeout: float, only: tuple[str, ...], as_json: bool
) -> None:
    """Judge a program's events, state, files or manager: be the service NAME that tells it what to do."""
    with link.connect() as connected, StepJudge(connected, kind, name, only=only or None) as judge:
        if not as_json:
            say(f"waiting for a program that calls {name}.next")
        _tell(ctx, judge.verdicts(timeout), as_json=as_json)


@conformance.command()
def vectors() -> None:
    """Print the vectors: JSON, for test suites of other languages."""
    for line in text().decode().splitlines():
        say(line)


def _tell(ctx: click.Context, verdicts: Iterable[Verdict], *, as_json: bool) -> None:
    counts = {"ok": 0, "note": 0, "skip": 0, "BAD": 0}
    for verdict in verdicts:
        state = _state(verdict)
        counts[state] += 1
        facts = {"name": verdict.name, "level": verdict.level, "fault": verdict.fault, "why": verdict.why}
        say(to_json(facts) if as_json else _line(state, verdict))
    if not as_json:
        skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
        say(f"{counts['ok']} hold, {counts['note']} should and do not, {counts['BAD']} must and do not{skipped}")
    if counts["BAD"]:
        ctx.exit(Exit.FAILED)


def _state(verdict: Verdict) -> str:
    if not verdict.fault:
        return "ok"
    return {"must": "BAD", "should": "note"}.get(verdict.level, "skip")


def _line(state: str, verdict: Verdict) -> str:
    told = f"{state:<4}  {verdict.name}"
    return f"{told}: {verdict.fault} ({verdict.why})" if verdict.fault else told
