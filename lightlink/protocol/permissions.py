"""What each identity may do: one table of roles, and the subjects it comes to for one identity.

``certs/README.md`` says why each role has what it has, and what a nats-server cannot keep apart.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# Files of these names hold the authority and the server.
RESERVED_NAMES = frozenset({"ca", "server"})
# An X.509 common name holds 64 characters, a label of a DNS name 63.
_MAX_NAME = 64
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# What is asked of a stream, or of its consumers, by those who may use it.
_STREAM_ASKED = re.compile(r"\$JS\.API\.(STREAM|CONSUMER)\.(?:CREATE|INFO|MSG\.GET|NAMES|MSG\.NEXT)\.([\w-]+)(?:\..+)?")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@attrs.frozen
class Role:
    """What identities of one kind may do.

    ``publish`` and ``subscribe`` hold subjects (a queue group follows a space) with placeholders: ``{name}`` is the
    identity, ``{inbox}`` its inbox prefix. The others stand for what was granted at issue, nothing
    included: ``{call}`` the services it may call, ``{publish}`` and ``{subscribe}`` its events, ``{state}`` and
    ``{files}`` all it takes to use its buckets, ``{announce}`` the announcements of files, ``{streams}`` and
    ``{consume}`` the streams of durable events that it may make and replay, and consume. ``calls`` and ``events``
    are granted when issue says nothing else; ``fixed`` roles take no grants; a ``one_token`` name may hold no dot,
    because what lies below it would be another's.
    """

    does: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    calls: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    fixed: bool = False
    one_token: bool = False


def _reading(stream: str) -> tuple[str, ...]:
    return (
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


_JETSTREAM = ("$JS.API.INFO", "$JS.API.STREAM.NAMES")
_STATE = ("$KV.{bucket}.>", *_reading("KV_{bucket}"))
_FILES = (
    "$O.{bucket}.>",
    *_reading("OBJ_{bucket}"),
    # The chunks of a deleted file, and of an upload that goes on after an outage.
    "$JS.API.STREAM.PURGE.OBJ_{bucket}",
    "$JS.API.STREAM.MSG.DELETE.OBJ_{bucket}",
)

# Making a stream, looking at it and replaying it; and a durable consumer on it, with its dead letters.
_STREAMS = (*_reading("{bucket}"), "$JS.API.CONSUMER.NAMES.{bucket}")
_CONSUME = (
    *_STREAMS,
    "ll.dead.{bucket}.*",
    "ll.retry.{bucket}.*",
    "ll.excused.{bucket}.*.*",
    *_reading("LIGHTLINK_DEAD"),
    "$JS.API.STREAM.MSG.DELETE.LIGHTLINK_DEAD",
)

# As in the table of certs/README.md. The agent's list is complete: who may create consumers can send anything anywhere.
ROLES: Mapping[str, Role] = {
    "service": Role(
        does="answers calls to the service of its name; events and calls of its own as granted",
        publish=(
            "_INBOX.>",
            # To platforms of peers, that it is there.
            "$LL.register.{name}",
            "$LL.heartbeat.{name}",
            "$SRV.{call}.>",
            "{publish}",
            "{announce}",
            "{state}",
            "{files}",
            "{streams}",
            "{consume}",
        ),
        subscribe=(
            "$SRV.{name}.> q",
            "$SRV.PING",
            "$SRV.PING.{name}",
            "$SRV.PING.{name}.*",
            "$SRV.INFO",
            "$SRV.INFO.{name}",
            "$SRV.INFO.{name}.*",
            "$SRV.STATS",
            "$SRV.STATS.{name}",
            "$SRV.STATS.{name}.*",
            "{inbox}.>",
            "{subscribe}",
            "{announce}",
        ),
        one_token=True,
    ),
    "client": Role(
        does="calls services and publishes events",
        publish=("$SRV.{call}.>", "{publish}", "{announce}", "{state}", "{files}", "{streams}", "{consume}"),
        subscribe=("{inbox}.>", "{subscribe}"),
        calls=("*",),
        events=("events.>",),
    ),
    "agent": Role(
        does="takes the commands sent to its name",
        publish=(
            "$KV.lightlink_command_status.{name}.*",
            "$KV.lightlink_agents.{name}",
            "ll.progress.{name}.*",
            "ll.acks.{name}.*",
            "$JS.API.CONSUMER.MSG.NEXT.LIGHTLINK_COMMANDS.agent-{name}",
            "$JS.ACK.LIGHTLINK_COMMANDS.agent-{name}.>",
            "$JS.API.DIRECT.GET.KV_lightlink_command_status.$KV.lightlink_command_status.{name}.*",
            "$JS.API.DIRECT.GET.KV_lightlink_agents.$KV.lightlink_agents.{name}",
            f"{subjects.FLEET_RENEW}.{{name}}",
        ),
        subscribe=("{inbox}.>", "ll.status.{name}.*", "ll.messages.{name}", "ll.broadcast"),
        fixed=True,
        one_token=True,
    ),
    "manager": Role(
        does="sends commands to every agent and follows them; the rest as granted",
        publish=(
            "ll.commands.*.*",
            "ll.messages.*",
            "ll.broadcast",
            "$KV.lightlink_command_status.*.*",
            "$KV.lightlink_command_status.swept",
            *_JETSTREAM,
            *_reading("LIGHTLINK_COMMANDS"),
            # nats-py asks for a durable consumer that has no name beside under this subject.
            "$JS.API.CONSUMER.DURABLE.CREATE.LIGHTLINK_COMMANDS.*",
            "$JS.API.CONSUMER.NAMES.LIGHTLINK_COMMANDS",
            *_reading("KV_lightlink_command_status"),
            *_reading("KV_lightlink_agents"),
            *_reading("LIGHTLINK_COMMANDS_AUDIT"),
            # Runs of plans: their records, calls and locks, and the consumer that all managers share.
            "ll.runs.>",
            *_reading("LIGHTLINK_RUNS"),
            # Stored plans, schedules and freezes.
            "ll.plans.>",
            *_reading("LIGHTLINK_PLANS"),
            # What was ever seen of agents.
            "$KV.lightlink_fleet.agent.*",
            "$KV.lightlink_fleet.looked",
            # What is kept of the index of commands.
            "$KV.lightlink_fleet.commands",
            *_reading("KV_lightlink_fleet"),
            "$JS.API.STREAM.CREATE.LIGHTLINK_PROGRESS",
            "$JS.API.STREAM.INFO.LIGHTLINK_PROGRESS",
            "$JS.API.DIRECT.GET.LIGHTLINK_PROGRESS.>",
            "$SRV.{call}.>",
            "{publish}",
            "{announce}",
            "{state}",
            "{files}",
            "{streams}",
            "{consume}",
        ),
        subscribe=("{inbox}.>", "ll.status.*.*", "ll.progress.*.*", "ll.acks.*.*", "ll.run_events.*", "{subscribe}"),
    ),
    "admin": Role(does="everything", publish=(">",), subscribe=(">",), fixed=True),
}


# Grants -------------------------------------------------------------------------------------------------------------


def _texts(option: str, value: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise InvalidOption(option, "must be a list of strings", value)
    return tuple(dict.fromkeys(value))


@attrs.frozen
class Grant:
    """A role and what one identity may do in it: event subjects, services it may call (``*``: all), buckets.

    For peers that are not LightLink: ``inbox`` is empty, or ``("plain",)`` for one whose inboxes are those of NATS,
    below ``_INBOX``; ``group`` is empty, or ``("none",)`` for a service that subscribes without the queue group.
    """

    role: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    consume: tuple[str, ...] = ()
    inbox: tuple[str, ...] = ()
    group: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidOption("role", f"must be one of {', '.join(ROLES)}", self.role)
        self._check_foreign()
        for option in ("publish", "subscribe", "calls", "state", "files", "streams", "consume", "inbox"):
            value = getattr(self, option)
            if value and ROLES[self.role].fixed:
                raise InvalidOption(option, f"what the role {self.role} may do is fixed", value)
        for subject in (*self.publish, *self.subscribe):
            _event_subject(subject)
        for service in self.calls:
            if service != "*":
                subjects.service_name(service)
        for bucket in (*self.state, *self.files):
            if subjects.bucket_name(bucket).startswith("lightlink_"):
                raise InvalidName("bucket name", bucket, "commands use it; see the roles agent and manager")
        for stream in (*self.streams, *self.consume):
            _stream_of_events(stream)

    def _check_foreign(self) -> None:
        for option, only in (("inbox", "plain"), ("group", "none")):
            if getattr(self, option) not in ((), (only,)):
                raise InvalidOption(option, f"may be {only}, or left out", getattr(self, option))
        if self.group and self.role != "service":
            raise InvalidOption("group", "is for the role service", self.role)

    @classmethod
    def of(
        cls,
        role: str,
        *,
        publish: Sequence[str] | None = None,
        subscribe: Sequence[str] = (),
        calls: Sequence[str] | None = None,
        state: bool | Sequence[str] = False,
        files: bool | Sequence[str] = False,
        streams: Sequence[str] = (),
        consume: Sequence[str] = (),
        inbox: Sequence[str] = (),
        group: Sequence[str] = (),
    ) -> Grant:
        """Return the grant for a role; None means the role's own. ``state`` and ``files``: True is LightLink's bucket.

        Raises InvalidOption or InvalidName.
        """
        # Of a role that does not exist the constructor says so.
        defaults = ROLES.get(role, ROLES["agent"])
        return cls(
            role,
            publish=_texts("publish", defaults.events if publish is None else publish),
            subscribe=_texts("subscribe", subscribe),
            calls=_texts("calls", defaults.calls if calls is None else calls),
            state=_texts("state", [subjects.STATE_BUCKET] * state if isinstance(state, bool) else state),
            files=_texts("files", [subjects.FILES_BUCKET] * files if isinstance(files, bool) else files),
            streams=_texts("streams", streams),
            consume=_texts("consume", consume),
            inbox=_texts("inbox", inbox),
            group=_texts("group", group),
        )


RIGHTS = tuple(each.name for each in attrs.fields(Grant) if each.name != "role")
"""What a grant is made of beside its role."""


def _stream_of_events(name: str) -> None:
    if subjects.client_id(name).upper().startswith(("LIGHTLINK_", "KV_", "OBJ_")):
        raise InvalidName("stream name", name, "is no stream of events; see --state and --files")


def _event_subject(subject: str) -> None:
    subjects.subscribe_subject(subject)
    first = subject.partition(".")[0]
    if first in ("*", ">"):
        raise InvalidName("event subject", subject, "would cover inboxes and JetStream; spell the first token out")
    if first[0] in "$_" or first == "ll":
        raise InvalidName("event subject", subject, "NATS or LightLink use it themselves; it comes with a role")
    if not subject.isascii():
        raise InvalidName("event subject", subject, "a certificate carries it as ASCII")


# Identities ---------------------------------------------------------------------------------------------------------


def identity_name(name: str, role: str | None = None) -> str:
    """Return the name of an identity: a NATS user, a DNS name (RFC 1123) and a file name in one.

    Raises InvalidName, which says which of them it could not be.
    """
    reason = _fault(name)
    if reason is None and role is not None and ROLES[role].one_token and "." in name:
        reason = f"the name of a role such as {role} may hold no dot: what lies below it would be another's"
    if reason is not None:
        raise InvalidName("identity", name, reason)
    return name


def _fault(name: Any) -> str | None:
    if not isinstance(name, str) or not name:
        return "must be a string that is not empty"
    if len(name) > _MAX_NAME:
        return f"longer than {_MAX_NAME} characters, which a certificate's common name cannot be"
    if name != name.lower():
        return "has upper-case letters: NATS users tell them apart, DNS names do not"
    if not re.fullmatch(r"[a-z0-9.-]+", name):
        return "use a-z, 0-9, '-' and '.' only; it becomes a NATS user and a DNS name in a certificate"
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return "a part between dots has 1 to 63 characters and no '-' at an end"
    if name in RESERVED_NAMES:
        return f"{name}.pem is the file of the {'authority' if name == 'ca' else name}"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return None
    return "is an IP address"


def inbox_prefix(name: str) -> str:
    """Return the prefix of an identity's inboxes, ``_INBOX.<name>``: two tokens, and others for every other name.

    All inboxes lie below ``_INBOX``, so that a service may answer all its callers by one permission. A dot becomes
    ``_`` (no identity holds one), so that the inboxes of ``a`` do not cover those of ``a.b``. Of names that LightLink
    would not issue, other characters become ``=`` and their bytes in hexadecimal.
    """
    return "_INBOX." + "".join(map(_inbox_character, name))


def _inbox_character(character: str) -> str:
    if character == ".":
        return "_"
    if character == "-" or (character.isascii() and character.isalnum()):
        return character
    return "".join(f"={byte:02X}" for byte in character.encode())


# From the table to subjects -----------------------------------------------------------------------------------------


@attrs.frozen
class Permissions:
    """The subjects one identity may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(name: str, grant: Grant) -> Permissions:
    """Return what an identity may do."""
    values = {
        "name": (name,),
        "inbox": ("_INBOX",) if grant.inbox else (inbox_prefix(name),),
        "call": grant.calls,
        "publish": grant.publish,
        "subscribe": grant.subscribe,
        "announce": (subjects.FILE_TRANSFER,) if grant.files else (),
        "state": _for_buckets(_STATE, grant.state),
        "files": _for_buckets(_FILES, grant.files),
        "streams": _for_buckets(_STREAMS, grant.streams),
        "consume": _for_buckets(_CONSUME, grant.consume),
    }
    role = ROLES[grant.role]
    subscribe = _expand(role.subscribe, values)
    if grant.group:
        subscribe = tuple(subject.removesuffix(" q") for subject in subscribe)
    return Permissions(_expand(role.publish, values), subscribe)


