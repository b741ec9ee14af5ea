"""The fixtures, as a project of somebody else's uses them: in a pytest of its own, with pytest-xdist too."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from helpers.process import ROOT

from lightlink.contrib.recorder import EventRecorder
from lightlink.errors import InvalidName, InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

    import lightlink

PROJECT = {
    "shop.py": """
        import lightlink

        service = lightlink.Service("prices")

        @service.rpc
        def price(item: str) -> float:
            service.client.publish("prices.asked", {"item": item})
            return 2.5

        agent = lightlink.Agent("till-1")

        @agent.command("restock")
        def restock(item: str) -> str:
            return f"{item} restocked"

        def make():
            service = lightlink.Service("prices")
            service.register("price", lambda item: 2.5)
            return service
    """,
    "test_shop.py": """
        import os

        import pytest

        import lightlink
        import shop


        @pytest.mark.lightlink(events=["prices.>"])
        def test_service(lightlink_client, lightlink_service, lightlink_events):
            lightlink_service(shop.service)
            assert lightlink_client.service("prices").price(item="pear") == 2.5
            assert lightlink_events.wait_for("prices.*", 30).data == {"item": "pear"}


        def test_agent(lightlink_client, lightlink_agent):
            lightlink_agent(shop.agent)
            with lightlink.CommandManager(lightlink_client) as manager:
                assert manager.send("till-1", "restock", {"item": "pear"}).result(30) == "pear restocked"


        @pytest.mark.parametrize("number", range(20))
        def test_each_test_is_alone(lightlink_client, lightlink_service, lightlink_events, number):
            assert lightlink_client.services() == []
            assert lightlink_client.get_state("seen", None) is None
            lightlink_client.set_state("seen", number)
            with pytest.raises(lightlink.ServiceUnavailable):
                lightlink_client.call("prices", "price", {"item": "pear"}, timeout=60)
            lightlink_service(shop.make())
            lightlink_events.listen("number")
            lightlink_client.publish("number", number)
            assert lightlink_events.wait_for("number", 30).data == number
            assert [each.subject for each in lightlink_events.messages] == ["number"]


        @pytest.mark.lightlink(jetstream=False)
        def test_without_jetstream(lightlink_client):
            with pytest.raises(lightlink.LightLinkError):
                lightlink_client.get_state("seen", timeout=1.0)


        def test_url_for_whatever_connects_by_itself(lightlink_url, lightlink_client, lightlink_events, monkeypatch):
            monkeypatch.setenv("LIGHTLINK_URL", lightlink_url)
            lightlink_events.listen("hello")
            with lightlink.connect() as client:
                client.publish("hello", "world")
            assert lightlink_events.wait_for("hello", 30).data == "world"


        def test_a_server_for_the_session(lightlink_server):
            with lightlink.connect(lightlink_server.url) as client:
                client.ping()
    """,
}

# Plugins that are installed here for other tests, which take three times as long to load as pytest itself.
WITHOUT = " ".join(f"-p no:{name}" for name in ("schemathesis", "hypothesispytest", "anyio", "platformdirs"))


def run_pytest(folder: Path, *args: str, code: int = 0) -> str:
    for name, text in PROJECT.items():
        (folder / name).write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", "-p", "no:cacheprovider", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PYTEST_ADDOPTS": WITHOUT},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_project_uses_the_fixtures(tmp_path: Path) -> None:
    assert "25 passed" in run_pytest(tmp_path)


def test_each_worker_of_pytest_xdist_has_a_server_of_its_own(tmp_path: Path) -> None:
    assert "25 passed" in run_pytest(tmp_path, "-n", "2")


MISUSED = """
    import pytest

    @pytest.mark.lightlink(jetsteam=False)
    def test_misspelt(lightlink_client): ...

    @pytest.mark.lightlink("stock.>")
    def test_unnamed(lightlink_client): ...

    def test_no_service(lightlink_service):
        lightlink_service("prices")

    def test_no_agent(lightlink_agent):
        lightlink_agent(None)

    @pytest.mark.lightlink(events="stock.>")
    def test_one_subject(lightlink_client, lightlink_events):
        lightlink_client.publish("stock.low", 1)
        assert lightlink_events.wait_for("stock.low", 30).data == 1
"""


def test_what_a_project_does_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "test_misused.py").write_text(textwrap.dedent(MISUSED))
    told = run_pytest(tmp_path, "test_misused.py", code=1)
    assert "takes jetstream= and events=, not jetsteam" in told
    assert "takes jetstream= and events=, not 'stock.>'" in told
    assert "lightlink_service takes a lightlink.Service, got 'prices'" in told
    assert "lightlink_agent takes a lightlink.Agent, got None" in told
    assert "2 failed, 1 passed, 2 errors" in told


def test_what_pytest_loads_everywhere_imports_little() -> None:
    code = "import sys, lightlink.contrib.pytest_plugin; print({'nats', 'anyio', 'msgspec'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


# What events say when they do not come --------------------------------------------------------------------------------


@pytest.fixture
def recorder(lightlink_client: lightlink.Client) -> EventRecorder:
    return EventRecorder(lightlink_client, ["stock.*", "number"])


def test_an_event_that_does_not_come_says_what_did(lightlink_client: lightlink.Client, recorder: EventRecorder) -> None:
    with pytest.raises(AssertionError, match=r"did not come within 0\.1 s; what came: nothing"):
        recorder.wait_for("stock.low", 0.1)
    lightlink_client.publish("stock.low", {"item": "pear"})
    lightlink_client.publish("stock.gone", b"\xff")
    recorder.wait_for("stock.gone", 30)
    came = r"what came: stock\.low {'item': 'pear'}; stock\.gone b'\\xff'"
    with pytest.raises(AssertionError, match=rf"a message on 'stock\.high' did not come within 0\.1 s; {came}"):
        recorder.wait_for("stock.high", 0.1)
    with pytest.raises(AssertionError, match=r"2 messages on 'stock\.low'"):
        recorder.wait_for("stock.low", 0.1, count=2)
    with pytest.raises(AssertionError, match=r"with {'item': 'plum'}"):
        recorder.wait_for("stock.low", 0.1, data={"item": "plum"})
    with pytest.raises(AssertionError, match=r"to hear earlier ones call listen\('orders\.new'\) before"):
        recorder.wait_for("orders.new", 0.1)
    recorder.clear()
    assert recorder.messages == []


def test_many_events_are_not_all_named(lightlink_client: lightlink.Client, recorder: EventRecorder) -> None:
    for number in range(30):
        lightlink_client.publish("number", number)
    assert recorder.wait_for("number", 30, count=30).data == 29
    with pytest.raises(AssertionError, match="what came: 10 earlier ones; number 10"):
        recorder.wait_for("stock.none", 0.05)


def test_an_event_of_several_patterns_is_noted_once_in_order(
    lightlink_client: lightlink.Client, recorder: EventRecorder
) -> None:
    recorder.listen("stock.>")
    sent = ["stock.low", "stock.low.now"] * 50
    for number, subject in enumerate(sent):
        lightlink_client.publish(subject, number)
    recorder.wait_for("stock.low.now", 30, data=99)
    assert [(each.subject, each.data) for each in recorder.messages] == [*zip(sent, range(100), strict=True)]


@pytest.mark.parametrize("pattern", [">", "*.low", "$JS.>", "a b"])
def test_what_would_hear_requests_of_others_is_refused(recorder: EventRecorder, pattern: str) -> None:
    with pytest.raises((InvalidOption, InvalidName)):
        recorder.listen(pattern)
