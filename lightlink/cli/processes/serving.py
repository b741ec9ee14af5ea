"""Load what a module defines, a service or an agent, and run it until it is asked to stop."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import click

from lightlink.cli.terminal.printing import say
from lightlink.concurrency.signals import end, handling
from lightlink.contrib.serving import Runnable
from lightlink.contrib.systemd import announce, notify
from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.cli.terminal.options import Link


class Movable(Runnable, Protocol):
    """A service or an agent: its connection is the command line's, where that says so."""

    def use(self, url: str | None = None, **options: Any) -> None:
        """Connect elsewhere than its module said."""


T = TypeVar("T", bound=Movable)


def load(target: str, kind: type[T], name: str) -> T:
    """Return the object of a kind that ``module[:name]`` stands for; a usage error if there is none.

    ``name`` is what it is called unless the target says.
    """
    module_name, _, given = target.partition(":")
    name = given or name
    # A console script's path starts with its own folder, not with the current one.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _import(module_name, name)
    try:
        found = getattr(module, name)
    except AttributeError:
        there = [key for key, value in vars(module).items() if isinstance(value, kind)]
        kinds = f"{kind.__name__.lower()}s"
        raise click.UsageError(f"{module_name} has no {name!r}; its {kinds}: {', '.join(there) or 'none'}") from None
    if not isinstance(found, kind):
        raise click.UsageError(f"{target} is a {type(found).__name__}, not a lightlink.{kind.__name__}")
    if found.stage.value == "stopped":
        raise click.UsageError(
            f"{module_name} runs its {kind.__name__.lower()} itself as it is imported: start it with python, or put "
            f"{name}.run() under if __name__ == '__main__':"
        )
    return found


wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for a server that is not there yet; default: for ever.",
)


def point(runnable: Movable, link: Link, wait: float | None) -> None:
    """Have a service or agent that is not started use the command line's connection, and wait so long for it."""
    settings = link.settings()
    if wait is not None:
        settings["wait"] = wait
    if settings:
        runnable.use(settings.pop("url", None), **settings)


def serve(
    runnable: Runnable, announcement: str, drain_timeout: float, start: Callable[[], object] | None = None
) -> None:
    """Run a service, agent or responder until SIGINT or SIGTERM; the announcement is printed once it runs.

    ``start`` starts it otherwise than its method does.
    """
    # Does nothing when the module has set logging up.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # From before the first request or command comes: a signal that came with it would end both. `run` has its own
    # handlers while it waits; after it, during the drain, a second signal means that there is no time for that.
    with handling(partial(_ask_to_stop, runnable)):
        try:
            (start or runnable.start)()
            servers = ",".join(runnable.client.options.servers)
            say(f"{announcement} on {servers} (process {os.getpid()})")
            client = runnable.client
            announce([client], lambda: f"{announcement}: {client.status.value}")
            runnable.run(drain_timeout)
        except _AskedToStop:
            return
        finally:
            notify("STOPPING=1")
            runnable.stop(drain_timeout)


class _AskedToStop(Exception):
    """SIGINT or SIGTERM came before `run` listened to signals."""


def _ask_to_stop(runnable: Runnable, number: int) -> NoReturn:
    if runnable.stage.value != "running":
        end(number)
    raise _AskedToStop


def _import(module: str, name: str) -> Any:
    if not all(part.isidentifier() for part in module.split(".")):
        raise click.UsageError(f"{module!r} is not a module; write it with dots: shop.prices:{name}")
    try:
        return importlib.import_module(module)
    except LightLinkError:
        raise
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise _broken(module, exc) from exc
        raise click.UsageError(f"there is no module {exc.name!r} in {Path.cwd()} or where Python is installed") from exc
    except Exception as exc:
        raise _broken(module, exc) from exc


def _broken(module: str, error: Exception) -> click.ClickException:
    """Return the report of a module that cannot be imported, with the line that failed."""
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}"
    return click.ClickException(f"{module} cannot be imported: {type(error).__name__}: {error} ({where})")
