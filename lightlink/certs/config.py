"""Write the nats-server configuration for the identities of a certificate directory.

All identities but agents share one account. Each agent has an account of its own that holds nothing but the subjects of
its role, imported from there: permissions alone do not hold an agent, because a server sends the answer to a JetStream
request to any reply subject that the request names, past all permissions (tried with nats-server 2.15: an agent that
may read its own status could forge commands for others and purge streams). An answer cannot leave its account.
"""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlink.certs.authority import CertificateAuthority
from lightlink.certs.files import write_file
from lightlink.certs.syntax import assignments, block, list_of, quoted
from lightlink.errors import InvalidOption
from lightlink.protocol.edge import INNER_NAME
from lightlink.protocol.permissions import ROLES, Permissions, permissions
from lightlink.protocol.subjects import CONSUMER_NEXT
from lightlink.protocol.text import joined
from lightlink.validators import integer

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from lightlink.protocol.permissions import Grant

ACCOUNT = "LIGHTLINK"
MEBIBYTE = 1024 * 1024

_log = logging.getLogger("lightlink")

_HEADER = """\
# nats-server configuration for LightLink, made by `lightlink certs server-config`; do not edit it.
# After issuing an identity make it again, then: lightlink certs reload PID
"""
# What it was made with, so that it can be made again.
_SETTINGS = "# settings: "
_SETTINGS_WITHIN = 10
# Twice as many as there are identities leaves room for programs that restart before their old connection is gone.
_LEAST_CONNECTIONS = 10_000


def server_config(
    directory: str | os.PathLike[str],
    *,
    host: str = "0.0.0.0",  # noqa: S104 - who may do what is decided by certificate
    port: int = 4222,
    store_dir: str | os.PathLike[str] | None = "jetstream",
    max_payload: int = MEBIBYTE,
    max_connections: int | None = None,
    max_memory: int = 256 * MEBIBYTE,
    max_disk: int = 10 * 1024 * MEBIBYTE,
    server: str = "server",
) -> str:
    """Return a complete configuration: mutual TLS, JetStream, limits, and a user for each identity of the directory.

    ``port`` -1 takes any free one. ``store_dir`` holds JetStream's data (None: the command line says where), at most
    ``max_disk`` bytes on disk and ``max_memory`` in memory; ``max_payload`` is in bytes too. ``max_connections``
    follows the fleet unless given: 10,000, or twice the identities when that is more. ``server`` names the server's
    certificate. The paths of the certificates are absolute. A certificate that ends within 30 days is logged
    as a warning. Raises InvalidOption when the server has none, and for one that does not belong in the directory.
    """
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in locals().items()}
    limits = {"max_payload": max_payload} | ({} if max_connections is None else {"max_connections": max_connections})
    stores = {"max_memory_store": max_memory, "max_file_store": max_disk}
    for option, value in (limits | stores).items():
        integer(option, value, 1, 2**63 - 1)
    if port != -1:
        integer("port", port, 1, 65535)
    authority = CertificateAuthority.load(directory)
    folder = authority.directory
    tls = {
        "cert_file": str(folder / f"{server}.pem"),
        "key_file": str(folder / f"{server}.key"),
        "ca_file": str(folder / "ca.pem"),
        "verify_and_map": True,
        "min_version": "1.2",
        "timeout": 5,
    }
    identities = _identities(authority, server)
    limits.setdefault("max_connections", most_connections(identities))
    lines = [f"listen: {quoted(joined(host, port))}"]
    lines += assignments(limits)
    lines += block("jetstream", assignments(({} if store_dir is None else {"store_dir": str(store_dir)}) | stores))
    lines += block("tls", assignments(tls))
    lines += block("accounts", _accounts(identities))
    settings["directory"] = str(folder)
    header = [*_HEADER.splitlines(), _SETTINGS + json.dumps(settings), _known_as(authority, server)]
    return "\n".join([*header, *lines]) + "\n"


def _known_as(authority: CertificateAuthority, server: str) -> str:
    hosts = next(info.hosts for info in authority.list() if info.name == server)
    if INNER_NAME in hosts:
        return f"# Clients behind a QUIC gateway know this server as {INNER_NAME}."
    return f"# No client gets in through a QUIC gateway: {server}.pem lacks the name {INNER_NAME}; issue it again."


def remake_config(file: str | os.PathLike[str]) -> None:
    """Write a configuration file that `server_config` has made again, for the identities that there are now.

    Raises InvalidOption when it is none, or cannot be read or written, and like `server_config`.
    """
    path = Path(file).absolute()
    settings = config_settings(path)
    try:
        content = server_config(**settings)
    except TypeError as exc:
        raise InvalidOption("configuration", f"its line of settings is none: {exc}", str(path)) from exc
    write_file(path, content.encode(), mode=stat.S_IMODE(path.stat().st_mode), replace=True)


