"""Two agents that can be driven over HTTP: a greenhouse and a cellar.

python samples/http_commands/agent.py [URL]
"""

from __future__ import annotations

import sys

import lightlink


def make_agent(client_id: str, url: str | None, **labels: str) -> lightlink.Agent:
    """Return an agent; usually each runs on a machine of its own."""
    agent = lightlink.Agent(client_id, url, labels=labels)
    windows = {"left": 0.0, "right": 0.0}

    # The payload is bound to the parameters by name, and checked against the annotations.
    @agent.command("open_window", idempotent=True)
    def open_window(window: str, fraction: float = 1.0) -> dict[str, float]:
        windows[window] = fraction
        return windows

    # A handler that takes long looks at times whether it is still wanted.
    @agent.command("water")
    def water(seconds: float, context: lightlink.CommandContext) -> str:
        context.cancelled.wait(seconds)
        context.check()
        return f"watered for {seconds:g} s"

    # Messages are not stored: whoever is not there misses them.
    @agent.on_message("notice")
    def notice(message: lightlink.AgentMessage) -> None:
        print(f"{client_id} was told: {message.payload}", flush=True)

    return agent


def main(url: str | None) -> None:
    """Run both until Ctrl-C."""
    with make_agent("cellar", url, site="berlin"):
        make_agent("greenhouse", url, site="berlin").run()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
