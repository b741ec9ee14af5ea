"""Large files in a JetStream object store, readable with any NATS tool (ADR-20)."""

from lightlink.files.announce import FileReceiver
from lightlink.files.info import FileInfo, FileStoreInfo
from lightlink.files.source import FileSource
from lightlink.files.store import FileStore
from lightlink.files.target import FileTarget
from lightlink.files.transfer import Progress

__all__ = ["FileInfo", "FileReceiver", "FileSource", "FileStore", "FileStoreInfo", "FileTarget", "Progress"]
