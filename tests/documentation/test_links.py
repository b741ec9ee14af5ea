"""`make docs-links` tells links that lead nowhere from sites that refuse programs, and from no network."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from documentation import links
from helpers.pages import ROOT, pages

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "http://127.0.0.1:1/"


class Site(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_pages_have_outside_links_and_each_is_found_once() -> None:
    found = links.outside_links((ROOT / page).read_text() for page in pages())
    assert "https://nats.io" in found
    assert len(found) == len(set(found)) >= 10
    assert links.outside_links(["[a](http://127.0.0.1:8475) <https://a.example/b#c> [x](y.md)"]) == [
        "https://a.example/b"
    ]


def test_a_dead_link_is_told_and_a_shy_site_is_not(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert links.check([f"{site}/200", f"{site}/403"]) == 0
    assert links.check([f"{site}/200", f"{site}/404", NOWHERE]) == 1
    told = capsys.readouterr().out
    assert f"{site}/404: HTTP 404\n" in told
    assert f"{NOWHERE}: no answer" in told
    assert "1 of 3 links lead somewhere" in told


def test_without_a_network_nothing_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert links.check([NOWHERE]) == 0
    assert capsys.readouterr().out == "no network here: none of 1 links was checked\n"
