"""Ports that a test takes later, or again."""

from __future__ import annotations

import random
import socket

# Below what Linux gives to whoever asks for any port, as all other tests do (ip_local_port_range: 32768 to 60999).
_FIRST, _LAST = 20_000, 32_000
_dice = random.Random()  # not the tests' own, which may be seeded alike in each worker


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has, and that nobody is given before it is taken."""
    while True:
        port = _dice.randrange(_FIRST, _LAST)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
