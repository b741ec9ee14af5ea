"""``lightlink run --reload``: the service in a child process, started anew when a Python file changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import PythonFilter, watch

from lightlink.cli.processes import children
from lightlink.cli.terminal.printing import say

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

_CHILD_CHECK_MS = 500


def supervise(arguments: Sequence[str], folder: Path, stop_timeout: float) -> None:
    """Run ``lightlink run`` with these arguments, again after each change in ``folder``, until asked to stop.

    A child that did not drain ``stop_timeout`` seconds after it was asked to is killed.
    """
    child = children.start(arguments)
    reported = False
    try:
        for changes in watch(folder, watch_filter=PythonFilter(), yield_on_timeout=True, rust_timeout=_CHILD_CHECK_MS):
            if changes:
                names = ", ".join(sorted({_short(Path(path), folder) for _, path in changes}))
                say(f"{names} changed: starting anew", err=True)
                children.stop(child, stop_timeout)
                child = children.start(arguments)
                reported = False
            elif not reported:
                reported = _report_end(child)
    except (KeyboardInterrupt, SystemExit):
        # Being asked to stop is how it ends well.
        return
    finally:
        children.stop(child, stop_timeout)


def _report_end(child: subprocess.Popen[str]) -> bool:
    code = child.poll()
    if code is not None:
        say(f"the service ended with exit code {code}; waiting for a change", err=True)
    return code is not None


def _short(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
