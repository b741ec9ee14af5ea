"""A process's resident memory, as the system counts it."""

from __future__ import annotations

from pathlib import Path


def resident_mib() -> float:
    """Return how much memory this process has now, in MiB."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak_mib` count from here."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the most memory this process had at any moment, in MiB."""
    return _status("VmHWM")


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not tell {field}")
