"""The names of the package: all there, imported when they are used, and no sooner."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.process import run_python
from signatures import signatures

import lightlink


def test_every_public_name_is_there() -> None:
    assert all(getattr(lightlink, name) is not None for name in lightlink.__all__)
    assert set(lightlink.__all__) <= set(dir(lightlink))


def test_every_name_in_the_table_is_public_and_vice_versa() -> None:
    assert sorted(lightlink._MODULE_OF) == sorted(lightlink.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = lightlink.nonsense


def test_importing_the_package_imports_neither_nats_nor_threads() -> None:
    done = run_python(
        "import sys, lightlink; print(sorted({'nats', 'anyio', 'asyncio', 'cryptography'} & set(sys.modules)))"
    )

    assert done.stdout.strip() == "[]", done.stderr


def test_the_link_does_not_import_the_commands_nor_cryptography() -> None:
    code = "import sys, lightlink; lightlink.connect; print({'lightlink.commands', 'cryptography'} & {*sys.modules})"
    done = run_python(code)

    assert done.stdout.strip() == "set()", done.stderr


def test_what_the_public_names_take_is_what_was_agreed_on() -> None:
    """Whoever changes one breaks programs: then `python tests/signatures.py > tests/signatures.txt`, and CHANGELOG."""
    agreed = (Path(__file__).parent / "signatures.txt").read_text().splitlines()
    assert signatures() == agreed
