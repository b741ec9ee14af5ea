"""Values that a peer of bad will, or none, could put where something else is meant."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

# What becomes protocol, a subject, a line of a log or a terminal's order where it is not checked.
TEXTS = [
    "",
    " ",
    ">",
    "*",
    "a.b",
    "a.>",
    "a b",
    "\t",
    "x\r\nPUB evil.x 2\r\nhi\r\n",
    "x 0\r\n\r\nPUB evil.x 2\r\nhi\r\nPUB foo",
    "\x00",
    "\x1b[2J",
    "\u2028",
    "\u202e",
    "../../etc/passwd",
    "ü",
    "x" * 5000,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "__class__",
    "%s{0}",
]
_NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, -0.0, 1e308]

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_NUMBERS),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
    st.integers(),
    st.lists(st.sampled_from([None, *TEXTS[:10], 1]), max_size=3),
    st.dictionaries(st.sampled_from(TEXTS), st.none() | st.integers(), max_size=3),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value in a JSON value, itself included."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, member in members for each in places(member, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, template: dict[str, Any]) -> Any:
    """Draw a JSON value like the template, of which one to three members are missing, more, or something else."""
    value = copy.deepcopy(template)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(anything)
            value[draw(st.sampled_from(TEXTS))] = draw(anything)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()) and isinstance(parent, dict):
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(anything)
    return value
