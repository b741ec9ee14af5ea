"""Build and validate every subject, key, bucket, service and client name.

A name is checked before anything is sent, in the caller's thread. Checks of names seen before cost one dictionary
look-up. Sources: NATS protocol and ADR-6 (subjects), ADR-8 (keys and buckets), ADR-32 (services),
ADR-20 (objects).
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

from lightlink.errors import InvalidName

# The server reads control lines of up to 4,096 bytes; this leaves room for a reply subject and the sizes.
MAX_SUBJECT_BYTES = 2048
# ADR-32 keeps these for service discovery: `$SRV.PING.<name>` would be taken for a call of method <name>.
RESERVED_SERVICES = frozenset({"PING", "INFO", "STATS"})
FILE_TRANSFER = "file.transfer"
# What is asked of the responders of a fleet: operations by admins, renewal by agents, enrolment by tokens.
FLEET_OPERATIONS = "ll.fleet.op"
FLEET_RENEW = "ll.fleet.renew"
FLEET_ENROLL = "ll.fleet.enroll"
STATE_BUCKET = "light_link_state"
FILES_BUCKET = "light_link_files"
LOCKS_BUCKET = "light_link_locks"
FLEET_BUCKET = "lightlink_fleet"

_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_TOKENS = re.compile(rf"{_TOKEN.pattern}(\.{_TOKEN.pattern})*")
_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")
# One token that stands for itself: no white space, no control character, no wildcard, nothing that a terminal obeys.
_PLAIN_TOKEN = re.compile(r"[^\s\x00-\x20\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069.*>]{1,255}")
# What ends a protocol line, or a word in it; nats-server reads it as white space or refuses it.
_BREAKS_LINE = re.compile(rb"[\x00-\x20\x7f]")
# Where replies are wanted: plain inboxes and those of identities, and what a server makes of them on the way to another
# account (`_R_`).
_INBOXES = (b"_INBOX.", b"_INBOX_", b"_R_.")
# What a gateway makes of a reply subject: `_GR_.<cluster>.<server>.<the reply subject>`.
_GATEWAY_REPLY = b"_GR_."


def as_text(subject: bytes) -> str:
    """Return a subject, or a part of one, as text; peers may send what is no text, which is replaced."""
    return subject.decode("utf-8", "replace")


def is_plain_token(text: str) -> bool:
    """Tell whether text from a peer may become one token of a subject: it stands for itself and nothing else."""
    return _PLAIN_TOKEN.fullmatch(text) is not None


def breaks_line(name: bytes) -> bool:
    """Tell whether a subject or queue group would break the protocol line that it is framed in (NATS protocol)."""
    return _BREAKS_LINE.search(name) is not None


def is_inbox(reply: bytes, prefixes: tuple[bytes, ...] = ()) -> bool:
    """Tell whether a reply subject is an inbox: below ``_INBOX``, an identity's inboxes, or one of ``prefixes``.

    Anything else a request names is a subject where its sender wants somebody else's rights to publish.
    """
    if reply.startswith(_INBOXES) or (prefixes and reply.startswith(prefixes)):
        return True
    if not reply.startswith(_GATEWAY_REPLY):
        return False
    original = reply.split(b".", 3)[3:]
    return bool(original) and is_inbox(original[0], prefixes)


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a pattern with wildcards covers a subject, or another pattern (NATS protocol)."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(given) > place
        if place >= len(given) or (token != given[place] and (token != "*" or given[place] == ">")):
            return False
    return len(wanted) == len(given)


def overlap(first: str, second: str) -> bool:
    """Tell whether a subject can match both of two subjects, which may hold wildcards."""
    ours, theirs = first.split("."), second.split(".")
    for one, other in zip(ours, theirs, strict=False):
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return len(ours) == len(theirs)


def publish_subject(subject: str) -> bytes:
    """Return the subject to publish to, as bytes.

    Raises InvalidName when it is empty or too long, has an empty token, white space, a control character or a wildcard.
    """
    try:
        return _publish_subject(subject)
    except TypeError:  # not hashable, so not a string either
        raise InvalidName("subject", subject, "must be a string") from None


def subscribe_subject(subject: str) -> str:
    """Return the subject to subscribe to; tokens may be the wildcards ``*`` and, last, ``>``."""
    _check_tokens("subject", subject)
    *front, last = subject.split(".")
    for token in front:
        if token != "*" and ("*" in token or ">" in token):
            raise InvalidName("subject", subject, "'*' stands for one whole token, and '>' only at the end")
    if last not in ("*", ">") and ("*" in last or ">" in last):
        raise InvalidName("subject", subject, "a wildcard stands for a whole token")
    return subject


def queue_group(name: str) -> str:
    """Return the name of a queue group; the empty string means none."""
    if not isinstance(name, str) or _SPACE_OR_CONTROL.search(name):
        raise InvalidName("queue group", name, "must be a string without white space")
    _encode("queue group", name)
    return name


def service_name(name: str) -> str:
    """Return the name of a service: letters, digits, ``-`` and ``_``, and none that service discovery uses (ADR-32)."""
    if _token("service name", name) in RESERVED_SERVICES:
        raise InvalidName("service name", name, "NATS service discovery uses it (ADR-32)")
    return name


def method_name(name: str) -> str:
    """Return the name of a method: letters, digits, ``-`` and ``_``, in parts with dots between them."""
    if not isinstance(name, str) or not _TOKENS.fullmatch(name):
        raise InvalidName("method name", name, "use letters, digits, '-' and '_' only, and dots between them")
    if len(name) > 255:
        raise InvalidName("method name", name, "longer than 255 characters")
    return name


def method_of(subject: bytes) -> str:
    """Return the method that a call is for, by its subject."""
    return as_text(subject.split(b".", 2)[2])


def call_subject(service: str, method: str) -> bytes:
    """Return the subject of a call, ``$SRV.<service>.<method>``."""
    try:
        return _call_subject(service, method)
    except TypeError:  # not hashable, so one of them is no string
        service_name(service)
        raise InvalidName("method name", method, "must be a string") from None


def service_subject(service: str) -> str:
    """Return the subject a service subscribes to, ``$SRV.<service>.>``: a method's name may have dots in it."""
    return f"$SRV.{service_name(service)}.>"


