"""The page that leads through the code names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_]+/[a-z_/]*[a-z_]+\.py)`", PAGE))))
def test_a_named_module_exists(path: str) -> None:
    assert (ROOT / "lightlink" / path).is_file()


@pytest.mark.parametrize("room", sorted(each.name for each in (ROOT / "lightlink").iterdir() if "__" not in each.name))
def test_every_room_has_its_row(room: str) -> None:
    name = room if room.endswith(".py") else f"{room}/"
    assert room == "py.typed" or any(f"`{name}`" in line for line in PAGE.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize(
    ("question", "module"),
    [
        ("subject, key, stream", "protocol/subjects.py"),
        ("tried again", "jetstream/retry.py"),
        ("SIGTERM", "concurrency/signals.py"),
        ("reply reaches its caller", "connection/replies.py"),
        ("who may publish what", "protocol/permissions.py"),
        ("does not run twice", "commands/agent/execution.py"),
        ("which is parked", "streams/outcomes.py"),
        ("shows live", "http/views/events.py"),
    ],
)
def test_a_newcomer_s_question_leads_to_one_module(question: str, module: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("|") and question in line)
    assert re.findall(r"`([a-z_/]+\.py)`", row)[0] == module
