"""How objects look in a notebook: what peers say is text there, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.protocol import html

if TYPE_CHECKING:
    from helpers.commands import World

EVIL = "<script>alert(1)</script>\x1b[31m\u202e"


def test_what_is_shown_is_escaped_and_short() -> None:
    shown = html.facts(EVIL, {EVIL: EVIL, "long": "x" * 1000, "empty": "", "none": None, "zero": 0})
    assert "<script>" not in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "x" * 201 not in shown
    assert "empty" not in shown
    assert "<tr><th>zero</th><td>0</td></tr>" in shown


def test_long_tables_are_cut() -> None:
    shown = html.rows("many", ["n"], ([n] for n in range(1000)), 1000)
    assert shown.count("<tr>") == 52
    assert "... and 950 more" in shown


def test_the_objects_of_a_notebook_show_themselves(world: World, url: str, prefix: str) -> None:
    pandas = pytest.importorskip("pandas")
    manager = world.manager()
    agent = world.agent(prefix)

    @agent.command("tell", idempotent=True)
    def tell(what: str) -> str:
        return what

    agent.start()
    promise = manager.send(prefix, "tell", {"what": EVIL})
    promise.result(30)
    batch = manager.send_many([prefix], "tell", {"what": EVIL}, repeat=2)
    assert batch.wait(30)
    page = eventually(lambda: manager.list(prefix) if len(manager.list(prefix)) == 3 else None)
    with lightlink.connect(url) as client, client.subscribe(prefix) as subscription:
        service = lightlink.Service(prefix, client)
        client.set_state(prefix, EVIL)
        entry = client.state().entry(prefix)
        for shown in (
            promise,
            batch,
            page,
            manager.get(promise.command_id),
            client,
            subscription,
            service,
            entry,
            agent,
        ):
            text = shown._repr_html_()
            assert text.startswith("<table><caption>")
            assert "<script>" not in text
    frame = page.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["result"]) == [EVIL] * 3
    assert set(batch.to_dataframe()["status"]) == {"completed"}
