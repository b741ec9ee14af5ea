"""The example rules and the dashboard ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml
from helpers.http import Browser
from helpers.pages import ROOT
from helpers.waiting import eventually
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import lightlink
import lightlink.metrics
from lightlink.gateway.counts import Counts
from lightlink.http import create_app
from lightlink.runs import Orchestrator
from lightlink.streams import StoredMessage

if TYPE_CHECKING:
    from collections.abc import Iterator


FOLDER = ROOT / "docs" / "monitoring"
RULES = yaml.safe_load((FOLDER / "lightlink.rules.yml").read_text())
DASHBOARD = json.loads((FOLDER / "lightlink-dashboard.json").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What Prometheus adds to what it has asked.
ADDED = {"instance", "job", "le"}


def shown() -> list[str]:
    """Return the queries of the dashboard, as Prometheus gets them."""
    return [target["expr"].replace("$__rate_interval", "5m") for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """The labels of each series that clients, services, consumers, HTTP servers and gateways have, by its name."""
    registry = CollectorRegistry()
    with lightlink.EmbeddedServer() as server, lightlink.connect(server.url) as client, Orchestrator(client) as ops:
        service = lightlink.Service("math", client)
        service.register("add", lambda a: a)
        lightlink.metrics.register(client, registry)
        lightlink.metrics.register(service, registry)
        client.stream("ORDERS", ["orders.>"])
        client.consume("orders.>", name="billing")(take)
        agent = lightlink.Agent("pump", client)
        agent.register("measure", lambda: 21.5)
        with service, agent:
            client.call("math", "add", {"a": 1})
            with pytest.raises(lightlink.InvalidArguments):
                client.call("math", "add")
            browser = Browser(create_app(ops))
            for client_id, command_type in ((agent.client_id, "measure"), (agent.client_id, "ad"), ("away", "measure")):
                timeout = 1 if client_id == "away" else 60
                order = {"client_id": client_id, "command_type": command_type, "timeout": timeout}
                answer = browser.post("/api/command", json=order)
                assert answer.json
                browser.get(f"/api/command/{answer.json['command_id']}?wait=30")
            # Each is counted on another thread than answers.
            told = eventually(lambda: all_ends(browser.get("/metrics").text))
            text = generate_latest(registry).decode() + told
    counts = Counts()
    counts.refusals["junk"] += 1
    text += "".join(f"{line}\n" for line in counts.lines())
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def all_ends(text: str) -> str:
    """Return the metrics of an HTTP server, "" until commands have ended there in each way."""
    return text if all(f"command_{end}_total{{" in text for end in ("completed", "failed", "timeout")) else ""


def take(message: StoredMessage) -> None:
    raise NotImplementedError


def selectors(expression: Any) -> Iterator[Any]:
    """Yield the series that a query asks for."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        inner = getattr(expression, name, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None and not isinstance(each, (str, int, float)):
                yield from selectors(each)


def labels_of(query: str) -> set[str]:
    """Return the labels by which a query groups or joins."""
    listed = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", query)
    return {label.strip() for group in listed for label in group.split(",")}


QUERIES = {
    **{alert: rule["expr"] for alert, rule in ALERTS.items()},
    **{f"panel {place}": query for place, query in enumerate(shown())},
}


@pytest.mark.parametrize("place", QUERIES)
def test_a_query_asks_for_what_there_is(place: str, metrics: dict[str, set[str]]) -> None:
    query = QUERIES[place]
    asked = list(selectors(promql_parser.parse(query)))
    assert asked
    assert [each.name for each in asked if each.name not in metrics] == []
    known = set().union(*(metrics[each.name] for each in asked)) | ADDED
    used = labels_of(query) | {matcher.name for each in asked for matcher in each.matchers.matchers}
    assert used - known == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_do_with_labels_that_it_has(alert: str, metrics: dict[str, set[str]]) -> None:
    rule = ALERTS[alert]
    assert set(rule["annotations"]) == {"summary", "action"}
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    asked = selectors(promql_parser.parse(rule["expr"]))
    kept = labels_of(rule["expr"]) if " by " in rule["expr"] else {"instance"}.union(*(metrics[x.name] for x in asked))
    assert named <= kept


def test_every_metric_is_on_the_dashboard(metrics: dict[str, set[str]]) -> None:
    asked = {each.name for query in shown() for each in selectors(promql_parser.parse(query))}
    there = {bare(name) for name in metrics if not name.endswith("_created")}
    assert there - {bare(name) for name in asked} == set()


def bare(series: str) -> str:
    """Return the name of the metric that a series is of."""
    return re.sub(r"_(bucket|sum|count)$", "", series)


def test_the_panels_are_told_apart_and_lie_beside_each_other() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = [(x, y) for panel in DASHBOARD["panels"] for x, y in cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    """Yield the cells of the grid that a panel covers."""
    yield from (
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    )


def test_prometheus_reads_the_rules_that_are_there() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert all((FOLDER / name).exists() for name in config["rule_files"])


def test_the_page_names_every_alert() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert [alert for alert in ALERTS if f"`{alert}`" not in page] == []
