"""How the cost grows with the fleet, from 10 agents to 10,000: configuration, accounts, commands.

No agent runs here. Certificates, accounts and configurations are real, and so is the server; what an agent itself costs
is in the other curves. Connections are made one by one over TLS, by LightLink, for a sample of the identities.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import lightlink
from lightlink.certs import CertificateAuthority, server_config
from lightlink.commands import CommandManager, model
from lightlink.commands.model import RequestRecord, StatusRecord
from lightlink.commands.store.store import StatusWrite
from lightlink.fleet import Fleet, FleetDirectory, Responder, fleet_config
from lightlink.fleet.directory import ResponderFiles
from lightlink.fleet.resolver import Resolver
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id
from lightlink.server import EmbeddedServer
from tests.benchmarks.results import Curve

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.stage import Stage

_SIZES = {"tiny": (10,), "quick": (10, 100, 1000), "full": (10, 100, 1000, 10_000)}
_SAMPLE = 50
_COMMANDS_EACH = 10


def directory(stage: Stage) -> Curve:
    """A directory of certificates: one configuration for all."""
    return _grow(stage, "directory", _directory)


def fleet(stage: Stage) -> Curve:
    """A fleet: an account for each agent, pushed as it first connects."""
    return _grow(stage, "fleet", _fleet)


def commands(stage: Stage) -> Curve:
    """Ten commands for each agent, of which one in a thousand has failed."""
    return _grow(stage, "commands", _commands)


def _grow(stage: Stage, name: str, measure: Callable[[int, Path], dict[str, float]]) -> Curve:
    sizes = _SIZES[stage.effort.name]
    series: dict[str, list[float | None]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="lightlink-scale-") as folder:
            for label, value in measure(size, Path(folder)).items():
                series.setdefault(label, []).append(value)
    return Curve(name=name, x_label="agents", y_label=name, x=[float(size) for size in sizes], series=series)


def _directory(count: int, folder: Path) -> dict[str, float]:
    authority = CertificateAuthority.create(folder / "certs")
    authority.issue_server(["127.0.0.1"])
    for number in range(count):
        authority.issue(f"a{number:05d}", "agent")
    began = time.perf_counter()
    config = server_config(authority.directory, store_dir=None)
    made = time.perf_counter() - began
    (folder / "nats.conf").write_text(config)
    with EmbeddedServer(config=folder / "nats.conf", ready_timeout=300) as server:
        started, memory = _cpu(server.pid), _memory(server.pid)
        os.kill(server.pid, signal.SIGHUP)
        while "Reloaded server configuration" not in server.log_file.read_text():
            time.sleep(0.05)
        return {
            "configuration, MB": len(config) / 1e6,
            "making it, s": made,
            "server start, CPU s": started,
            "reload, CPU s": _cpu(server.pid) - started,
            "server memory, MB": memory,
        }


def _fleet(count: int, folder: Path) -> dict[str, float]:
    FleetDirectory.create(folder / "fleet", ["127.0.0.1"])
    authority = CertificateAuthority.load(folder / "fleet")
    for name, role in (("ops", "admin"), *((f"a{number:05d}", "agent") for number in range(min(count, _SAMPLE)))):
        authority.issue(name, role)
    config = fleet_config(folder / "fleet", store_dir=None, accounts_dir=folder / "accounts")

    def tls(name: str) -> lightlink.TLS:
        here = folder / "fleet"
        return lightlink.TLS(here / "ca.pem", here / f"{name}.pem", here / f"{name}.key")

    files = ResponderFiles.load(folder / "fleet")
    with EmbeddedServer(config=config, ready_timeout=300) as server:
        with lightlink.connect(server.url, tls=files.tls, creds=files.path / "system.creds") as system:
            resolver = Resolver(system, files.secrets())
            began = time.perf_counter()
            for number in range(count):
                resolver.push_agent(f"a{number:05d}")
            pushed = (time.perf_counter() - began) / count
        with Responder(folder / "fleet", server.url), lightlink.connect(server.url, tls=tls("ops")) as ops:
            times = []
            for number in range(min(count, _SAMPLE)):
                began = time.perf_counter()
                lightlink.connect(server.url, tls=tls(f"a{number:05d}")).close()
                times.append(time.perf_counter() - began)
            began = time.perf_counter()
            Fleet(ops).revoke("a00000")
            revoked = time.perf_counter() - began
        memory = _memory(server.pid)
        server.restart()
        return {
            "configuration, MB": len(config) / 1e6,
            "pushing an account, ms": pushed * 1e3,
            "an agent connects and leaves, ms": statistics.median(times) * 1e3,
            "revoke, s": revoked,
            "server memory, MB": memory,
            "server start, CPU s": _cpu(server.pid),
        }


def _commands(count: int, folder: Path) -> dict[str, float]:
    ids = [f"a{number:05d}" for number in range(count)]
    with EmbeddedServer(store_dir=folder) as server, lightlink.connect(server.url, timeout=60) as client:
        with CommandManager(client, sweep_interval=None) as manager:
            began = time.perf_counter()
            manager._store.ensure_consumers(ids)
            found: dict[str, float] = {"first batch's consumers, s": time.perf_counter() - began}
            _fill(manager, ids)
            manager._inventory.look()  # as who sweeps does: an excerpt of the index is kept beside
            for label in ("a rare status, first time, s", "a rare status, then, s"):
                began = time.perf_counter()
                manager.list(status="failed", limit=100)
                found[label] = time.perf_counter() - began
            began = time.perf_counter()
            audit = manager.audit()
            next(audit)
            found["audit, first entry, s"] = time.perf_counter() - began
            for _ in audit:
                pass
            found["audit, all, s"] = time.perf_counter() - began
        with CommandManager(client, sweep_interval=None) as second:
            began = time.perf_counter()
            second._store.ensure_consumers(ids)
            found["second manager's consumers, s"] = time.perf_counter() - began
            began = time.perf_counter()
            second.list(status="failed", limit=100)
            found["a rare status, second manager's first time, s"] = time.perf_counter() - began
    return found


def _fill(manager: CommandManager, ids: list[str]) -> None:
    """Store commands and how they ended, as managers and agents do, without either."""
    store = manager._store
    number = 0
    for start in range(0, len(ids) * _COMMANDS_EACH, 1000):
        block = [
            RequestRecord(
                command_id=new_id(),
                client_id=ids[at % len(ids)],
                command_type="work",
                created_at=model.now(),
                timeout=3600.0,
            )
            for at in range(start, min(start + 1000, len(ids) * _COMMANDS_EACH))
        ]
        stored: list[Exception | None] = []
        store.put_requests(block, lambda _, error, stored=stored: stored.append(error))  # type: ignore[misc]
        while len(stored) < len(block):
            time.sleep(0.01)
        writes = []
        for each in block:
            status = model.FAILED if number % 1000 == 7 else model.COMPLETED
            record = StatusRecord(status=status, at=model.now(), by="bench")
            writes.append(StatusWrite(each.client_id, each.command_id, record, 0))
            number += 1
        store.write_statuses(writes)
    # The audit has each request and each status, a moment later.
    audit = subjects.AUDIT_STREAM
    while (info := store.stream_info(audit, "measuring")) is None or info.state.last_seq < 2 * number:
        time.sleep(0.05)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
