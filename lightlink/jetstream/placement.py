"""Where the servers are that hold a stream."""

from __future__ import annotations

from typing import Any

from lightlink.errors import InvalidOption


def check_placement(value: Any) -> dict[str, Any] | None:
    """Return a placement as the API takes it, None for anywhere; raises InvalidOption."""
    if value is None:
        return None
    is_fit = isinstance(value, dict) and value and value.keys() <= {"cluster", "tags"}
    if not is_fit or not isinstance(value.get("cluster", ""), str) or not isinstance(value.get("tags", []), list):
        raise InvalidOption("placement", "must be {'cluster': name} or {'tags': [tag, ...]}, or both", value)
    return dict(value)
