"""Which HTTP status says what an error says."""

from __future__ import annotations

from http.client import responses
from typing import TYPE_CHECKING

from lightlink import errors
from lightlink.errors import InvalidOption, LightLinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

# An error counts as what it is a subclass of. What is not here is a mistake of the application itself: 500.
STATUSES: Mapping[type[LightLinkError], int] = {
    # The request cannot be carried out as it is.
    errors.InvalidArguments: 400,
    errors.InvalidRequest: 400,
    errors.InvalidName: 400,
    errors.MethodNotFound: 404,
    errors.StateNotFound: 404,
    errors.StoredFileNotFound: 404,
    errors.CommandNotFound: 404,
    errors.RevisionConflict: 409,
    errors.CommandEnded: 409,
    errors.PayloadTooLarge: 413,
    errors.ServiceBusy: 429,
    # What it needs failed,
    errors.RemoteError: 502,
    errors.CommandFailed: 502,
    errors.DecodeError: 502,
    errors.FileCorrupt: 502,
    # is not there at the moment,
    errors.ConnectError: 503,
    errors.ServiceUnavailable: 503,
    errors.OutboxFull: 503,
    errors.AgentOffline: 503,
    errors.StoreUnavailable: 503,
    errors.StateError: 503,
    errors.ResourceExhausted: 503,
    # or did not answer in time.
    errors.CallTimeout: 504,
    errors.DeadlineExceeded: 504,
    errors.CommandTimeout: 504,
    errors.MessageTimeout: 504,
    errors.FlushTimeout: 504,
    errors.NoMessage: 504,
    errors.TransferStalled: 504,
}


def with_changes(changes: Mapping[type[LightLinkError] | str, int | None]) -> dict[type[LightLinkError], int | None]:
    """Return the map with some statuses changed; None takes an error out. Errors may be given by name.

    Raises InvalidOption for what is no error of LightLink's, and for what is no status of an error.
    """
    statuses: dict[type[LightLinkError], int | None] = dict(STATUSES)
    for given, status in changes.items():
        kind = getattr(errors, given, None) if isinstance(given, str) else given
        if not isinstance(kind, type) or not issubclass(kind, LightLinkError):
            raise InvalidOption("statuses", "must map errors of LightLink to statuses", given)
        if status is not None and (isinstance(status, bool) or not isinstance(status, int) or not 400 <= status < 600):
            raise InvalidOption("statuses", f"the status of {kind.__name__} must be from 400 to 599, or None", status)
        statuses[kind] = status
    return statuses


def status_of(error: LightLinkError, statuses: Mapping[type[LightLinkError], int | None]) -> int | None:
    """Return the status for an error: that of its class, or else of the nearest one above; None if there is none."""
    return next((statuses[kind] for kind in type(error).__mro__ if kind in statuses), None)


def phrase_of(status: int) -> str:
    """Return what a status is called; its number where it has no name, as 529."""
    return responses.get(status, str(status))
