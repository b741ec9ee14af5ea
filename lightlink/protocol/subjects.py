"""Build and validate every subject, key, stream, bucket, consumer, service and client name.

They stand here and nowhere else (`tests/test_layout.py`). A name is checked before anything is sent, in the caller's
thread. Checks of names seen before cost one dictionary look-up. Sources: NATS protocol and ADR-6 (subjects), ADR-8
(keys and buckets), ADR-32 (services), ADR-20 (objects).
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

from lightlink.errors import DecodeError, InvalidName

# The server reads control lines of up to 4,096 bytes; this leaves room for a reply subject and the sizes.
MAX_SUBJECT_BYTES = 2048
# ADR-32 keeps these for service discovery: `$SRV.PING.<name>` would be taken for a call of method <name>.
RESERVED_SERVICES = frozenset({"PING", "INFO", "STATS"})
FILE_TRANSFER = "file.transfer"

# What the streams of key-value buckets (ADR-8), of object stores (ADR-20) and of LightLink itself begin with.
STATE_STREAMS = "KV_"
FILES_STREAMS = "OBJ_"
OWN_STREAMS = "LIGHTLINK_"
# What subjects begin with: LightLink's own, those of keys, of objects, of services, and of platforms of peers.
OWN = "ll."
KEYS = "$KV."
OBJECTS = "$O."
SERVICES = "$SRV."
PEERS = "$LL."
# It asks a consumer for messages: several answers to one request.
CONSUMER_NEXT = "$JS.API.CONSUMER.MSG.NEXT."

STATE_BUCKET = "light_link_state"
FILES_BUCKET = "light_link_files"
LOCKS_BUCKET = "light_link_locks"
STATUS_BUCKET = "lightlink_command_status"
AGENTS_BUCKET = "lightlink_agents"
FLEET_BUCKET = "lightlink_fleet"

COMMANDS_STREAM = "LIGHTLINK_COMMANDS"
AUDIT_STREAM = "LIGHTLINK_COMMANDS_AUDIT"
STATUS_STREAM = f"{STATE_STREAMS}{STATUS_BUCKET}"
AGENTS_STREAM = f"{STATE_STREAMS}{AGENTS_BUCKET}"
FLEET_STREAM = f"{STATE_STREAMS}{FLEET_BUCKET}"
PROGRESS_STREAM = "LIGHTLINK_PROGRESS"
RUNS_STREAM = "LIGHTLINK_RUNS"
PLANS_STREAM = "LIGHTLINK_PLANS"
DEAD_STREAM = "LIGHTLINK_DEAD"
FLEET_AUDIT_STREAM = "LIGHTLINK_FLEET_AUDIT"

COMMANDS = "ll.commands."
STATUSES = f"{KEYS}{STATUS_BUCKET}."
# Up to which request all commands have ended. A command's key has two tokens, and no agent may write to this one.
SWEPT = f"{STATUSES}swept"
# What is kept of the index of commands; no agent may write to this one either.
EXCERPT = f"{KEYS}{FLEET_BUCKET}.commands"
MESSAGES = "ll.messages."
BROADCAST = "ll.broadcast"
# What is asked of the responders of a fleet: operations by admins, renewal by agents, enrolment by tokens.
FLEET = "ll.fleet."
FLEET_OPERATIONS = f"{FLEET}op"
FLEET_RENEW = f"{FLEET}renew"
FLEET_ENROLL = f"{FLEET}enroll"
FLEET_AUDIT = f"{FLEET}audit"
RUNS = "ll.runs."
PLANS = "ll.plans."
PLANS_FREEZE = f"{PLANS}freeze"
PARTITIONS = "ll.part."

_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_TOKENS = re.compile(rf"{_TOKEN.pattern}(\.{_TOKEN.pattern})*")
_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")
# One token that stands for itself: no white space, no control character, no wildcard, nothing that a terminal obeys.
_PLAIN_TOKEN = re.compile(r"[^\s\x00-\x20\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069.*>]{1,255}")
# What ends a protocol line, or a word in it; nats-server reads it as white space or refuses it.
_BREAKS_LINE = bytes(range(0x21)) + b"\x7f"
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
    return len(name.translate(None, _BREAKS_LINE)) != len(name)  # a quarter of a pattern's time, twice in each call


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
        return known_publish_subject(subject)
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


def peers_subject(what: str, service: str) -> str:
    """Return the subject on which platforms of peers are told of a service: ``what`` is register or heartbeat."""
    return f"{PEERS}{what}.{service}"


def service_subject(service: str) -> str:
    """Return the subject a service subscribes to, ``$SRV.<service>.>``: a method's name may have dots in it."""
    return f"{SERVICES}{service_name(service)}.>"


def discovery_subject(verb: str, *target: str) -> str:
    """Return a subject of service discovery: ``verb`` is PING, INFO or STATS, ``target`` service and id (ADR-32)."""
    return ".".join((f"{SERVICES}{verb}", *target))


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


def state_stream(bucket: str) -> str:
    """Return the name of the stream behind a key-value bucket (ADR-8)."""
    return f"{STATE_STREAMS}{bucket}"


def state_keys(bucket: str) -> str:
    """Return what the subjects of a bucket's keys begin with (ADR-8)."""
    return f"{KEYS}{bucket}."


