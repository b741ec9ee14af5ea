"""Ask for every outside link of the documentation: ``make docs-links``. Where there is no network it says so."""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from helpers.pages import ROOT, pages

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINK = re.compile(r"(?:\]\(|<)(https?://[^)>\s#]+)")
# Sites that answer so are there, and do not like programs.
_REFUSED = {401, 403, 405, 429}
_LIMIT = 20.0


class NoAnswerError(Exception):
    """Nothing came back: no name, no route, no server."""


def outside_links(texts: Iterable[str]) -> list[str]:
    """Return the links that lead out of the repository, each once."""
    found = {link for text in texts for link in _LINK.findall(text)}
    return sorted(link for link in found if not re.match(r"https?://(localhost|127\.)", link))


def fault_of(link: str) -> str:
    """Say what is wrong with a link, "" if nothing is; NoAnswerError where nothing came back."""
    request = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0 (lightlink docs-links)"})
    try:
        with urllib.request.urlopen(request, timeout=_LIMIT):
            return ""
    except urllib.error.HTTPError as exc:
        exc.close()
        return "" if exc.code in _REFUSED else f"HTTP {exc.code}"
    except OSError as exc:
        raise NoAnswerError(str(exc)) from exc


def check(links: list[str]) -> int:
    """Print what is wrong with links; returns the exit code, 0 too where no link at all got an answer."""

    def judge(link: str) -> tuple[str, bool]:
        try:
            return fault_of(link), True
        except NoAnswerError as exc:
            return f"no answer: {exc}", False

    with ThreadPoolExecutor(8) as pool:
        judged = dict(zip(links, pool.map(judge, links), strict=True))
    if not any(answered for _, answered in judged.values()):
        print(f"no network here: none of {len(links)} links was checked")
        return 0
    wrong = {link: fault for link, (fault, _) in judged.items() if fault}
    for link, fault in wrong.items():
        print(f"{link}: {fault}")
    print(f"{len(links) - len(wrong)} of {len(links)} links lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(check(outside_links((ROOT / page).read_text() for page in pages())))
