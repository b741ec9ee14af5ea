"""When and how a call is made again."""

from __future__ import annotations

import random
from typing import Any

import attrs

from lightlink.errors import CallError, DeadlineExceeded, InvalidOption, ServiceBusy, ServiceUnavailable
from lightlink.validators import FOR_EVER, integer, seconds_or_zero

# After these the call certainly did not run.
DID_NOT_RUN: tuple[type[CallError], ...] = (ServiceUnavailable, ServiceBusy, DeadlineExceeded)


def _error_types(value: Any) -> tuple[type[CallError], ...]:
    if isinstance(value, type):
        return (value,)
    try:
        return tuple(value)
    except TypeError:
        raise InvalidOption("on", "must name errors that are CallError", value) from None


@attrs.frozen(kw_only=True)
class Retry:
    """How a call that failed is made again: ``client.call(..., retry=lightlink.Retry(attempts=3))``.

    At most ``attempts`` calls are made in all, each with the full timeout, for the errors named in ``on``. Before the
    n-th repetition it waits ``backoff * 2**n`` seconds, at most ``backoff_max``, of which a random half is left out.

    An error after which the call may have run (CallTimeout, HandlerError, ...) is repeated only if ``idempotent`` says
    that running it twice does no harm, or the service says so of the method: ``@service.rpc(idempotent=True)``.
    """

    attempts: int = attrs.field(default=3)
    on: tuple[type[CallError], ...] = attrs.field(default=(ServiceUnavailable, ServiceBusy), converter=_error_types)
    backoff: float = attrs.field(default=0.05)
    backoff_max: float = attrs.field(default=2.0)
    idempotent: bool = attrs.field(default=False)

    def __attrs_post_init__(self) -> None:
        integer("attempts", self.attempts)
        for name in ("backoff", "backoff_max"):
            seconds_or_zero(name, getattr(self, name), FOR_EVER)
        for error in self.on:
            if not isinstance(error, type) or not issubclass(error, CallError):
                raise InvalidOption("on", "must name errors that are CallError", error)

    def wants(self, error: CallError, attempt: int) -> bool:
        """Tell whether a call that failed at its ``attempt`` (from 1) is to be made again, if it may be."""
        return attempt < self.attempts and isinstance(error, self.on)

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after the failure of an ``attempt`` (from 1)."""
        longest = min(self.backoff_max, self.backoff * 2.0 ** min(attempt - 1, 32))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