def files_stream(bucket: str) -> str:
    """Return the name of the stream behind an object store (ADR-20)."""
    return f"{FILES_STREAMS}{bucket}"


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
    return f"{OBJECTS}{bucket}.M.{encoded}"


def object_metas(bucket: str) -> str:
    """Return the subjects of the descriptions of all objects in a bucket (ADR-20)."""
    return f"{OBJECTS}{bucket}.M.>"


def object_chunks(bucket: str, nuid: str) -> str:
    """Return the subject of an object's chunks (ADR-20); raises InvalidName for what is not one plain token."""
    if not is_plain_token(nuid):
        raise InvalidName("nuid", nuid, "must be one token without wildcards")
    return f"{OBJECTS}{bucket}.C.{nuid}"


def all_chunks(bucket: str) -> str:
    """Return the subjects of the chunks of all objects in a bucket (ADR-20)."""
    return f"{OBJECTS}{bucket}.C.>"


def client_id(name: str) -> str:
    """Return the id of an agent: letters, digits, ``-`` and ``_``."""
    return _token("client id", name)


# Commands; `*` as an id makes the subjects of all ---------------------------------------------------------------------


def command_request(client_id: str, command_id: str) -> str:
    """Return the subject of a command's request."""
    return f"{COMMANDS}{client_id}.{command_id}"


def command_status(client_id: str, command_id: str) -> str:
    """Return the subject of a command's status revisions."""
    return f"{STATUSES}{client_id}.{command_id}"


def command_status_event(client_id: str, command_id: str) -> str:
    """Return the subject on which the server republishes a command's status revisions."""
    return f"ll.status.{client_id}.{command_id}"


def command_progress(client_id: str, command_id: str) -> str:
    """Return the subject of a command's progress, of which the last is stored while the command runs."""
    return f"ll.progress.{client_id}.{command_id}"


def command_ids(subject: str) -> tuple[str, str]:
    """Return (client id, command id) from the subject of a stored request or status.

    Raises DecodeError for any other: what its last tokens say need not be who wrote it.
    """
    for prefix in (COMMANDS, STATUSES):
        ids = subject.removeprefix(prefix).split(".")
        if subject.startswith(prefix) and len(ids) == 2:
            return ids[0], ids[1]
    raise DecodeError(subject, "not the subject of a request or a status")


def agent_presence(client_id: str) -> str:
    """Return the subject of an agent's presence."""
    return f"{KEYS}{AGENTS_BUCKET}.{client_id}"


def agent_consumer(client_id: str) -> str:
    """Return the name of an agent's durable consumer."""
    return f"agent-{client_id}"


def agent_messages(client_id: str) -> str:
    """Return the subject of the messages to one agent."""
    return f"{MESSAGES}{client_id}"


def agent_ack(client_id: str, msg_id: str) -> str:
    """Return the subject of an agent's answer to a message."""
    return f"ll.acks.{client_id}.{msg_id}"


# Runs and plans -------------------------------------------------------------------------------------------------------


def run_plan(run_id: str) -> str:
    """Return the subject of a run's plan."""
    return f"{RUNS}{run_id}.plan"


def run_state(run_id: str) -> str:
    """Return the subject of a run's state."""
    return f"{RUNS}{run_id}.state"


def run_event(run_id: str) -> str:
    """Return the subject on which the server republishes a run's states."""
    return f"ll.run_events.{run_id}"


def run_call(run_id: str, command_id: str) -> str:
    """Return the subject of what became of a run's call."""
    return f"{RUNS}{run_id}.call.{command_id}"


def run_lock(name_id: str) -> str:
    """Return the subject of a lock, by the id made of its name."""
    return f"{RUNS}{name_id}.lock"


def stored_plan(name_id: str) -> str:
    """Return the subject of a stored plan, by the id made of its name."""
    return f"{PLANS}plan.{name_id}"


def schedule(name_id: str) -> str:
    """Return the subject of a schedule, by the id made of its name."""
    return f"{PLANS}schedule.{name_id}"


# Durable events -------------------------------------------------------------------------------------------------------


def dead_letters(stream: str, consumer: str) -> str:
    """Return the subject of a consumer's dead letters."""
    return f"ll.dead.{stream}.{consumer}"


def retries(stream: str, consumer: str) -> str:
    """Return the subject of events to be redelivered to a consumer."""
    return f"ll.retry.{stream}.{consumer}"


def retries_consumer(stream: str, consumer: str) -> str:
    """Return the name of the consumer that reads redelivered events."""
    return f"retry-{stream}-{consumer}"


def excused(stream: str, consumer: str, delivery: str) -> str:
    """Return the subject of how often a delivery was no attempt."""
    return f"ll.excused.{stream}.{consumer}.{delivery}"


def _token(kind: str, name: str) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise InvalidName(kind, name, "use letters, digits, '-' and '_' only")
    if len(name) > 255:
        raise InvalidName(kind, name, "longer than 255 characters")
    return name


@lru_cache(maxsize=4096)
def _call_subject(service: str, method: str) -> bytes:
    return f"{SERVICES}{service_name(service)}.{method_name(method)}".encode()


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
def known_publish_subject(subject: str) -> bytes:
    """Do as `publish_subject`, but raise TypeError for what has no hash: for where each call counts."""
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
