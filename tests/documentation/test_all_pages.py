"""No page has code that no test runs."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from helpers.pages import ROOT, pages, runnable

from lightlink.cli.app import cli

# Pages that are read by the tests of what they are about.
ELSEWHERE = {
    "certs/README.md": "tests/tls/test_documentation.py",
    "docs/how-to/celery.md": "tests/contrib/test_celery.py",
    "docs/how-to/django.md": "tests/contrib/django/test_documentation.py",
    "docs/how-to/flask.md": "tests/contrib/flask/test_documentation.py",
    "docs/how-to/mutual-tls.md": "tests/tls/test_documentation.py",
    "docs/how-to/notebooks.md": "tests/test_notebooks.py",
    "docs/how-to/runs.md": "tests/runs/test_documentation.py",
    "docs/how-to/streams.md": "tests/cli/test_stream.py",
    "docs/how-to/systemd.md": "tests/contrib/test_systemd.py",
    "docs/http.md": "tests/http/test_sample.py",
}


# Lines on these pages that no test types, by how they begin.
LEFT_OUT = {
    "docs/how-to/celery.md": {"pip install": "tests/documentation/test_packaging.py installs"},
    "docs/how-to/django.md": {"pip install": "tests/documentation/test_packaging.py installs"},
    "docs/how-to/flask.md": {
        "pip install": "tests/documentation/test_packaging.py installs",
    },
    "docs/how-to/notebooks.md": {"pip install": "tests/documentation/test_packaging.py installs"},
    "docs/how-to/runs.md": {"lightlink runs work": "the test's own orchestrator carries the runs out"},
    "docs/how-to/systemd.md": {"lightlink service uninstall": "there is no systemd where tests run"},
}
NOT_RUN = {
    "CONTRIBUTING.md": "it clones, and runs the suite that this is a part of",
}


def test_every_page_with_code_is_run_by_a_test() -> None:
    read = set(re.findall(r'"([\w/.-]+\.md)"', (ROOT / "tests/documentation/test_pages.py").read_text()))
    with_code = {page for page in pages() if runnable(page)}
    assert with_code == read | set(ELSEWHERE) | set(NOT_RUN)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_page_that_is_read_elsewhere_is_named_there(page: str) -> None:
    assert page.removeprefix("docs/") in (ROOT / ELSEWHERE[page]).read_text().replace('" / "', "/")


@pytest.mark.parametrize("page", LEFT_OUT)
def test_a_line_that_is_left_out_is_there(page: str) -> None:
    lines = [line for block in runnable(page) if block.language == "sh" for line in block.text.splitlines()]
    assert [start for start in LEFT_OUT[page] if not any(line.startswith(start) for line in lines)] == []


def test_links_lead_to_files_and_headings_that_exist() -> None:
    missing = []
    for page in pages():
        folder = (ROOT / page).parent
        for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", (ROOT / page).read_text()):
            name, _, heading = target.partition("#")
            path = folder / name if name else ROOT / page
            if not path.exists() or (heading and heading not in headings(path.read_text())):
                missing.append(f"{page}: {target}")
    assert missing == []


INLINE = re.compile(r"(?<!`)`(lightlink [^`]+)`(?!`)")


@pytest.mark.parametrize("page", pages())
def test_commands_that_a_sentence_names_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [" ".join(line.split()) for line in INLINE.findall(text)]
    assert [fault for line in lines if "..." not in line and (fault := fault_of(line))] == []


def fault_of(line: str) -> str:
    """Say what of a command line there is not, "" where all is there."""
    command: click.Command = cli
    for word in shlex.split(line)[1:]:
        if word.startswith("-"):
            known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            if word.split("=")[0] not in known | {"--help", "-h"}:
                return f"{line}: no option {word}"
        elif isinstance(command, click.Group):
            names = word.split("|")  # `certs list|add`
            found = [command.get_command(click.Context(command), name) for name in names]
            if None in found:
                return f"{line}: no command {word}"
            command = found[0]  # type: ignore[assignment]
    return ""


def headings(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
