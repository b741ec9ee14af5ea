"""``lightlink file``: files in JetStream object stores."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from lightlink.cli.terminal.exits import remove
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, standard_input, to_json
from lightlink.cli.terminal.printing import say
from lightlink.errors import LightLinkError
from lightlink.files.store import DEFAULT_STALL_TIMEOUT, DEFAULT_SWEEP_AGE
from lightlink.protocol.subjects import FILES_BUCKET
from lightlink.protocol.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import lightlink
    from lightlink.cli.terminal.options import Link
    from lightlink.files import Progress as Tell

_SOURCE = click.Path(exists=True, dir_okay=False, allow_dash=True)
_bucket = click.option("--bucket", default=FILES_BUCKET, show_default=True, metavar="NAME", help="The file store.")
_stall = click.option(
    "--stall-timeout",
    type=SECONDS,
    default=DEFAULT_STALL_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Give up when nothing moves for so long, with exit code 4.",
)
_quiet = click.option("--quiet", is_flag=True, help="Show no progress.")


@click.group()
def file() -> None:
    """Store, fetch and send files of any size.

    \b
        lightlink file upload data.csv
        lightlink file list
        lightlink file download 5b0f7c1e-... copy.csv
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what describes a file that is stored, and hand it over as its argument ``described``."""

    @functools.wraps(command)
    def with_description(name: str | None, content_type: str | None, metadata: tuple[str, ...], **values: Any) -> None:
        pairs = dict(_pair(text) for text in metadata)
        command(described={"name": name, "content_type": content_type, "metadata": pairs}, **values)

    options = (
        click.option("--name", metavar="TEXT", help="The file's name; default: its own."),
        click.option("--type", "content_type", metavar="TYPE", help="Its content type; default: guessed by the name."),
        click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Metadata to store with it."),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), with_description)


@file.command()
@click.argument("source", type=_SOURCE)
@_source_options
@_bucket
@_stall
@_quiet
@json_option
@link_options
def upload(
    link: Link, source: str, described: dict[str, Any], bucket: str, stall_timeout: float, quiet: bool, as_json: bool
) -> None:
    """Store the file SOURCE ("-" reads standard input) and print its id.

    The store is made if it is not there.
    """
    with _opened(source) as stream, link.connect() as client, _progress("upload", quiet or as_json) as tell:
        store = client.file_store(bucket)
        info = store.upload(stream, progress=tell, stall_timeout=stall_timeout, **described)
    _show(info, as_json=as_json)


@file.command()
@click.argument("source", type=_SOURCE)
@click.option("--to", default="", metavar="SERVICE", help="The service to send it to; default: all services.")
@_source_options
@_stall
@_quiet
@json_option
@link_options
def send(
    link: Link, source: str, to: str, described: dict[str, Any], stall_timeout: float, quiet: bool, as_json: bool
) -> None:
    """Store the file SOURCE, tell a service that it is there, and print its id.

    Whether a service takes it is not known.
    """
    with _opened(source) as stream, link.connect() as client, _progress("upload", quiet or as_json) as tell:
        info = client.send_file(stream, to, progress=tell, stall_timeout=stall_timeout, **described)
    _show(info, as_json=as_json)


@file.command()
@click.argument("file_id", metavar="ID")
@click.argument("target", type=click.Path(allow_dash=True), default=".")
@click.option("--force", is_flag=True, help="Replace the target if it is there.")
@_bucket
@_stall
@_quiet
@json_option
@link_options
def download(
    link: Link, file_id: str, target: str, force: bool, bucket: str, stall_timeout: float, quiet: bool, as_json: bool
) -> None:
    """Fetch the file ID to TARGET ("-" writes to standard output), checked by its SHA-256.

    In a directory, by default the current one, it gets its own name.
    """
    with link.connect() as client:
        store = client.file_store(bucket)
        if target == "-":
            with _os_errors():
                store.download(file_id, sys.stdout.buffer, stall_timeout=stall_timeout)
                sys.stdout.flush()
            return
        path = _place(Path(target), store.info(file_id))
        if path.exists() and not force:
            raise click.ClickException(f"{path} is there already; --force replaces it")
        with _os_errors(), _progress("download", quiet or as_json) as tell:
            info = store.download(file_id, path, progress=tell, stall_timeout=stall_timeout)
    if as_json:
        say(to_json({**_fields(info), "path": str(path)}))
    else:
        say(f"{path}  {decimal(info.size)}")


@file.command("list")
@_bucket
@json_option
@link_options
def list_(link: Link, bucket: str, as_json: bool) -> None:
    """Print what files there are, newest first."""
    with link.connect() as client:
        files = client.file_store(bucket).files()
    if as_json:
        for info in files:
            say(to_json(_fields(info)))
        return
    if not files:
        say("no files")
        return
    width = max(len(info.id) for info in files)
    say(f"{'ID':{width}}  {'STORED':19}  {'SIZE':>10}  NAME")
    for info in files:
        stored = info.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        say(f"{visible(info.id):{width}}  {stored}  {decimal(info.size):>10}  {visible(info.name)}")


@file.command()
@click.argument("file_ids", metavar="ID...", nargs=-1, required=True)
@_bucket
@json_option
@link_options
def delete(link: Link, file_ids: tuple[str, ...], bucket: str, as_json: bool) -> None:
    """Remove the files with these IDs."""
    with link.connect() as client:
        for file_id in file_ids:
            client.file_store(bucket).delete(file_id)
            say(to_json({"id": file_id, "deleted": True}) if as_json else f"{file_id} is deleted")


@file.command("sweep")
@click.option(
    "--older-than",
    type=click.FloatRange(min=1),
    default=DEFAULT_SWEEP_AGE,
    show_default=True,
    metavar="SECONDS",
    help="How long an upload may have been silent; one that continues later fails.",
)
@_bucket
@json_option
@link_options
def sweep_(link: Link, older_than: float, bucket: str, as_json: bool) -> None:
    """Remove what uploads have left whose process was killed."""
    with link.connect() as client:
        chunks = client.file_store(bucket).sweep(older_than)
    say(to_json({"chunks": chunks}) if as_json else f"{chunks} chunks removed")


@file.command()
@json_option
@link_options
def buckets(link: Link, as_json: bool) -> None:
    """Print the file stores there are: size, limit, how long files live."""
    with link.connect() as client:
        for each in client.file_stores():
            life = f"{each.ttl:g} s" if each.ttl else "for ever"
            limit = f" of {decimal(each.max_bytes)}" if each.max_bytes else ""
            say(to_json(each) if as_json else f"{each.name}  {decimal(each.bytes)}{limit}  {life}")


@file.command()
@click.argument("name", metavar="BUCKET")
@click.option("--yes", is_flag=True, help="Without asking.")
@link_options
@click.pass_context
def destroy(ctx: click.Context, /, link: Link, name: str, yes: bool) -> None:
    """Remove a file store with all its files. Exit code 1 says that there was none."""

    def destroy_store() -> bool:
        with link.connect() as client:
            return client.file_store(name).destroy()

    remove(ctx, "file store", name, "files", destroy_store, yes=yes)


# --------------------------------------------------------------------------------------------------------------------


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"--metadata must be KEY=VALUE, not {text!r}")
    return key, value


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turn what the operating system complains of into one line."""
    try:
        yield
    except LightLinkError:
        raise
    except OSError as exc:
        raise click.ClickException(str(exc)) from exc


@contextlib.contextmanager
def _opened(source: str) -> Iterator[Any]:
    """Give the source of an upload."""
    with _os_errors():
        if source == "-":
            yield standard_input()
        else:
            yield source


@contextlib.contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Tell | None]:
    """Show a bar with rate and time left on stderr while a transfer runs there for somebody to see."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _place(target: Path, info: lightlink.FileInfo) -> Path:
    """Return the path for a file; in a directory, under the last part of its name, whatever system wrote that."""
    if not target.is_dir():
        return target
    last = PureWindowsPath(PurePosixPath(info.name.replace("\0", "")).name).name
    return target / (last if last not in ("", "..") else info.id.replace("/", "_"))


def _show(info: lightlink.FileInfo, *, as_json: bool) -> None:
    if as_json:
        say(to_json(_fields(info)))
    else:
        say(f"{info.id}  {visible(info.name)}  {decimal(info.size)}")


def _fields(info: lightlink.FileInfo) -> dict[str, Any]:
    fields = ("id", "name", "size", "digest", "chunks", "created", "content_type", "metadata")
    return {field: getattr(info, field) for field in fields}
