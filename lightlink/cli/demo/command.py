"""Run the demo: a server, a service in a process of its own, and the chapters one after the other."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import subprocess
import tempfile
import textwrap
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

import lightlink
from lightlink.cli import children
from lightlink.cli.demo import service as demo_service
from lightlink.cli.demo.chapters import CHAPTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SERVICE = f"{demo_service.__name__}:service"
_STOP_TIMEOUT = 5.0


@click.command()
def demo() -> None:
    """Show what LightLink does, in ten seconds.

    It starts a nats-server and a service of its own, and stops them at the end.
    """
    console = Console(highlight=False)
    console.print(Text("LightLink: other processes as plain blocking Python, over NATS.", style="bold"))
    with lightlink.EmbeddedServer() as server:
        _heading(console, 0, "A server and a service")
        _text(console, f"A real nats-server with JetStream listens at {server.url} (process {server.pid}).")
        with _service(server.url) as child, lightlink.connect(server.url, name="demo") as client:
            _text(console, f"This service runs in a process of its own ({child.pid}), started by `lightlink run`:")
            _code(console, _after_opening(inspect.getsource(demo_service)))
            for number, chapter in enumerate(CHAPTERS, start=1):
                _play(console, number, chapter, client)
    console.print()
    _text(console, "The service and the server are stopped. Next: README.md, samples/, `lightlink --help`.")


@contextlib.contextmanager
def _service(url: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo's service in a process of its own."""
    with tempfile.TemporaryFile("w+") as log:
        child = children.start([_SERVICE, f"--url={url}"], stdout=subprocess.PIPE, stderr=log)
        try:
            # Its first line says that it serves; if it cannot, it ends, and the line is empty.
            if child.stdout is None or not child.stdout.readline():
                log.seek(0)
                raise lightlink.ServerError(f"the demo's service could not be started: {log.read()}")
            yield child
        finally:
            children.stop(child, _STOP_TIMEOUT)


def _play(console: Console, number: int, chapter: Callable[[lightlink.Client], None], client: lightlink.Client) -> None:
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
