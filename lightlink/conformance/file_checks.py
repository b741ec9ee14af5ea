"""Checks of files: what is stored in the object store ``light_link_files`` (ADR-20), and announced."""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import TYPE_CHECKING, Any

from lightlink.conformance.checks import (
    Checks,
    Fault,
    Script,
    Step,
    Wire,
    as_base64,
    error_of,
    fresh,
    from_base64,
    need,
    read_object,
    result_of,
    same,
)
from lightlink.files.bucket import Bucket
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Generator

    Steps = Generator[Step, dict[str, Any], Any]

BUCKET = "light_link_files"
_STREAM = f"OBJ_{BUCKET}"
# More than one chunk of the usual size, and not a whole number of them.
CONTENT = bytes(range(256)) * 1200 + b"the end"
NAME = "Übersicht 2026.csv"

_NAME_IS_ID = "The object's name is the file's id, a UUID;"
_DESCRIPTION = "its description holds the original name, size, digest (SHA-256) and chunk count."
_CHUNKS = "The chunks are the messages on `$O.<bucket>.C.<nuid>`, in order."
_DIGEST = "`digest` is `SHA-256=` and the hash of the whole content in base64url, with padding."
_READER = "A reader compares size and digest, and hands out nothing that does not fit as if it were the file."
_GONE = "A deleted file has `deleted: true` in its description, and no chunks; it reads as missing."
_ANNOUNCED = "`send_file` announces on `file.transfer`:"
_TO = "An announcement is for the service in `to`, and for every service where `to` is empty or missing."


def _prepare(wire: Wire) -> None:
    Bucket(wire.client.connection, BUCKET).make(wire.timeout)


FILES: Checks[Script] = Checks(_prepare)


def _meta_subject(file_id: str) -> str:
    return f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(file_id.encode()).decode()}"


def _upload(name: str = NAME, content: bytes = CONTENT) -> Steps:
    return str(result_of((yield Step("upload", {"name": name, "base64": as_base64(content)})), "upload"))


def _described(wire: Wire, file_id: str) -> dict[str, Any]:
    return read_object(wire.stored(_STREAM, _meta_subject(file_id)).data, "the description")


def _chunks(wire: Wire, meta: dict[str, Any]) -> list[bytes]:
    nuid = meta.get("nuid")
    if not isinstance(nuid, str) or not subjects.is_plain_token(nuid):
        raise Fault(f"the description's nuid is {nuid!r}")
    return [message.data for message in wire.history(_STREAM, f"$O.{BUCKET}.C.{nuid}")]


def _store(wire: Wire, content: bytes, digest_of: bytes | None = None) -> str:
    """Store a file as the format has it, by hand; with the digest of other content, if that is given."""
    file_id, nuid = new_id(), fresh("nuid")
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    for piece in pieces:
        wire.put(_STREAM, f"$O.{BUCKET}.C.{nuid}", piece)
    digest = hashlib.sha256(content if digest_of is None else digest_of).digest()
    meta = {
        "name": file_id,
        "bucket": BUCKET,
        "nuid": nuid,
        "size": len(content),
        "chunks": len(pieces),
        "digest": f"SHA-256={base64.urlsafe_b64encode(digest).decode()}",
        "description": NAME,
        "metadata": {"file_name": NAME},
        "options": {"max_chunk_size": 100_000},
    }
    wire.put(_STREAM, _meta_subject(file_id), meta, headers={"Nats-Rollup": "sub"})
    return file_id


@FILES("names the object by a UUID", _NAME_IS_ID)
def names_by_uuid(wire: Wire) -> Steps:
    """Have a file uploaded."""
    file_id = yield from _upload()
    meta = _described(wire, file_id)
    same(meta.get("name"), file_id, "the object's name")
    try:
        uuid.UUID(file_id)
    except ValueError:
        raise Fault(f"the file's id is {file_id!r}, not a UUID") from None


@FILES("keeps the file's own name", _DESCRIPTION)
def keeps_name(wire: Wire) -> Steps:
    """Look for the name in the description."""
    meta = _described(wire, (yield from _upload()))
    metadata = meta.get("metadata")
    told = metadata.get("file_name") if isinstance(metadata, dict) else None
    same(told or meta.get("description"), NAME, "the original name")


@FILES("tells size and chunks", _DESCRIPTION)
def tells_size(wire: Wire) -> Steps:
    """Compare what the description tells with what is stored."""
    meta = _described(wire, (yield from _upload()))
    same(meta.get("size"), len(CONTENT), "size")
    same(meta.get("chunks"), len(_chunks(wire, meta)), "chunks")


