"""The Simplified Chinese pages have the headings, code, lists, tables and links of the English ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from helpers.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TRANSLATED = sorted([*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").rglob("*.zh-CN.md")])
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def original(page: Path) -> Path:
    """Return the English page that a page translates."""
    return page.with_name(page.name.replace(".zh-CN", ""))


def code(page: Path) -> list[tuple[str, str]]:
    """Return the language and text of each block, without comments, which are translated."""
    blocks = _BLOCK.findall(page.read_text())
    return [(language, re.sub(r"[ ]+# .*", "", text)) for language, text in blocks]


def outline(page: Path) -> list[str]:
    """Return what each line of the page's prose is, in order: a heading of some level, an entry, a row, code."""
    prose = _BLOCK.sub("```", page.read_text())
    marks = (re.match(r"#+ (\d+\.)?|- |\||```", line) for line in prose.splitlines())
    return [mark[0] for mark in marks if mark]


def links(page: Path) -> set[str]:
    """Return where a page's links lead, but for those between the languages."""
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
    return {target for target in targets if "README" not in target and "tutorial" not in target}


def test_readme_and_tutorial_are_translated() -> None:
    assert [original(page).name for page in TRANSLATED] == ["README.md", "tutorial.md"]


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_translation_keeps_step(page: Path) -> None:
    assert outline(page) == outline(original(page))
    assert code(page) == code(original(page))
    assert links(page) == links(original(page))


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_translation_is_linked_both_ways(page: Path) -> None:
    assert page.name in original(page).read_text() + (ROOT / "docs" / "index.md").read_text()
    assert "README.md" in page.read_text() or page.parent.name == "docs"
