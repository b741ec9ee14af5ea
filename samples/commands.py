"""Send commands to an agent that may be offline, follow them, and get their results back.

python samples/commands.py [URL]
"""

from __future__ import annotations

import time

from _server import nats_url

import lightlink
from lightlink import CommandContext


def make_agent(url: str) -> lightlink.Agent:
    """Return the agent; usually it runs on a machine of its own: `lightlink agent run plant:agent`."""
    agent = lightlink.Agent("pump-1", url, workers=2, labels={"site": "berlin"})

    # The payload is bound to the parameters and checked against the annotations, like the arguments of a call.
    @agent.command("set_speed", idempotent=True)
    def set_speed(rpm: int) -> dict[str, int]:
        return {"rpm": rpm}

    # A command that takes its time says how far it has come, and looks whether it is still wanted.
    @agent.command("flush")
    def flush(context: CommandContext, litres: int = 5) -> str:
        for done in range(litres):
            context.check()
            context.progress(done / litres, f"{done} of {litres} litres")
            context.cancelled.wait(0.05)
        context.check()
        return f"{litres} litres"

    # Messages are for those who listen just now; nothing of them is stored.
    @agent.on_message("notice")
    def notice(message: lightlink.AgentMessage) -> None:
        print("the agent was told:", message.payload["text"])

    return agent


def main(url: str) -> None:
    """Play the manager; any number of them may run side by side, on other machines."""
    with lightlink.connect(url, name="operator") as client, lightlink.CommandManager(client) as manager:
        # The agent is not there yet. The command is stored, and waits for it.
        early = manager.send("pump-1", "set_speed", {"rpm": 900})
        print("before the agent comes:", early.command().status)

        with make_agent(url):
            # A promise brings the result, or raises how the command failed.
            print("then:", early.result(timeout=10))
            print("online:", [(each.client_id, each.labels) for each in manager.clients()])

            # A payload that does not fit is rejected, and the handler never runs.
            try:
                manager.send("pump-1", "set_speed", {"rpm": "fast"}).result(timeout=10)
            except lightlink.CommandFailed as error:
                print("not taken:", error.command.status_detail, "-", error.command.error)

            # Progress, and a cancel that the handler heeds.
            flushing = manager.send("pump-1", "flush", {"litres": 1000}, timeout=120)
            while flushing.command().progress is None:
                time.sleep(0.01)
            manager.cancel(flushing.command_id, "wrong pump")
            try:
                flushing.result(timeout=10)
            except lightlink.CommandCancelled:
                print("cancelled on the way:", flushing.command().progress is not None)

            # Sent twice with the same key, it runs once.
            first = manager.send("pump-1", "flush", idempotency_key="monday")
            again = manager.send("pump-1", "flush", idempotency_key="monday")
            print("once:", first.result(timeout=10), again.command_id == first.command_id)

            manager.message("pump-1", "notice", {"text": "maintenance at noon"}, wait_ack=True)

        # Nobody takes this one in time.
        try:
            manager.send("pump-1", "set_speed", {"rpm": 100}, timeout=0.2).result()
        except lightlink.CommandTimeout as error:
            print("too late:", error.command.status_detail)

        # Everything that happened is kept: by whom, when, and how it ended.
        for command in manager.list("pump-1", "completed"):
            print("completed:", command.command_type, command.result)
        time.sleep(0.2)  # the audit follows a moment later
        print("the first one's story:", [entry.status for entry in manager.audit(early.command_id)])


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
