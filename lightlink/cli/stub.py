"""``lightlink stub`` and ``lightlink openapi``: what a service announces, as source and as a document."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lightlink.cli.terminal.exits import Exit, report
from lightlink.cli.terminal.options import SECONDS, link_options
from lightlink.cli.terminal.printing import say
from lightlink.protocol import codec
from lightlink.protocol.text import visible_json
from lightlink.rpc.openapi import write_openapi
from lightlink.rpc.stub import write_stub

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link

_output = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; default: print it."
)
_timeout = click.option(
    "--timeout", type=SECONDS, default=5.0, show_default=True, metavar="SECONDS", help="Wait for the service."
)


@click.command()
@click.argument("name")
@_output
@click.option(
    "--check", is_flag=True, help="Write nothing; exit code 1 if the file differs from what would be written."
)
@_timeout
@link_options
@click.pass_context
def stub(ctx: click.Context, link: Link, name: str, output: Path | None, check: bool, timeout: float) -> None:
    """Write a typed Python client for the service NAME, from what it announces.

    lightlink stub math -o math_client.py
    """
    if check and output is None:
        raise click.UsageError("--check is about a file: name it with -o")
    with link.connect() as client:
        text = write_stub(client.service(name).info(timeout=timeout))
    if not check or output is None:
        _write(text, output)
    elif not output.exists() or output.read_bytes() != text.encode():
        report(f"{output} is not what `lightlink stub {name} -o {output}` would write")
        ctx.exit(Exit.FAILED)


@click.command()
@click.argument("name")
@_output
@_timeout
@link_options
def openapi(link: Link, name: str, output: Path | None, timeout: float) -> None:
    """Print the service NAME as an OpenAPI 3.1 document, for documentation and gateways.

    Each method is a POST of its arguments to /<service>/<method>, as a gateway in front of it would take it.
    """
    with link.connect() as client:
        document = write_openapi(client.service(name).info(timeout=timeout))
    lines = codec.encode_indented(document).split("\n")
    _write("\n".join(map(visible_json, lines)), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        for line in text.removesuffix("\n").split("\n"):
            say(line)
    else:
        output.write_text(text, encoding="utf-8")
        say(f"wrote {output}")
