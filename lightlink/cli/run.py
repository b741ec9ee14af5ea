"""``lightlink run``: serve what a module defines."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import lightlink
from lightlink.cli import children
from lightlink.cli.options import SECONDS, link_options
from lightlink.errors import LightLinkError
from lightlink.service import Stage

if TYPE_CHECKING:
    from types import FrameType

    from lightlink.cli.options import Link


@click.command()
@click.argument("target", metavar="MODULE[:SERVICE]")
@click.option("--reload", is_flag=True, help="Start anew when a Python file in the current folder changes.")
@click.option("--drain-timeout", type=SECONDS, default=10.0, show_default=True, help="Seconds to finish what is held.")
@click.option("--child-of", type=int, hidden=True)
@link_options
def run(link: Link, target: str, reload: bool, drain_timeout: float, child_of: int | None) -> None:
    """Serve what a module defines.

    Until Ctrl-C or SIGTERM; then it finishes what it holds, and stops. MODULE is looked for in the current folder
    first; the service is called "service" unless named:

        lightlink run shop.prices:service --reload

    The options for the connection win over those in the code.
    """
    if child_of is not None:
        children.die_with(child_of)
    if reload:
        from lightlink.cli.reload import supervise  # noqa: PLC0415 - only this needs to watch files

        supervise([target, f"--drain-timeout={drain_timeout}", *link.arguments()], Path.cwd(), drain_timeout + 5)
        return
    service = _load(target)
    _point(service, link)
    _serve(service, drain_timeout)


def _serve(service: lightlink.Service, drain_timeout: float) -> None:
    # Does nothing when the module has set logging up.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    service.start()
    try:
        _heed_signals(service)
        click.echo(f"serving {service.name} on {','.join(service.client.options.servers)} (process {os.getpid()})")
        service.run(drain_timeout)
    except _AskedToStop:
        return
    finally:
        service.stop(drain_timeout)


class _AskedToStop(Exception):
    """SIGINT or SIGTERM came before `Service.run` listened to signals."""


def _heed_signals(service: lightlink.Service) -> None:
    def on_signal(number: int, _: FrameType | None) -> NoReturn:
        # `run` has its own handlers while it waits. Before that a signal asks for a stop; after it, during the drain,
        # a second one means that there is no time for that.
        if service.stage is Stage.RUNNING:
            raise _AskedToStop
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


# The service --------------------------------------------------------------------------------------------------------


def _load(target: str) -> lightlink.Service:
    """Return the service that ``module:name`` stands for; a usage error if there is none."""
    module_name, _, name = target.partition(":")
    name = name or "service"
    # A console script's path starts with its own folder, not with the current one.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _import(module_name)
    try:
        service = getattr(module, name)
    except AttributeError:
        found = [key for key, value in vars(module).items() if isinstance(value, lightlink.Service)]
        raise click.UsageError(f"{module_name} has no {name!r}; its services: {', '.join(found) or 'none'}") from None
    if not isinstance(service, lightlink.Service):
        raise click.UsageError(f"{target} is a {type(service).__name__}, not a lightlink.Service")
    return service


def _import(name: str) -> Any:
    if not all(part.isidentifier() for part in name.split(".")):
        raise click.UsageError(f"{name!r} is not a module; write it with dots: shop.prices:service")
    try:
        return importlib.import_module(name)
    except LightLinkError:
        raise
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise _broken(name, exc) from exc
        raise click.UsageError(f"there is no module {exc.name!r} in {Path.cwd()} or where Python is installed") from exc
    except Exception as exc:
        raise _broken(name, exc) from exc


def _broken(name: str, error: Exception) -> click.ClickException:
    """Return the report of a module that cannot be imported, with the line that failed."""
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}"
    return click.ClickException(f"{name} cannot be imported: {type(error).__name__}: {error} ({where})")


def _point(service: lightlink.Service, link: Link) -> None:
    """Have a service that is not started use the command line's connection."""
    settings = link.settings()
    if not settings:
        return
    service.use(settings.pop("url", None), **settings)
