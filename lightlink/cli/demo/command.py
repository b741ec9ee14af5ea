"""Run the demo: a server, a service in a process of its own, and the chapters one after the other."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import io
import os
import subprocess
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

import lightlink
from lightlink.cli.demo import service as demo_service
from lightlink.cli.demo.chapters import CHAPTERS
from lightlink.cli.processes import children
from lightlink.cli.terminal.options import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Chapter = Callable[[lightlink.Client], None]

_SERVICE = f"{demo_service.__name__}:service"
_STOP_TIMEOUT = 5.0


@click.command()
@click.option("--tls", "secure", is_flag=True, help="Run all of it over mutual TLS, and show what that brings.")
def demo(secure: bool) -> None:
    """Show what LightLink does, in ten seconds.

    It starts a nats-server and a service of its own, and stops them at the end.
    """
    for variable in ("LIGHTLINK_TLS_CA", "LIGHTLINK_TLS_CERT", "LIGHTLINK_TLS_KEY"):
        os.environ.pop(variable, None)  # they are for another server
    console = Console(highlight=False)
    console.print(Text("LightLink: other processes as plain blocking Python, over NATS.", style="bold"))
    if not secure:
        _show(console, lightlink.EmbeddedServer(), Link(), Link(), CHAPTERS)
    else:
        from lightlink.cli.demo.secure import (  # noqa: PLC0415 - takes cryptography along
            identities,
            make_certificates,
            roaming,
        )

        with tempfile.TemporaryDirectory(prefix="lightlink-demo-") as folder:
            certificates = Path(folder) / "certs"
            make_certificates(certificates)
            server = lightlink.EmbeddedServer(tls=certificates)
            shop, demo = (_link(certificates, name) for name in ("shop", "demo"))
            # QUIC is an extra.
            more = [identities, roaming] if importlib.util.find_spec("qh3") else [identities]
            _show(console, server, shop, demo, [*CHAPTERS, *more])
    console.print()
    _text(
        console,
        "The service and the server are stopped. Next: `lightlink --help`, and the tutorial (docs/ of the repository).",
    )


def _link(certificates: Path, name: str) -> Link:
    cert = certificates / f"{name}.pem"
    return Link(tls_ca=certificates / "ca.pem", tls_cert=cert, tls_key=cert.with_suffix(".key"))


def _show(
    console: Console, server: lightlink.EmbeddedServer, theirs: Link, ours: Link, chapters: Sequence[Chapter]
) -> None:
    """Run the server, the service with the connection ``theirs``, and the chapters with ``ours``."""
    with server:
        _heading(console, 0, "A server and a service")
        _text(console, f"A real nats-server with JetStream listens at {server.url} (process {server.pid}).")
        if server.tls is not None:
            _text(console, "It speaks mutual TLS, and knows the identities made by `lightlink certs` for this demo.")
        url = server.url
        with (
            _service(attrs.evolve(theirs, url=url)) as child,
            lightlink.connect(url, **ours.settings(), name="demo") as client,
        ):
            _text(console, f"This service runs in a process of its own ({child.pid}), started by `lightlink run`:")
            _code(console, _after_opening(inspect.getsource(demo_service)))
            for number, chapter in enumerate(chapters, start=1):
                _play(console, number, chapter, client)


@contextlib.contextmanager
def _service(link: Link) -> Iterator[subprocess.Popen[str]]:
    """Run the demo's service in a process of its own."""
    with tempfile.TemporaryFile("w+") as log:
        child = children.start([_SERVICE, *link.arguments()], stdout=subprocess.PIPE, stderr=log)
        try:
            # Its first line says that it serves; if it cannot, it ends, and the line is empty.
            if child.stdout is None or not child.stdout.readline():
                log.seek(0)
                raise lightlink.ServerError(f"the demo's service could not be started: {log.read()}")
            yield child
        finally:
            children.stop(child, _STOP_TIMEOUT)


def _play(console: Console, number: int, chapter: Chapter, client: lightlink.Client) -> None:
    """Show a chapter's text and code, run it, and show what it printed."""
    title, _, text = (inspect.getdoc(chapter) or "").partition("\n")
    _heading(console, number, title.rstrip("."))
    _text(console, " ".join(text.split()))
    _code(console, _body(chapter))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        chapter(client)
    for line in printed.getvalue().splitlines():
        console.print(Text(f"  > {line}", style="green"), soft_wrap=True)


def _body(function: Callable[..., None]) -> str:
    """Return the source of a function's body, without its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(f"a chapter is a function, not {function!r}")
    docstring = definition.body[0]
    return textwrap.dedent("\n".join(source.splitlines()[docstring.end_lineno :]))


def _after_opening(source: str) -> str:
    """Return a module's source after its docstring and ``__future__`` import."""
    return source.partition("from __future__ import annotations\n")[2]


def _heading(console: Console, number: int, title: str) -> None:
    console.print()
    console.print(Text(f"{number}. {title}", style="bold cyan"))


def _text(console: Console, text: str) -> None:
    console.print(Text(text))


def _code(console: Console, code: str) -> None:
    code = code.strip("\n")
    console.print()
    if console.is_terminal:
        console.print(Padding(Syntax(code, "python", background_color="default"), (0, 4)))
    else:
        console.print(Text(textwrap.indent(code, "    ")), soft_wrap=True)
    console.print()
