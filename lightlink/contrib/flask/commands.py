"""``flask lightlink ...``: the app's own connection on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup

from lightlink.errors import DecodeError, LightLinkError
from lightlink.protocol import codec
from lightlink.protocol.text import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.contrib.link import Link


class _Commands(AppGroup):
    """Reports an error of LightLink as a line, and closes the connection in the end."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LightLinkError as exc:
            raise click.ClickException(visible(str(exc))) from exc


group = _Commands("lightlink", short_help="Talk to NATS with this app's connection.")


def _with_link(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the app's link, which is closed afterwards."""

    @click.pass_context
    def run(ctx: click.Context, /, **values: Any) -> None:
        link: Link = current_app.extensions["lightlink"]
        try:
            ctx.invoke(command, link, **values)
        finally:
            link.close()

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


def _json(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    try:
        return codec.decode(value.encode(), "")
    except DecodeError as exc:
        raise click.BadParameter(f"is not JSON: {exc.reason}", ctx, param) from exc


@group.command("call")
@click.argument("service")
@click.argument("method")
@click.argument("args", metavar="[JSON]", default="{}", callback=_json)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True)
@_with_link
def call(link: Link, service: str, method: str, args: Any, timeout: float) -> None:
    """Call METHOD of SERVICE with arguments by name, and print its result."""
    _say_json(link.client.call(service, method, args, timeout=timeout))


@group.command("pub")
@click.argument("subject")
@click.argument("data", metavar="JSON", callback=_json)
@_with_link
def pub(link: Link, subject: str, data: Any) -> None:
    """Publish JSON on SUBJECT; returns once the server has it."""
    link.client.publish(subject, data)
    link.client.flush()


@group.command("services")
@click.argument("name", required=False)
@_with_link
def services(link: Link, name: str | None) -> None:
    """List the services that run, or the methods of one."""
    for service in link.client.services(name):
        if name is None:
            line = f"{service.name}  {', '.join(service.versions)}  instances: {len(service.instances)}"
            click.echo(visible(f"{line}  requests: {service.requests}"))
            continue
        for method in service.methods.values():
            told = method.description.text.partition("\n")[0]
            click.echo(visible(f"{method.name}{method.signature}  {told}".rstrip()))


@group.command("agents")
@_with_link
def agents(link: Link) -> None:
    """List the agents that are online."""
    for presence in link.manager.clients():
        labels = " ".join(f"{name}={value}" for name, value in sorted(presence.labels.items()))
        click.echo(visible(f"{presence.client_id}  {labels}".rstrip()))


@group.command("doctor")
@_with_link
def doctor(link: Link) -> None:
    """Say whether this app reaches its server, how fast, and whether that has JetStream."""
    client = link.client
    click.echo(f"configured: {', '.join(link.options.servers)} as {visible(link.options.name)}")
    took = client.ping()
    click.echo(f"connected:  {client.server}, round trip {took * 1000:.1f} ms")
    client.get_state("lightlink.doctor", None)
    click.echo("JetStream:  answers (state, files and commands work)")


def _say_json(value: Any) -> None:
    click.echo(visible_json(codec.encode_json(value).decode()))
