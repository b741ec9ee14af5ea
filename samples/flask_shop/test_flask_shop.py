"""The shop's own tests: ``pytest`` in this folder. Everything is real but the browser."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import prices
import pytest
import warehouse
from shop import create_app, link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from flask.testing import FlaskClient

    from lightlink.server import EmbeddedServer


@pytest.fixture(scope="module")
def url(lightlink_server: EmbeddedServer) -> Iterator[str]:
    """A server with the shop's service and agent; LightLink's pytest plugin brings the server."""
    prices.service.use(lightlink_server.url)
    warehouse.agent.use(lightlink_server.url)
    with prices.service, warehouse.agent:
        yield lightlink_server.url


@pytest.fixture
def app(url: str) -> Iterator[Flask]:
    """The app, whose connection is closed after the test."""
    app = create_app({"LIGHTLINK_URL": url, "TESTING": True})
    with app.app_context():
        yield app
        link.close()


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """Flask's test client."""
    return app.test_client()


def test_a_price_is_what_the_service_says(browser: FlaskClient) -> None:
    answer = browser.get("/price/apple", headers={"X-Request-ID": "r-1"})
    assert answer.get_json() == {"item": "apple", "price": 0.5}
    assert answer.headers["X-Request-ID"] == "r-1"


def test_a_picture_keeps_its_name_and_type(browser: FlaskClient) -> None:
    answer = browser.post("/pictures", data={"picture": (io.BytesIO(b"..."), "apple.jpg", "image/jpeg")})
    assert answer.status_code == 201
    info = link.client.file_info(answer.get_json()["id"])
    assert (info.name, info.content_type, info.size) == ("apple.jpg", "image/jpeg", 3)


def test_an_order_is_taken_followed_and_done(browser: FlaskClient) -> None:
    taken = browser.post("/orders", json={"items": ["apple", "pear"]})
    assert taken.status_code == 202
    events = browser.get(taken.get_json()["events"]).text.strip().split("\n\n")
    last = json.loads(events[-1].removeprefix("data: "))
    assert (last["status"], last["result"]) == ("completed", {"packed": 2})
    assert browser.get(taken.headers["Location"]).get_json() == last
    assert b"EventSource" in browser.get(taken.get_json()["page"]).data


def test_an_order_that_nobody_has_placed_is_not_found(browser: FlaskClient) -> None:
    answer = browser.get("/orders/0b5b1a5e-6a51-4f0e-9d3a-2b8f9f1d2c11")
    assert (answer.status_code, answer.get_json()["type"]) == (404, "CommandNotFound")
