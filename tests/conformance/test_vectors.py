"""What counts as equal to what a vector expects, and that the vectors are well made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.docs import ROOT

from lightlink.conformance import AGENT, STEP_CHECKS, Check, Vectors
from lightlink.conformance.vectors import difference, filled, text


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (1, 1),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": [1, None]}}, {"a": {"b": [1, None], "c": 0}}),
        ({"$type": "string"}, ""),
        ({"$type": "integer"}, 3),
        ({"$type": "number"}, 3),
        ({"$type": "boolean"}, True),
        ({"$contains": "dry"}, "the pump is dry"),
        ({"$each": {"a": 1}}, [{"a": 1}, {"a": 1, "b": 2}]),
        ({}, {"a": 1}),
    ],
)
def test_what_is_as_expected_has_no_difference(expected: Any, found: Any) -> None:
    assert difference(expected, found) == ""


@pytest.mark.parametrize(
    ("expected", "found", "fault"),
    [
        (1, 2, "it is 2, not 1"),
        (1, True, "it is true, not 1"),
        (1, 1.0, "it is 1.0, not 1"),
        ([1, 2], [1, 2, 3], "it is [1,2,3], not [1,2]"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b is 2, not 1"),
        ({"a": {"b": 1}}, {"a": {}}, "a.b is missing"),
        ({"a": 1}, [1], "it is [1], not an object"),
        ({"$type": "integer"}, True, "it is true, not of type integer"),
        ({"$type": "string"}, None, "it is null, not of type string"),
        ({"$contains": "dry"}, 7, 'it is 7, without "dry"'),
        ({"$each": 1}, [], "it is [], not a list with entries"),
        ({"a": {"$each": {"b": 1}}}, {"a": [{"b": 1}, {"b": 2}]}, "a[1].b is 2, not 1"),
        ({}, "x" * 200, f'it is "{"x" * 99}..., not an object'),
    ],
)
def test_what_is_otherwise_is_told_with_its_place(expected: Any, found: Any, fault: str) -> None:
    assert difference(expected, found) == fault


def test_the_file_is_json_that_any_language_reads() -> None:
    read = json.loads(text().decode())
    assert read["format"] == 1
    assert set(read) == {"format", "service", "services", "clients"}
    for kind in ("services", "clients"):
        names = [vector["name"] for vector in read[kind]]
        assert len(set(names)) == len(names)
        assert {vector["level"] for vector in read[kind]} == {"must", "should"}
        assert all(vector["why"] for vector in read[kind])


@pytest.mark.parametrize("check", [*AGENT.all, *(each for kind in STEP_CHECKS.values() for each in kind.all)])
def test_a_check_names_a_sentence_of_the_wire_format(check: Check[Any]) -> None:
    page = " ".join((ROOT / "docs/wire.md").read_text().split())
    assert check.sentence in page
    assert check.level in {"must", "should"}


def test_no_two_checks_of_a_kind_have_one_name() -> None:
    kinds: list[list[Check[Any]]] = [[*AGENT.all], *([*kind.all] for kind in STEP_CHECKS.values())]
    for checks in kinds:
        names = [check.name for check in checks]
        assert len(set(names)) == len(names)


def test_names_are_put_in_at_any_depth() -> None:
    assert filled({"a": ["{id}", 1], "b": {"c": "{id}", "d": "x{id}"}}, {"{id}": "7"}) == {
        "a": ["7", 1],
        "b": {"c": "7", "d": "x{id}"},
    }


def test_a_payload_is_the_text_as_it_stands_or_json() -> None:
    vectors = Vectors.load()
    bodies = {vector.name: vector.payload() for vector in vectors.services}
    assert bodies["answers what is no JSON"] == b"{no json"
    assert json.loads(bodies["answers a call"])["args"] == {"a": 1, "b": 2}
    assert json.loads(vectors.clients[0].payload("7"))["id"] == "7"
