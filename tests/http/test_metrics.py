"""The metrics of an app, as Prometheus reads them."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import Browser, HttpProcess
from helpers.waiting import eventually
from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

import lightlink
from lightlink.commands import Agent, CommandManager, StoreOptions, model
from lightlink.http import create_app, metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer


def read(text: str) -> dict[tuple[str, str], float]:
    """Return the value of each sample, by its name and command type."""
    return {
        (sample.name, sample.labels.get("command_type", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def manager(client: lightlink.Client) -> Iterator[CommandManager]:
    with CommandManager(client) as made:
        yield made


def scrape(browser: Browser) -> dict[tuple[str, str], float]:
    return read(browser.get("/metrics").text)


def send(browser: Browser, client_id: str, command_type: str, **more: Any) -> str:
    answer = browser.post("/api/command", json={"client_id": client_id, "command_type": command_type, **more})
    assert answer.status_code == 200
    assert answer.json
    return str(answer.json["command_id"])


def test_each_end_of_a_command_is_counted_by_its_type(
    manager: CommandManager, client: lightlink.Client, prefix: str
) -> None:
    browser = Browser(create_app(manager))
    agent = Agent(prefix, client)

    @agent.command("good")
    def good() -> int:
        return 1

    @agent.command("bad")
    def bad() -> None:
        raise ValueError

    with agent:
        ids = [send(browser, prefix, kind) for kind in ("good", "good", "bad")]
        ids.append(send(browser, f"{prefix}_offline", "late", timeout=0.1))
        for command_id in ids:
            browser.get(f"/api/command/{command_id}?wait=20")

    counts = eventually(lambda: _when(scrape(browser), ("command_timeout_total", "late")))
    assert counts["command_sent_total", "good"] == 2
    assert counts["command_sent_total", "bad"] == 1
    assert counts["command_sent_total", "late"] == 1
    assert counts["command_completed_total", "good"] == 2
    assert counts["command_failed_total", "bad"] == 1
    assert counts["command_timeout_total", "late"] == 1
    assert ("command_failed_total", "good") not in counts
    assert counts["command_duration_seconds_count", "good"] == 2
    assert 0 < counts["command_duration_seconds_sum", "good"] < 60
    assert counts["command_duration_seconds_sum", "late"] >= 0.1


def test_an_agent_whose_clock_is_behind_takes_no_time_back(manager: CommandManager, prefix: str) -> None:
    browser = Browser(create_app(manager))
    promise = manager.promise(send(browser, prefix, "x"))
    at = model.now() - timedelta(hours=1)
    status = model.StatusRecord(status=model.COMPLETED, at=at, completed_at=at)
    manager._store.write_status(prefix, promise.command_id, status, 0)
    promise.wait(30)

    counts = eventually(lambda: _when(scrape(browser), ("command_duration_seconds_count", "x")))
    assert counts["command_completed_total", "x"] == 1
    assert counts["command_duration_seconds_sum", "x"] == 0


def _when(counts: dict[tuple[str, str], float], key: tuple[str, str]) -> Any:
    return counts if key in counts else None


def test_commands_of_a_batch_are_counted(manager: CommandManager, prefix: str) -> None:
    browser = Browser(create_app(manager))
    clients = [f"{prefix}_{number}" for number in range(3)]

    browser.post("/api/command/multi", json={"client_ids": clients, "command_type": "x", "timeout": 0.1})

    counts = eventually(lambda: _when(scrape(browser), ("command_timeout_total", "x")))
    assert counts["command_sent_total", "x"] == 3


def test_a_command_sent_twice_with_one_key_is_counted_once(manager: CommandManager, prefix: str) -> None:
    browser = Browser(create_app(manager))
    for _ in range(3):
        send(browser, prefix, "x", idempotency_key=prefix)

    assert scrape(browser)["command_sent_total", "x"] == 1


def test_gauges_show_what_agents_say_of_themselves(fresh_server: StartServer, prefix: str) -> None:
    release = threading.Event()
    with lightlink.connect(fresh_server().url) as client:
        store = StoreOptions(heartbeat=0.1)
        with CommandManager(client, store=store) as manager:
            browser = Browser(create_app(manager))
            agent = Agent(prefix, client, workers=1, store=store)

            @agent.command("hold")
            def hold() -> None:
                release.wait(20)

            with agent:
                for _ in range(3):
                    send(browser, prefix, "hold")
                counts = eventually(lambda: _loaded(scrape(browser)))
                release.set()
            after = scrape(browser)

    assert counts["command_agents_online", ""] == 1
    assert counts["command_in_flight", ""] == 1
    assert counts["command_store_reachable", ""] == 1
    assert after["command_agents_online", ""] == 0


def _loaded(counts: dict[tuple[str, str], float]) -> Any:
    return counts if counts["command_queue_depth", ""] == 2 else None


def test_a_worker_s_file_being_made_is_waited_for(
    manager: CommandManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "counter_1.db"
    file.touch()  # as it is for a moment
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    browser = Browser(create_app(manager))

    def make(seconds: float) -> None:
        key = mmap_key("orders", "orders_total", [], [], "Orders.")
        made = MmapedDict(str(file))  # type: ignore[no-untyped-call]
        made.write_value(key, 3.0, 0.0)  # type: ignore[no-untyped-call]
        made.close()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(metrics, "time", SimpleNamespace(sleep=make))

    assert scrape(browser)["orders_total", ""] == 3.0


def test_apps_in_one_process_have_metrics_of_their_own(manager: CommandManager, prefix: str) -> None:
    first, second = Browser(create_app(manager)), Browser(create_app(manager))
    send(first, prefix, "x")

    assert scrape(first)["command_sent_total", "x"] == 1
    assert ("command_sent_total", "x") not in scrape(second)
    assert REGISTRY.get_sample_value("command_sent_total", {"command_type": "x"}) is None


def test_made_up_types_do_not_fill_the_memory(manager: CommandManager, prefix: str) -> None:
    app = create_app(manager)
    browser = Browser(app)
    for number in range(210):
        send(browser, prefix, f"type-{number}")

    counts = scrape(browser)
    assert len([name for name, _ in counts if name == "command_sent_total"]) == 201
    assert counts["command_sent_total", "(others)"] == 10


def test_prometheus_reads_what_the_server_sends(url: str, prefix: str) -> None:
    with HttpProcess(url) as running:
        running.http.post("/api/command", {"client_id": prefix, "command_type": 'a "b"\n'})
        plain = running.http.get("/metrics")
        modern = running.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    assert read(plain.body.decode())["command_sent_total", 'a "b"\n'] == 1
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
    assert modern.body.endswith(b"# EOF\n")
