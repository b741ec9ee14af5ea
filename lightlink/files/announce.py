"""Tell a service that a file is there for it, and hear of such files (docs/wire.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from lightlink import logs
from lightlink.errors import DecodeError
from lightlink.events.message import Message
from lightlink.middleware import Call
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.connection.connection import Connection
    from lightlink.files.info import FileInfo
    from lightlink.middleware import Stack


class Announcement(msgspec.Struct, rename={"sender": "from"}):
    """The body of a message on ``file.transfer``; an empty ``to`` means every service."""

    file_id: str
    file_name: str | None = None
    file_size: int | None = None
    chunk_num: int | None = None
    sender: str | None = None
    to: str | None = None


def announce(
    connection: Connection, info: FileInfo, to: str, headers: Mapping[str, str | list[str]] | None = None
) -> None:
    """Publish that a file is there; on return the server has it. Raises FlushTimeout, PermissionDenied, ClosedError."""
    body = Announcement(info.id, info.name, info.size, info.chunks, connection.sender, to)

    def send(call: Call) -> None:
        given = logs.outgoing(call.headers)
        block = codec.encode_headers(codec.checked_headers(given)) if given else None
        connection.publish(subjects.publish_subject(call.name), codec.encode_json(call.args), headers=block)
        connection.confirm(call.name)

    connection.middleware.run(
        Call(kind="publish", name=subjects.FILE_TRANSFER, args=body, headers=dict(headers or {})), send
    )


class FileReceiver:
    """Gives a handler the files announced to a service; ``info(file id)`` returns what their store knows of each."""

    def __init__(
        self, info: Callable[[str], FileInfo], service: str, handler: Callable[[FileInfo], object], middleware: Stack
    ) -> None:
        self._info = info
        self._service = service
        self._handler = handler
        self._middleware = middleware

    def __call__(self, message: Message) -> None:
        """Take one announcement; raises DecodeError for one that is malformed, StoredFileNotFound."""
        data: bytes = message.data
        announced = codec.decode(data, subjects.FILE_TRANSFER, Announcement)
        if announced.to not in (None, "", self._service):
            return
        if not announced.file_id:
            raise DecodeError(subjects.FILE_TRANSFER, "names no file", data[:64])
        info = self._info(announced.file_id)
        # An object put without a name of its own has only its id: peers tell the name in the announcement.
        name = announced.file_name if announced.file_name and info.name == info.id else info.name
        info = attrs.evolve(info, name=name, sender=announced.sender or "", headers=message.headers)
        call = Call(kind="file", name=message.subject, args=info, headers=message.headers, message=message)
        self._middleware.run(call, lambda given: self._handler(given.args))
