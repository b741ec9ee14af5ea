"""Keep large files on the server: store, fetch, list and remove them, and send them to a service.

python samples/files.py [URL]
"""

from __future__ import annotations

import hashlib
import io
import queue
import tempfile
from pathlib import Path

from _server import nats_url

import lightlink


def main(url: str) -> None:
    """Use files in each of the ways there are."""
    with lightlink.connect(url, name="sample") as client, tempfile.TemporaryDirectory() as folder:
        there_and_back(client, Path(folder))
        anything_readable(client)
        cancelled(client)
        sent_to_a_service(client, url)


def there_and_back(client: lightlink.Client, folder: Path) -> None:
    """Store a file and fetch it again, and be told how far it is."""
    source, copy = folder / "measurements.csv", folder / "copy.csv"
    source.write_text("".join(f"{n},{n * n}\n" for n in range(200_000)))

    # It is sent in chunks, and never held in memory as a whole: a gigabyte takes no more than this.
    info = client.upload(source, metadata={"site": "berlin"})
    print(f"stored: {info.name}, {info.size} bytes in {info.chunks} chunks, {info.content_type}")

    # The copy appears when it is whole and its SHA-256 is right, and not before. An outage is waited for; only when
    # nothing moves for `stall_timeout` seconds is the transfer given up.
    told: list[tuple[int, int | None]] = []
    client.download(info.id, copy, progress=lambda *now: told.append(now), stall_timeout=10.0)
    print("fetched:", copy.read_bytes() == source.read_bytes(), "from", told[0], "to", told[-1])

    print("listed:", [(known.name, known.metadata) for known in client.files() if known.id == info.id])
    client.delete_file(info.id)
    try:
        client.download(info.id, copy)
    except lightlink.StoredFileNotFound as error:
        print("deleted:", str(error).replace(info.id, "..."))


def anything_readable(client: lightlink.Client) -> None:
    """Store and fetch by way of binary file objects."""
    info = client.upload(io.BytesIO(b"straight from memory"), name="memory.bin")
    target = io.BytesIO()
    client.download(info.id, target)
    print("memory:", target.getvalue().decode())
    client.delete_file(info.id)


def cancelled(client: lightlink.Client) -> None:
    """Cancel a transfer: what the progress function raises ends it, and nothing is left behind."""

    class Enough(Exception):
        pass

    def tell(done: int, _total: int | None) -> None:
        if done > 1_000_000:
            raise Enough

    try:
        client.upload(io.BytesIO(bytes(50_000_000)), name="zeros.bin", progress=tell)
    except Enough:
        print("cancelled, left behind:", [known.name for known in client.files() if known.name == "zeros.bin"])


def sent_to_a_service(client: lightlink.Client, url: str) -> None:
    """Send a file to a service, which fetches it when it likes."""
    service = lightlink.Service("report-service", url)
    done: queue.Queue[str] = queue.Queue()

    # One instance of the service gets each file sent to it, on a worker thread.
    @service.on_file
    def on_file(info: lightlink.FileInfo) -> None:
        content = io.BytesIO()
        service.client.download(info.id, content)
        digest = hashlib.sha256(content.getvalue()).hexdigest()[:8]
        done.put(f"{info.name} from {info.sender}, {info.size} bytes, SHA-256 {digest}...")

    with service:
        client.send_file(io.BytesIO(b"a report\n" * 50_000), to="report-service", name="report.txt")
        print("report-service got", done.get(timeout=10.0))


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
