"""Views of files: listed, taken in and handed out as they are."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec import UNSET
from werkzeug.exceptions import LengthRequired, RequestEntityTooLarge
from werkzeug.wrappers import Response
from werkzeug.wsgi import wrap_file

from lightlink.http.data.schemas import Done, FileList, FileView, OneFile
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from lightlink.files import FileInfo, FileStore
    from lightlink.http.call import Call

MIMETYPE = "application/octet-stream"
_WHAT = "files"
_MOST_FILES = 500
# A download up to this size stays in memory until it is sent.
_SPOOL_BYTES = 1024 * 1024
# Characters of control, of line ends, halves of others; and those that turn the direction of text.
_UNTOLD = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
# In quotes, for what does not know the other form: `\`, `"` and `%` are read in several ways.
_PLAIN = re.compile(r"[ !#$&-\[\]^_`a-z{|}~]")
# Besides letters and digits (RFC 8187, attr-char).
_AS_THEY_ARE = "!#$&+^`|"


def list_files(call: Call) -> FileList:
    """List the files of a bucket."""
    store = _store(call)
    files = store.files()
    buckets = [
        name.removeprefix(subjects.FILES_STREAMS)
        for name in call.manager.client.streams()
        if name.startswith(subjects.FILES_STREAMS)
    ]
    return FileList(
        bucket=store.bucket, buckets=buckets, total=len(files), files=[_file(each) for each in files[:_MOST_FILES]]
    )


def upload_file(call: Call) -> OneFile:
    """Store the body as a file."""
    store, request, most = _store(call), call.request, call.app.limits.max_file
    if request.content_length is None:
        raise LengthRequired("Content-Length is missing")
    if request.content_length > most:
        raise RequestEntityTooLarge(f"the file has more than {most} bytes; `lightlink upload` takes larger ones")
    by = {"uploaded_by": call.issued_by} if call.issued_by else {}
    with call.seat():
        return OneFile(file=_file(store.upload(request.stream, name=call.query.name, metadata=by)))


def download_file(call: Call) -> Response:
    """Hand out a file, once it is known to be whole."""
    store = _store(call)
    spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed with the response
    try:
        with call.seat():
            info = store.download(call.path["file_id"], spool)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    # What somebody has stored must not become a page of this site.
    response = Response(wrap_file(call.request.environ, spool), mimetype=MIMETYPE, direct_passthrough=True)
    response.headers["Content-Disposition"] = _attachment(info.name or info.id)
    response.content_length = info.size
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(spool.close)
    return response


def delete_file(call: Call) -> Done:
    """Remove a file."""
    _store(call).delete(call.path["file_id"])
    return Done()


def _attachment(name: str) -> str:
    """Return the header that has a browser keep a file under its name (RFC 6266), whatever its uploader called it."""
    # Nor may what looks like a picture be a program whose name is read from the right.
    told = "".join("_" if _is_untold(each) else each for each in name)
    split = unicodedata.normalize("NFKD", told)
    plain = "".join(each if _PLAIN.fullmatch(each) else "_" for each in split if not unicodedata.combining(each))
    header = f'attachment; filename="{plain}"'
    return header if plain == told else f"{header}; filename*=UTF-8''{quote(told, safe=_AS_THEY_ARE)}"


def _is_untold(character: str) -> bool:
    return unicodedata.category(character) in _UNTOLD or unicodedata.bidirectional(character) in _TURNS


def _store(call: Call) -> FileStore:
    call.check_unlimited(_WHAT)
    bucket = call.query.bucket
    return call.manager.client.file_store(subjects.FILES_BUCKET if bucket is UNSET else bucket)


def _file(info: FileInfo) -> FileView:
    names = ("id", "name", "size", "digest", "created", "metadata")
    return FileView(**{name: getattr(info, name) for name in names}, content_type=info.content_type or "")
