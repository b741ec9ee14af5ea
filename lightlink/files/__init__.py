"""Large files in a JetStream object store, readable with any NATS tool (ADR-20)."""

from lightlink.files.info import FileInfo
from lightlink.files.store import FileStore

__all__ = ["FileInfo", "FileStore"]
