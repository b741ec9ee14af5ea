"""Request and response schemas of the console's session."""

from __future__ import annotations

from typing import Annotated, Literal

import attrs
from msgspec import Meta


@attrs.frozen(kw_only=True)
class LogIn:
    """A bearer token, sent once to log in."""

    token: Annotated[str, Meta(min_length=1, max_length=4096)]


@attrs.frozen(kw_only=True, slots=False)
class Session:
    """The current user and permissions. ``log_in`` says whether logging in is required."""

    success: Literal[True] = True
    log_in: bool
    version: str
    name: str = ""
    scope: list[str] = attrs.field(factory=list)