def config_settings(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a configuration was made with: the arguments of `server_config`, by name.

    Raises InvalidOption when `server_config` did not make it, or it cannot be read.
    """
    path = Path(file).absolute()
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            # It stands at the top; the rest may be megabytes.
            top = [line for line, _ in zip(lines, range(_SETTINGS_WITHIN), strict=False)]
    except OSError as exc:
        raise InvalidOption("configuration", f"cannot be read: {exc.strerror}", str(path)) from exc
    text = next((line.removeprefix(_SETTINGS) for line in top if line.startswith(_SETTINGS)), None)
    if text is None:
        raise InvalidOption("configuration", "was not made by lightlink certs server-config", str(path))
    try:
        settings = json.loads(text)
    except ValueError as exc:
        raise InvalidOption("configuration", f"its line of settings is none: {exc}", str(path)) from exc
    if not isinstance(settings, dict):
        raise InvalidOption("configuration", "its line of settings is none: it must be an object", str(path))
    return settings


def _identities(authority: CertificateAuthority, server: str) -> dict[str, Grant]:
    grants: dict[str, Grant] = {}
    servers = set()
    for info in authority.list():
        if info.fault is not None:
            raise InvalidOption("certificate", f"{info.fault}; issue it again or remove it", str(info.path))
        if info.warning is not None:
            _log.warning("lightlink: the certificate %s %s", info.path, info.warning)
        if info.kind == "server":
            servers.add(info.name)
        elif info.grant is not None:
            grants[info.name] = info.grant
    if server not in servers:
        raise InvalidOption(
            "server certificate", "there is none (lightlink certs init)", str(authority.directory / f"{server}.pem")
        )
    return grants


# Accounts -----------------------------------------------------------------------------------------------------------


def most_connections(identities: Mapping[str, Grant]) -> int:
    """Return how many connections a server allows that serves these identities."""
    return max(_LEAST_CONNECTIONS, 2 * len(identities))


def _accounts(identities: Mapping[str, Grant]) -> list[str]:
    shared = {name: grant for name, grant in identities.items() if grant.role != "agent"}
    agents = {name: permissions(name, grant) for name, grant in identities.items() if grant.role == "agent"}
    # A server without any user lets every certificate of the CA in, with all rights. Nobody can be issued this name.
    users = [] if identities else [_user("NOBODY", "nobody has been issued a certificate", Permissions((), ()))]
    users += [_user(name, grant.role, permissions(name, grant)) for name, grant in shared.items()]
    lines = block(ACCOUNT, ["jetstream: enabled", *list_of("users", users), *list_of("exports", _exports())])
    for name, allowed in agents.items():
        imports = [_import(*each) for each in _crossings(allowed)]
        lines += block(
            quoted(_account(name)), [*list_of("users", [_user(name, "agent", allowed)]), *list_of("imports", imports)]
        )
    return lines


def _account(agent: str) -> str:
    return f"agent-{agent}"


def _crossings(allowed: Permissions) -> Iterable[tuple[str, str]]:
    """Yield what crosses the wall of an agent: a service or stream with its subject."""
    for subject in allowed.publish:
        yield "service", subject
    for subject in allowed.subscribe:
        # Its inboxes are its own side of the wall.
        if not subject.startswith("_INBOX"):
            yield "stream", subject


def _exports() -> list[list[str]]:
    """Return what agents may import, for all of them at once: which of it each does is in its own account.

    One for each agent would make the server compare all with all.
    """
    role = ROLES["agent"]
    services = [_export("service", _for_all(template)) for template in role.publish]
    return services + [_export("stream", _for_all(each)) for each in role.subscribe if not each.startswith("{inbox}")]


def _for_all(template: str) -> str:
    return ".".join("*" if "{name}" in token else token for token in template.split("."))


def _export(kind: str, subject: str) -> list[str]:
    lines = [f"{kind}: {quoted(subject)}"]
    return [*lines, "response_type: stream"] if subject.startswith(CONSUMER_NEXT) else lines


def _import(kind: str, subject: str) -> list[str]:
    return [f"{kind}: {{ account: {ACCOUNT}, subject: {quoted(subject)} }}"]


def _user(name: str, role: str, allowed: Permissions) -> list[str]:
    return [
        f"# {role}",
        f"user: {quoted(name)}",
        *block("permissions", [*_allow("publish", allowed.publish), *_allow("subscribe", allowed.subscribe)]),
    ]


def _allow(operation: str, subjects: Sequence[str]) -> list[str]:
    # An empty list would allow everything.
    if not subjects:
        return block(operation, ['deny: ">"'])
    return block(operation, ["allow: [", *(f"  {quoted(subject)}" for subject in subjects), "]"])
