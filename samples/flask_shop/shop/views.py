"""What the shop answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, render_template, request, stream_with_context, url_for

from shop import link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink import Command, CommandPromise

views = Blueprint("views", __name__)


@views.get("/price/<item>")
def price(item: str) -> dict[str, Any]:
    """Ask a service. No try, no except: nobody there is a 503, an unknown item the service's own 400."""
    return {"item": item, "price": link.call("prices", "of", {"item": item}, timeout=2.0)}


@views.post("/pictures")
def add_picture() -> tuple[dict[str, Any], int]:
    """Store a file of a form, however large, with the name and type that it has."""
    info = link.upload(request.files["picture"])
    return {"id": info.id, "name": info.name, "size": info.size}, 201


@views.post("/orders")
def order() -> tuple[dict[str, str], int, dict[str, str]]:
    """Have something done that takes longer than a request may: say where to look, and do not wait."""
    promise = link.manager.send("warehouse", "pack", request.get_json(), timeout=60)
    where = url_for("views.show_order", order_id=promise.command_id)
    return {"id": promise.command_id, "events": f"{where}/events", "page": f"{where}/page"}, 202, {"Location": where}


@views.get("/orders/<order_id>")
def show_order(order_id: str) -> dict[str, Any]:
    """Tell how far an order has come, whichever process took it; an unknown one is a 404."""
    return _shown(link.manager.get(order_id))


@views.get("/orders/<order_id>/events")
def follow_order(order_id: str) -> Response:
    """Tell the same as server-sent events, at each change until the end."""
    promise = link.manager.promise(order_id)
    return Response(stream_with_context(_events(promise)), mimetype="text/event-stream")


@views.get("/orders/<order_id>/page")
def order_page(order_id: str) -> str:
    """Show a page that follows an order."""
    return render_template("order.html", order_id=order_id)


def _events(promise: CommandPromise) -> Iterator[str]:
    told = ""
    while True:
        ended = promise.wait(0.2) is not None
        now = json.dumps(_shown(promise.command()))
        if now != told:
            yield f"data: {now}\n\n"
            told = now
        if ended:
            return


def _shown(command: Command) -> dict[str, Any]:
    told = None if command.ended else command.progress
    progress = {"fraction": told.fraction, "note": told.note} if told else None
    return {"status": command.status, "result": command.result, "error": command.error, "progress": progress}
