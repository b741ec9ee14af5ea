"""A browser, and a console that the tests of this folder share; each test names its agents differently."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from helpers.http import HttpProcess, tokens_file
from helpers.runs import RunWorld

from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    from helpers.console import CHROMIUM, FLAGS, api

    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A new profile, in English."""
    with browser.new_context(locale="en-GB", accept_downloads=True) as made:
        yield made


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must report no errors."""
    from helpers.console import watch

    opened = context.new_page()
    problems = watch(opened)
    yield opened
    assert problems == []


@pytest.fixture(scope="package")
def tab(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page kept for many tests, and its errors: loading the console takes longer than most tests."""
    from helpers.console import watch

    with browser.new_context(locale="en-GB", accept_downloads=True) as context:
        opened = context.new_page()
        yield opened, watch(opened)


@pytest.fixture
def kept_page(tab: tuple[Page, list[str]]) -> Iterator[Page]:
    """The kept page, for tests that leave nothing behind in it; it must report no errors either."""
    opened, problems = tab
    problems.clear()
    yield opened
    assert problems == []


@pytest.fixture(scope="package")
def world() -> Iterator[RunWorld]:
    with EmbeddedServer() as server, RunWorld(server.url) as made:
        yield made


@pytest.fixture(scope="package")
def running(world: RunWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProcess]:
    with _serve(world, tmp_path_factory.mktemp("console")) as process:
        yield process


@pytest.fixture
def own_world(fresh_server: StartServer) -> Iterator[RunWorld]:
    """A world of its own, for a test that needs it empty or stops its server."""
    with RunWorld(fresh_server().url) as made:
        yield made


@pytest.fixture
def own_running(own_world: RunWorld, tmp_path: Path) -> Iterator[HttpProcess]:
    with _serve(own_world, tmp_path) as process:
        yield process


def _serve(world: RunWorld, folder: Path) -> HttpProcess:
    from helpers.console import ENTRIES, OPS

    return HttpProcess(world.url, f"--tokens={tokens_file(folder / 'tokens.json', *ENTRIES)}", token=OPS)
