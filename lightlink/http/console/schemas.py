"""What the requests and replies of the console's session are made of."""

from __future__ import annotations

from typing import Annotated, Literal

import attrs
from msgspec import Meta


@attrs.frozen(kw_only=True)
class LogIn:
    """A bearer token, shown once."""

    token: Annotated[str, Meta(min_length=1, max_length=4096)]


@attrs.frozen(kw_only=True, slots=False)
class Session:
    """Who is logged in, and what they may do. ``log_in`` says whether one must be."""

    success: Literal[True] = True
    log_in: bool
    version: str
    name: str = ""
    scope: list[str] = attrs.field(factory=list)
