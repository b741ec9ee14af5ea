"""The process of one actor: makes it, and calls its methods as the benchmark asks for, one JSON line each.

``python -m tests.benchmarks.actor <module>:<class> <settings as JSON>``, the module one of `tests.benchmarks.actors`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any


def main(target: str, settings: dict[str, Any]) -> None:
    """Answer requests from standard input until it ends."""
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if settings.pop("without_uvloop", False):
        sys.modules["uvloop"] = None  # type: ignore[assignment] - makes importing it fail

    def answer(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")

    try:
        module, _, name = target.partition(":")
        actor = getattr(importlib.import_module(f"tests.benchmarks.actors.{module}"), name)(**settings)
    except Exception as exc:
        answer(error=_explain(exc))
        return
    answer(value="ready")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            # With it goes the processor time of all the actor's threads since it was made.
            act = getattr(actor, request["do"]) if request["do"] else (lambda: None)
            value = act(**request["with"])
            answer(value=value, cpu=time.process_time())
        except Exception as exc:
            traceback.print_exc()
            answer(error=_explain(exc))
    # A peer that hangs as it closes must not hold up the benchmark; its process ends here.
    os._exit(0)


def _explain(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text[:160]}" if text else type(exc).__name__


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
