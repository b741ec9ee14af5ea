"""Ordering across processes: a stream stored in partitions, each delivered one event at a time.

The server prefixes an event's subject with its partition number when it stores it (ADR-30): events that agree in the
tokens matched by ``*`` in the stream's subject share a partition.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lightlink.errors import InvalidOption
from lightlink.protocol.subjects import PARTITIONS
from lightlink.validators import integer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STORED = re.compile(rf"{re.escape(PARTITIONS)}\d+\.(?=.)")
_TRANSFORM = re.compile(rf"{re.escape(PARTITIONS)}\{{\{{partition\((\d+),")
_MOST = 1024


def transform_of(subjects: Sequence[str], partitions: int) -> dict[str, str]:
    """Return the subject transform for a number of partitions; raises InvalidOption."""
    integer("partitions", partitions, most=_MOST)
    if len(subjects) != 1 or "*" not in subjects[0].split("."):
        reason = "need one subject with a * for the token that selects the partition, such as ['orders.*.>']"
        raise InvalidOption("partitions", f"{reason}; the subjects are {list(subjects)}", partitions)
    (subject,) = subjects
    tokens, wildcards = [], 0
    for token in subject.split("."):
        wildcards += token == "*"
        tokens.append(f"{{{{wildcard({wildcards})}}}}" if token == "*" else token)
    by = ",".join(map(str, range(1, wildcards + 1)))
    return {"src": subject, "dest": f"{PARTITIONS}{{{{partition({partitions},{by})}}}}.{'.'.join(tokens)}"}


def partitions_in(config: Mapping[str, Any] | None) -> int:
    """Return the number of partitions in a stream's configuration; 0 if it has no partition transform."""
    transform = (config or {}).get("subject_transform") or {}
    found = _TRANSFORM.match(str(transform.get("dest", "")))
    return int(found[1]) if found else 0


def stored_subject(subject: str, partition: int | None = None) -> str:
    """Return the stored subject for a subject or wildcard in a partition; None means any partition."""
    return f"{PARTITIONS}{'*' if partition is None else partition}.{subject}"


def own_subject(stored: str) -> str:
    """Return the published subject for a stored subject."""
    found = _STORED.match(stored) if stored.startswith(PARTITIONS) else None
    return stored[found.end() :] if found else stored
