"""Where a client is: followed here, and not by qh3.

qh3's core (2.1) knows four addresses of a peer at most, ever, and never goes back to one of them: on its fourth change
of address, or its first way back, a roaming client would be lost. So the core sees one address all the time, and the
rules of RFC 9000, section 9.3, are kept here: only an authentic packet moves a client; a new address must show that it
receives, by the acknowledgement of a PING; until then little is sent there, and without it the client is back where it
was.
"""

from __future__ import annotations

from typing import Any

# An address that is not validated gets three times what came from it (RFC 9000, section 8.1), taken for a full packet.
_FACTOR, _LEAST = 3, 1200
# Seconds: for the acknowledgement, and for what was under way from the address before to arrive.
_VALIDATE_WITHIN = 5.0
_STRAGGLERS = 0.5


class Path:
    """The address of one client."""

    def __init__(self, address: Any) -> None:
        self.current = address
        self._validated = address  # where it was seen to receive last
        self._before: Any = None
        self._moved_at = 0.0
        self._moves = 0
        self._received = 0
        self._sent = 0

    @property
    def is_validated(self) -> bool:
        """Whether it was seen to receive where it is."""
        return bool(self.current == self._validated)

    def note_received(self, size: int) -> None:
        """Count bytes that came from where it is."""
        self._received += size

    def is_move(self, address: Any, now: float) -> bool:
        """Tell whether an authentic packet from there says that the client is there now."""
        return address != self.current and not (address == self._before and now - self._moved_at < _STRAGGLERS)

    def move(self, address: Any, size: int, now: float) -> int:
        """Follow the client; returns the number of the PING that is to be acknowledged from there."""
        self._before, self.current = self.current, address
        self._moved_at = now
        self._moves += 1
        self._received, self._sent = size, 0
        return self._moves

    def note_acknowledged(self, ping: int) -> None:
        """Take note of an acknowledgement."""
        if ping == self._moves:
            self._validated = self.current

    def may_send(self, size: int, now: float) -> bool:
        """Tell whether a packet may be sent to where it is, and count it."""
        if self.is_validated:
            return True
        if now - self._moved_at > _VALIDATE_WITHIN:
            self.current = self._validated
            return True
        if self._sent + size > _FACTOR * max(self._received, _LEAST):
            return False
        self._sent += size
        return True
