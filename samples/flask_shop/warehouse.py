"""The agent that packs orders: ``lightlink agent run warehouse:agent``."""

from __future__ import annotations

import lightlink

agent = lightlink.Agent("warehouse")


@agent.command("pack", idempotent=True)
def pack(items: list[str], context: lightlink.CommandContext) -> dict[str, int]:
    """Pack each item, and tell how far it has come."""
    for number, item in enumerate(items):
        context.check()
        context.progress(number / len(items), f"packing {item}")
    return {"packed": len(items)}
