"""Roll a firmware out to 50 sensors at three sites, in waves, with an approval and a rollback.

python samples/rollout.py [URL]

Version 4 is bad: one sensor does not run with it, so all go back to version 3. Version 5 is taken by all.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from _server import nats_url

import lightlink
from lightlink.commands import Agent
from lightlink.runs import Orchestrator, Plan

SITES = ("berlin", "paris", "rome")
SENSORS = 50


class Sensor:
    """What a real sensor would keep in its flash memory."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.version = "3"

    def info(self) -> dict[str, Any]:
        """Tell which version runs."""
        return {"version": self.version}

    def install(self, version: str) -> dict[str, Any]:
        """Bring it to a version."""
        before, self.version = self.version, version
        return {"before": before}

    def verify(self) -> dict[str, Any]:
        """Tell whether it works: sensor 17 does not with version 4."""
        return {"ok": not (self.version == "4" and self.number == 17)}

    def agent(self, client: lightlink.Client) -> Agent:
        """Return the agent that takes its commands."""
        labels = {"kind": "sensor", "site": SITES[self.number % len(SITES)]}
        agent = Agent(f"sensor-{self.number:02}", client, labels=labels, workers=1)
        agent.register("firmware.info", self.info)
        agent.register("firmware.install", self.install)
        agent.register("firmware.verify", self.verify)
        return agent


def headquarters(client: lightlink.Client) -> Agent:
    """Return the agent that is told how it ended."""
    agent = Agent("hq", client, workers=1)
    agent.register("report.send", lambda text: print(f"hq hears: {text.split(':')[0]}"))
    return agent


def roll_out(ops: Orchestrator, plan: Plan, version: str) -> None:
    """Start a run, and be the boss who approves it."""
    params = {"version": version}
    found = ops.check(plan, params)
    print(f"version {version} to {found.targets} sensors in waves of {[len(wave) for wave in found.waves]}")
    run = ops.start(plan, params, reason=f"CHG-{version}")
    while run.wait_for("waiting", timeout=60) == "waiting":
        print(f"  {run.counts()['done']} done; the boss has a look, and approves")
        run.approve("looks good", by="boss", digest=run.digest)
        run.wait_for("running", timeout=60)
    print(f"  {run.state}: {run.refresh().reason}")


def main() -> None:
    """Try version 4, then version 5."""
    plan = Plan.load(Path(__file__).with_suffix(".yaml"))
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(nats_url())
        client = stack.enter_context(lightlink.connect(url, name="ops"))
        ops = stack.enter_context(Orchestrator(client))
        sensors = [Sensor(number) for number in range(SENSORS)]
        for agent in [headquarters(client), *(sensor.agent(client) for sensor in sensors)]:
            stack.enter_context(agent)
        for version in ("4", "5"):
            roll_out(ops, plan, version)
            print(f"  sensors now run {sorted({sensor.version for sensor in sensors})}")


if __name__ == "__main__":
    main()
