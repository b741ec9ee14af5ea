"""Views that call a service's method and publish an event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lightlink.http.data.content import check_event
from lightlink.http.data.schemas import Answered, Done

if TYPE_CHECKING:
    from lightlink.http.call import Call


def call_method(call: Call) -> Answered:
    """Call a method, and wait for its answer."""
    call.check_unlimited("services")
    client, body = call.manager.client, call.body
    began = time.monotonic()
    with call.seat():
        result = client.call(call.path["service"], call.path["method"], body.arguments, timeout=body.timeout)
    return Answered(result=result, seconds=time.monotonic() - began)


def publish_event(call: Call) -> Done:
    """Publish an event, and return once the server has it."""
    call.check_unlimited("events")
    check_event(call.body.subject)
    client = call.manager.client
    client.publish(call.body.subject, call.body.data)
    client.flush()
    return Done()