def _for_buckets(templates: tuple[str, ...], buckets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the subjects for all buckets, and those of JetStream itself if there is one."""
    of_buckets = (template.replace("{bucket}", bucket) for bucket in buckets for template in templates)
    return (*_JETSTREAM, *of_buckets) if buckets else ()


def _expand(templates: tuple[str, ...], values: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for template in templates:
        match = _PLACEHOLDER.search(template)
        if match is None:
            found[template] = None
            continue
        found.update(dict.fromkeys(template.replace(match[0], value) for value in values[match[1]]))
    return tuple(found)


def grant_for(operation: str, subject: str) -> str:
    """Return the option of ``lightlink certs issue`` that lets an identity publish or subscribe to a subject."""
    tokens = subject.split(".")
    for marks, option, default in (
        (("KV_", "$KV"), "--state", subjects.STATE_BUCKET),
        (("OBJ_", "$O"), "--files", subjects.FILES_BUCKET),
    ):
        bucket = _bucket(tokens, *marks)
        if bucket and not bucket.startswith("lightlink_"):
            return option if bucket == default else f"{option}-bucket {bucket}"
    if tokens[0] == "$SRV" and len(tokens) > 1:
        service = tokens[2] if tokens[1] in subjects.RESERVED_SERVICES and len(tokens) > 2 else tokens[1]
        return f"--call {service}" if operation == "publish" else f"--role service, for an identity named {service}"
    if subject == subjects.FILE_TRANSFER:
        return "--files"
    if subject.startswith(("ll.", "$KV.lightlink_")) or "LIGHTLINK_" in subject or "KV_lightlink_" in subject:
        return "--role manager"
    asked = _STREAM_ASKED.fullmatch(subject)
    if asked is not None:
        return f"--{'stream' if asked[1] == 'STREAM' else 'consume'} {asked[2]}"
    if subject.startswith("$"):
        return "--role admin"
    return f"--{operation} {subject}"


def _bucket(tokens: list[str], stream: str, space: str) -> str:
    """Return the bucket whose stream, or whose subjects, a subject is about."""
    if tokens[0] == space and len(tokens) > 1:
        return tokens[1]
    return next((token.removeprefix(stream) for token in tokens if token.startswith(stream)), "")