@FILES("stores the content in chunks", _CHUNKS)
def stores_chunks(wire: Wire) -> Steps:
    """Put the chunks together."""
    meta = _described(wire, (yield from _upload()))
    content = b"".join(_chunks(wire, meta))
    need(content == CONTENT, f"the chunks are {len(content)} bytes that are not the content of {len(CONTENT)}")


@FILES("tells the digest", _DIGEST)
def tells_digest(wire: Wire) -> Steps:
    """Compare the digest."""
    meta = _described(wire, (yield from _upload()))
    digest = base64.urlsafe_b64encode(hashlib.sha256(CONTENT).digest()).decode()
    same(meta.get("digest"), f"SHA-256={digest}", "digest")


@FILES("reads what another stored", _CHUNKS)
def reads(wire: Wire) -> Steps:
    """Store a file by hand, and have it read."""
    file_id = _store(wire, CONTENT)
    found = from_base64(result_of((yield Step("download", {"file_id": file_id})), "download"), "the content")
    need(found == CONTENT, f"what it read is {len(found)} bytes that are not the content of {len(CONTENT)}")


@FILES("hands out nothing whose digest is another", _READER)
def checks_digest(wire: Wire) -> Steps:
    """Store a file with a digest that is not its own."""
    file_id = _store(wire, CONTENT, digest_of=b"other")
    error_of((yield Step("download", {"file_id": file_id})), "download of a file with another digest")


@FILES("hands out nothing that lacks a chunk", _READER)
def checks_size(wire: Wire) -> Steps:
    """Store a file whose last chunk is not there."""
    short = _store(wire, CONTENT[:-7], digest_of=CONTENT[:-7])
    meta = {**_described(wire, short), "size": len(CONTENT)}
    wire.put(_STREAM, _meta_subject(short), meta, headers={"Nats-Rollup": "sub"})
    error_of((yield Step("download", {"file_id": short})), "download of a file without its last bytes")


@FILES("finds no file where there is none", _GONE)
def reads_missing(wire: Wire) -> Steps:  # noqa: ARG001 - all checks are called alike
    """Have a file read that was never stored."""
    error_of((yield Step("download", {"file_id": new_id()})), "download of a file that is not there")


@FILES("deletes description and chunks", _GONE)
def deletes(wire: Wire) -> Steps:
    """Have a file deleted."""
    file_id = yield from _upload()
    before = _described(wire, file_id)
    result_of((yield Step("delete_file", {"file_id": file_id})), "delete_file")
    after = wire.last(_STREAM, _meta_subject(file_id))
    gone = after is None or read_object(after.data, "the description").get("deleted") is True
    need(gone, "the description does not say deleted: true")
    left = len(_chunks(wire, before))
    need(not left, f"{left} chunks are left")


@FILES("announces a file that it sends", _ANNOUNCED)
def announces(wire: Wire) -> Steps:
    """Have a file sent."""
    with wire.hear("file.transfer") as heard:
        asked = {"name": NAME, "base64": as_base64(CONTENT), "to": "report-service"}
        file_id = result_of((yield Step("send_file", asked)), "send_file")
        told = read_object(wire.heard(heard, "the announcement").data, "the announcement")
    chunks = len(_chunks(wire, _described(wire, str(file_id))))
    expected = {"file_id": file_id, "file_name": NAME, "file_size": len(CONTENT), "chunk_num": chunks}
    for name, value in {**expected, "to": "report-service"}.items():
        same(told.get(name), value, f"the announcement's {name}")
    need(isinstance(told.get("from"), str), f"the announcement's from is {told.get('from')!r}, not text")


@FILES("takes files that are for it", _TO)
def takes_files(wire: Wire) -> Steps:
    """Announce files for the program, for another, and for all."""
    service = fresh("service")
    result_of((yield Step("listen_for_files", {"service": service})), "listen_for_files")
    expected = []
    for to in (service, fresh("other"), ""):
        file_id = _store(wire, b"apple,3\n")
        told = {"file_id": file_id, "file_name": NAME, "file_size": 8, "chunk_num": 1, "from": "judge", "to": to}
        wire.publish("file.transfer", told)
        if to in (service, ""):
            expected.append({"file_id": file_id, "file_name": NAME})
    outcome = yield Step("received_files", {"service": service, "count": len(expected)})
    same(result_of(outcome, "received_files"), expected, "what it took")
