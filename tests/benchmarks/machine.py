"""What the figures were measured on, and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from lightlink.server.binary import find_server

_PACKAGES = (
    "lightlink",
    "nats-py",
    "nats-core",
    "uvloop",
    "nats-py-sync",
    "pynats2",
    "grpcio",
    "Pyro5",
    "msgspec",
)


def describe() -> dict[str, str]:
    """Return names and versions."""
    version = subprocess.run([find_server(), "--version"], check=True, capture_output=True, text=True).stdout
    found = {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "nats-server": version.split()[-1],
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def load() -> str:
    """Return how busy the machine is, as the system counts it."""
    return " ".join(f"{figure:.2f}" for figure in os.getloadavg())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
