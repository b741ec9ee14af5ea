"""The network path of a client: connection migration, handled here instead of in qh3.

qh3 (2.1) tracks at most four addresses of a peer and never returns to an earlier one: a roaming client would be lost
on its fourth change of address, or when it first returns to one. So qh3 sees a constant address, and the rules of RFC
9000, section 9.3, are applied here: only an authentic packet migrates a client; a new address is validated by the ACK
of a PING; until then sending is limited, and if validation fails the client falls back to its last validated address.
"""

from __future__ import annotations

from typing import Any

# The anti-amplification limit is three times what was received (RFC 9000, section 8.1); a packet counts as full-sized.
_FACTOR, _LEAST = 3, 1200
# Seconds: until the ACK, and for packets in flight from the previous address to arrive.
_VALIDATE_WITHIN = 5.0
_STRAGGLERS = 0.5


class Path:
    """The network path of one client."""

    def __init__(self, address: Any) -> None:
        self.current = address
        self._validated = address  # the last validated address
        self._before: Any = None
        self._moved_at = 0.0
        self._moves = 0
        self._received = 0
        self._sent = 0

    @property
    def is_validated(self) -> bool:
        """Whether the current address is validated."""
        return bool(self.current == self._validated)

    def note_received(self, size: int) -> None:
        """Count bytes received from the current address."""
        self._received += size

    def is_move(self, address: Any, now: float) -> bool:
        """Tell whether an authentic packet from an address migrates the client there."""
        return address != self.current and not (address == self._before and now - self._moved_at < _STRAGGLERS)

    def move(self, address: Any, size: int, now: float) -> int:
        """Migrate to an address; returns the number of the PING that must be acknowledged from it."""
        self._before, self.current = self.current, address
        self._moved_at = now
        self._moves += 1
        self._received, self._sent = size, 0
        return self._moves

    def note_acknowledged(self, ping: int) -> None:
        """Handle the ACK of a PING."""
        if ping == self._moves:
            self._validated = self.current

    def may_send(self, size: int, now: float) -> bool:
        """Tell whether a packet may be sent to the current address, and count it."""
        if self.is_validated:
            return True
        if now - self._moved_at > _VALIDATE_WITHIN:
            self.current = self._validated
            return True
        if self._sent + size > _FACTOR * max(self._received, _LEAST):
            return False
        self._sent += size
        return True
