"""Have a service judged by the vectors of the wire format.

python samples/conformance.py [URL]
"""

from __future__ import annotations

from typing import Any

from _server import nats_url

import lightlink
from lightlink.conformance import judge_service


def make_service(client: lightlink.Client) -> lightlink.Service:
    """Return the service that docs/conformance.md describes."""
    service = lightlink.Service("conformance", client, version="1.0.0")

    @service.rpc
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @service.rpc
    def echo(value: Any) -> dict[str, Any]:
        return {"value": value}

    @service.rpc
    def fail(text: str) -> None:
        raise ValueError(text)

    @service.rpc
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    return service


def main(url: str) -> None:
    """Serve, and ask as any caller may."""
    with lightlink.connect(url) as client, make_service(client):
        verdicts = list(judge_service(client))
    for verdict in verdicts:
        print("holds" if not verdict.fault else verdict.fault, "-", verdict.name)
    print(sum(not verdict.fault for verdict in verdicts), "of", len(verdicts), "hold")


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
