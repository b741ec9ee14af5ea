"""What JetStream refuses with: one error, and the codes that are told apart (`errors.json` of nats-server)."""

from __future__ import annotations

from lightlink.errors import LightLinkError

# The server's error codes (err_code) that are told apart here or by those who build on this.
JETSTREAM_DISABLED = frozenset({10039, 10076})
WRONG_STREAM = 10060
TOO_LARGE = frozenset({10002, 10023, 10028, 10047})  # more than the server or the account has room for
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
UNAVAILABLE = 10008  # JetStream starts, or its cluster elects a leader
CONSUMER_NOT_FOUND = 10014
FILTERS_OVERLAP = frozenset({10099, 10100})  # of consumers of a work queue
NO_MESSAGE = 10037
SEQUENCE_NOT_FOUND = 10043
MESSAGE_TOO_LARGE = 10054
MESSAGE_DELETE_FAILED = 10057  # what the server also says of a sequence beyond the last
STREAM_NAME_IN_USE = 10058
SUBJECTS_OVERLAP = 10065
STREAM_NOT_FOUND = 10059
ATOMIC_DISABLED = 10174  # the stream takes no batches
STORE_FAILED = 10077  # what the server also says of a stream that is full
TTL_INVALID = 10165
TTL_DISABLED = 10166

NO_RESPONDERS = 503


class JetStreamError(LightLinkError):
    """JetStream refused a request; ``subject`` is where it went. For use inside the library.

    ``code`` is like an HTTP status, ``err_code`` tells exactly which error (0: the server gave none).
    """

    subject: str
    code: int
    err_code: int
    description: str

    def __str__(self) -> str:
        return f"{self.description} (code {self.code}, err_code {self.err_code})"

    @property
    def no_responders(self) -> bool:
        """Whether nobody listens on the subject: no such stream or consumer, or no JetStream at all."""
        return self.code == NO_RESPONDERS and not self.err_code
