"""The ``lightlink`` command (extra ``cli``).

Exit codes::

    0    done; a server or service that was asked to stop (SIGINT, SIGTERM) stopped
    1    the service answered with an error, or anything else went wrong
    2    the command line cannot be: an unknown option, bad JSON, a name that NATS would refuse
    3    could not connect, or the server refused this identity
    4    no answer in time; what was asked for may have happened
    5    not now: nobody serves it, it is busy, or it was too late; what was asked for did not happen
    130  ended by Ctrl-C (143: by SIGTERM)

An error is one line on stderr that starts with ``error:``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lightlink.cli.processes.init import leave_init

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXTRA = ("click", "rich", "watchfiles")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's) and return its exit code."""
    if args is None:
        leave_init()  # before there are threads
    try:
        # Here, because its packages may be missing; a command imports more of them when it is used.
        from lightlink.cli.app import cli  # noqa: PLC0415
        from lightlink.cli.terminal.exits import run  # noqa: PLC0415

        return run(cli, args)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        print(f"error: the lightlink command needs {package}: pip install 'lightlink[cli]'", file=sys.stderr)  # noqa: T201
        return 1