def bucket_name(name: str) -> str:
    """Return the name of a key-value or object bucket: letters, digits, ``-`` and ``_`` (ADR-8)."""
    return _token("bucket name", name)


def state_key(key: str) -> str:
    """Return the key of a value: letters, digits and ``-/_=.``, a dot neither at an end nor beside another (ADR-8)."""
    try:
        return _state_key(key)
    except TypeError:  # not hashable, so not a string either
        raise InvalidName("key", key, "must be a string") from None


def stored_key(key: str) -> str:
    """Return the key of a value that is there already: whatever tokens its writer has found good, say ``user:1``."""
    try:
        return _stored_key(key)
    except TypeError:  # not hashable, so not a string either
        raise InvalidName("key", key, "must be a string") from None


def key_pattern(pattern: str) -> str:
    """Return a pattern of keys, in which a token may be ``*`` and the last one ``>``."""
    subscribe_subject(pattern)
    for token in pattern.split("."):
        if token not in ("*", ">") and not is_plain_token(token):
            raise InvalidName("key pattern", pattern, "each token is one of a key, or a wildcard")
    return pattern


def object_meta(bucket: str, name: str) -> str:
    """Return the subject of an object's description (ADR-20); an object's name may be any text that is not too long."""
    if not isinstance(name, str) or not name:
        raise InvalidName("file id", name, "must be a non-empty string")
    try:
        encoded = base64.urlsafe_b64encode(name.encode()).decode()
    except UnicodeEncodeError:
        raise InvalidName("file id", name, "is not valid Unicode") from None
    if len(encoded) > MAX_SUBJECT_BYTES:
        raise InvalidName("file id", name[:64], f"longer than {MAX_SUBJECT_BYTES * 3 // 4} bytes")
    return f"$O.{bucket}.M.{encoded}"


def object_metas(bucket: str) -> str:
    """Return the subjects of the descriptions of all objects in a bucket (ADR-20)."""
    return f"$O.{bucket}.M.>"


def object_chunks(bucket: str, nuid: str) -> str:
    """Return the subject of an object's chunks (ADR-20); raises InvalidName for what is not one plain token."""
    if not is_plain_token(nuid):
        raise InvalidName("nuid", nuid, "must be one token without wildcards")
    return f"$O.{bucket}.C.{nuid}"


def all_chunks(bucket: str) -> str:
    """Return the subjects of the chunks of all objects in a bucket (ADR-20)."""
    return f"$O.{bucket}.C.>"


def client_id(name: str) -> str:
    """Return the id of an agent: letters, digits, ``-`` and ``_``."""
    return _token("client id", name)


def _token(kind: str, name: str) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise InvalidName(kind, name, "use letters, digits, '-' and '_' only")
    if len(name) > 255:
        raise InvalidName(kind, name, "longer than 255 characters")
    return name


@lru_cache(maxsize=4096)
def _call_subject(service: str, method: str) -> bytes:
    return f"$SRV.{service_name(service)}.{method_name(method)}".encode()


@lru_cache(maxsize=4096)
def _state_key(key: str) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidName("key", key, "use letters, digits and - / _ = . only")
    if key.startswith(".") or key.endswith(".") or ".." in key:
        raise InvalidName("key", key, "a dot may not stand at an end or beside another")
    if len(key) > MAX_SUBJECT_BYTES:
        raise InvalidName("key", key, f"longer than {MAX_SUBJECT_BYTES} bytes")
    return key


@lru_cache(maxsize=4096)
def _stored_key(key: str) -> str:
    _check_tokens("key", key)
    if not all(map(is_plain_token, key.split("."))):
        raise InvalidName("key", key, "a token of it is no key's: wildcards stand for several keys")
    return key


@lru_cache(maxsize=4096)
def _publish_subject(subject: str) -> bytes:
    encoded = _check_tokens("subject", subject)
    if "*" in subject or ">" in subject:
        raise InvalidName("subject", subject, "wildcards are for subscriptions; a message goes to one subject")
    return encoded


def _check_tokens(kind: str, name: str) -> bytes:
    if not isinstance(name, str):
        raise InvalidName(kind, name, "must be a string")
    if not name:
        raise InvalidName(kind, name, "is empty")
    if _SPACE_OR_CONTROL.search(name):
        raise InvalidName(kind, name, "contains white space or a control character")
    if name.startswith(".") or name.endswith(".") or ".." in name:
        raise InvalidName(kind, name, "has an empty token")
    return _encode(kind, name)


def _encode(kind: str, name: str) -> bytes:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidName(kind, name, "is not valid Unicode") from None
    if len(encoded) > MAX_SUBJECT_BYTES:
        raise InvalidName(kind, name, f"longer than {MAX_SUBJECT_BYTES} bytes")
    return encoded
