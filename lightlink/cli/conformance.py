"""``lightlink conformance``: judge services and clients of other languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightlink.cli.terminal.exits import Exit
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, to_json
from lightlink.cli.terminal.printing import say
from lightlink.conformance import ClientJudge, judge_service
from lightlink.conformance.vectors import text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightlink.cli.terminal.options import Link
    from lightlink.conformance import Verdict


@click.group()
def conformance() -> None:
    """Judge services and clients of other languages.

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
def vectors() -> None:
    """Print the vectors: JSON, for test suites of other languages."""
    for line in text().decode().splitlines():
        say(line)


def _tell(ctx: click.Context, verdicts: Iterable[Verdict], *, as_json: bool) -> None:
    counts = {"ok": 0, "note": 0, "BAD": 0}
    for verdict in verdicts:
        state = "BAD" if verdict.is_failure else "note" if verdict.fault else "ok"
        counts[state] += 1
        facts = {"name": verdict.name, "level": verdict.level, "fault": verdict.fault, "why": verdict.why}
        say(to_json(facts) if as_json else _line(state, verdict))
    if not as_json:
        say(f"{counts['ok']} hold, {counts['note']} should and do not, {counts['BAD']} must and do not")
    if counts["BAD"]:
        ctx.exit(Exit.FAILED)


def _line(state: str, verdict: Verdict) -> str:
    told = f"{state:<4}  {verdict.name}"
    return f"{told}: {verdict.fault} ({verdict.why})" if verdict.fault else told
