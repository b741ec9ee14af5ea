"""``lightlink doctor``: is all there that a program needs, and if not, what is wrong."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lightlink.cli.terminal.exits import Exit
from lightlink.cli.terminal.options import link_options
from lightlink.cli.terminal.printing import say
from lightlink.commands.store import schema
from lightlink.commands.store.schema import StoreOptions
from lightlink.errors import LightLinkError
from lightlink.jetstream import api
from lightlink.jetstream.answers import ConsumerInfo
from lightlink.protocol import codec
from lightlink.runs import definitions, store
from lightlink.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lightlink
    from lightlink.cli.terminal.options import Link

GOOD, ODD, BAD = "ok", "note", "BAD"
# A difference of clocks that is worth a word, and one that breaks certificates and what people read in logs.
_CLOCK_ODD, _CLOCK_BAD = 2.0, 60.0
_SLOW_SECONDS = 0.25
_SECONDS = 5.0

# How good something is, what it is, and what was found.
Finding = tuple[str, str, str]


class _Server(msgspec.Struct):
    name: str = ""
    ver: str = ""
    time: datetime | None = None


class _User(msgspec.Struct):
    user: str = ""
    account: str = ""
    permissions: dict[str, Any] | None = None


class _UserInfo(msgspec.Struct):
    server: _Server
    data: _User = msgspec.field(default_factory=_User)


@click.command()
@link_options
@click.pass_context
def doctor(ctx: click.Context, link: Link) -> None:
    """Look whether this machine, with this identity, can do what LightLink does; exit code 1 if not.

    It looks at versions, the server, clocks, permissions, JetStream, the streams of commands and runs, and whether
    anybody carries runs out, and changes nothing.
    """
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("nats-py", "msgspec"))
    _tell((GOOD, "versions", f"lightlink {__version__}, Python {platform.python_version()}, {packages}"))
    with link.connect() as client:
        findings = [_told(finding) for finding in examine(client)]
    bad = sum(state == BAD for state, _, _ in findings)
    if bad:
        say(f"{bad} of {len(findings)} are bad")
        ctx.exit(Exit.FAILED)


def examine(client: lightlink.Client) -> Iterator[Finding]:
    """Yield what is found, one thing after the other."""
    yield _round_trip(client)
    told, asked, answered = _user_info(client)
    if told is None:
        yield ODD, "server", "does not tell this identity who it is: it may not ask $SYS.REQ.USER.INFO"
    else:
        yield GOOD, "server", f"{told.server.name} is nats-server {told.server.ver}"
        yield _identity(told.data)
        if told.server.time is not None:
            yield _clock(told.server.time, asked, answered)
    yield from _jetstream(client)


def _round_trip(client: lightlink.Client) -> Finding:
    took = client.ping(_SECONDS)
    state = ODD if took > _SLOW_SECONDS else GOOD
    return state, "reached", f"{client.server}, round trip {1000 * took:.1f} ms"


def _user_info(client: lightlink.Client) -> tuple[_UserInfo | None, float, float]:
    """Ask the server who it is and who it takes us for; with when that was asked and answered."""
    asked = time.time()
    try:
        waiter = client.connection.request(b"$SYS.REQ.USER.INFO", b"", _SECONDS)
        return codec.decode(waiter.data, "$SYS.REQ.USER.INFO", _UserInfo), asked, time.time()
    except LightLinkError:
        return None, asked, time.time()


def _identity(user: _User) -> Finding:
    rights = user.permissions or {}
    given = {verb: rights[verb] for verb in ("publish", "subscribe") if isinstance(rights.get(verb), dict)}
    limits = [f"may {verb} {_subjects(right)}" for verb, right in given.items()]
    who = f"{user.user or 'nobody in particular'} in account {user.account}"
    return GOOD, "identity", "; ".join([who, *(limits or ["may publish and subscribe everywhere"])])


def _subjects(right: dict[str, Any]) -> str:
    allowed = ", ".join(map(str, right.get("allow") or [])) or ("everything" if "deny" in right else "nothing")
    denied = ", ".join(map(str, right.get("deny") or []))
    return f"{allowed} but {denied}" if denied else allowed


def _clock(server: datetime, asked: float, answered: float) -> Finding:
    told = server.replace(tzinfo=server.tzinfo or timezone.utc).timestamp()
    # The server's clock showed this at some moment between the two.
    apart = max(told - answered, asked - told, 0.0)
    state = BAD if apart > _CLOCK_BAD else ODD if apart > _CLOCK_ODD else GOOD
    behind = "behind" if told > answered else "ahead of"
    return state, "clock", f"{apart:.1f} s {behind} the server's" if apart > _CLOCK_ODD else "agrees with the server's"


def _jetstream(client: lightlink.Client) -> Iterator[Finding]:
    connection = client.connection
    try:
        account = api.api(connection, "INFO", None, _SECONDS)
    except LightLinkError as exc:
        yield ODD, "JetStream", f"state, files and commands do not work for this identity, or here: {exc}"
        return
    used = ", ".join(f"{account.get(name, 0)} {unit}" for name, unit in (("streams", "streams"), ("storage", "bytes")))
    yield GOOD, "JetStream", f"is there and holds {used}"
    options = StoreOptions()
    for config in (*schema.streams(options), store.stream_config(options), definitions.stream_config(options)):
        yield _stream(client, config)
    yield from _runners(client)


def _stream(client: lightlink.Client, config: dict[str, Any]) -> Finding:
    name = config["name"]
    try:
        found = api.stream_config(client.connection, name, _SECONDS)
    except LightLinkError as exc:
        return ODD, name, f"cannot be looked at: {exc}"
    if found is None:
        return GOOD, name, "is not there; the first manager or agent makes it"
    difference = schema.difference(config, found)
    if difference:
        return BAD, name, f"its configuration differs: {difference}"
    return GOOD, name, "is as it should be"


def _runners(client: lightlink.Client) -> Iterator[Finding]:
    """Yield whether anybody carries runs out, where there are any."""
    subject = f"CONSUMER.INFO.{store.STREAM}.{store.CONSUMER}"
    try:
        found = api.api(client.connection, subject, None, _SECONDS, ConsumerInfo)
    except LightLinkError:
        return  # no runs, or not for this identity: the stream's line tells
    if found.num_waiting:
        yield GOOD, "runs", "are carried out"
    else:
        yield ODD, "runs", "are carried out by nobody now: start `lightlink runs work`"


def _told(finding: Finding) -> Finding:
    _tell(finding)
    return finding


def _tell(finding: Finding) -> None:
    state, what, found = finding
    say(f"{state:>4}  {what}: {found}")
