"""What child processes run that start from nothing and import what they are to do."""

from __future__ import annotations

import lightlink


def publish(url: str, subject: str, count: int) -> None:
    """Publish a number of messages, and close nothing."""
    client = lightlink.connect(url)
    for _ in range(count):
        client.publish(subject, bytes(500))
