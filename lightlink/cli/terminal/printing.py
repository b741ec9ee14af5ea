"""Print what peers say so that a terminal shows it and does nothing else: every line of the CLI goes through here."""

from __future__ import annotations

import click

from lightlink.protocol.text import visible


def say(text: str, *, err: bool = False) -> None:
    """Print one line; what a terminal would obey becomes visible."""
    click.echo(visible(text), err=err)
