"""Names and addresses of those who ask."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether text is an address of this machine alone; a name, whatever it begins with, is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return (name if name and ":" not in name and port.isdigit() else host).lower()
