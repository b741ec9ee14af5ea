"""How large a fleet's server has to be, and how its agents come back after an outage.

python samples/sizing.py [--agents 10000] [--commands 20] [--heartbeat 10] [--retention 7] [--audit 30] [--wait-max 4]
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

# Measured with nats-server 2.15.1 on two cores (docs/scaling.md). A command of some 50 bytes of payload and result:
REQUEST_BYTES = 392
STATUS_BYTES = 394
STATUSES = 2  # executing, completed
AUDIT_BYTES = 487  # for each request and each status
HEARTBEAT_BYTES = 442
CONSUMER_BYTES = 49_000
ACCOUNT_BYTES = 740
PULL_SECONDS = 30.0
# A TLS handshake, the responder's decision, and what a client says first: processor seconds of server and responder.
CONNECT_CPU_SECONDS = 0.0085


def sizing(agents: int, commands: float, heartbeat: float, retention: float, audit: float) -> dict[str, float]:
    """Return what a fleet needs: ``commands`` for each agent a day, heartbeats in seconds, the others in days."""
    a_day = agents * commands
    stored = 1 + STATUSES
    return {
        "heartbeats a second": agents / heartbeat,
        "pulls a second": agents / PULL_SECONDS,
        "commands a second, in the mean": a_day / 86_400,
        "commands kept, GB": a_day * retention * (REQUEST_BYTES + STATUSES * STATUS_BYTES) / 1e9,
        "audit kept, GB": a_day * audit * stored * AUDIT_BYTES / 1e9,
        "audit a day, GB": a_day * stored * AUDIT_BYTES / 1e9,
        "presence, MB": agents * HEARTBEAT_BYTES / 1e6,
        "server memory for consumers and accounts, MB": agents * (CONSUMER_BYTES + ACCOUNT_BYTES) / 1e6,
        "to connect all of them, processor seconds": agents * CONNECT_CPU_SECONDS,
    }


def returns(agents: int, outage: float, first: float, most: float, seed: int = 1) -> Counter[int]:
    """Return how many agents come back in each second after an outage of some seconds.

    Their waits double from ``first`` up to ``most`` seconds, each times a random number from a half to one, as the
    options ``reconnect_wait`` and ``reconnect_wait_max`` have it.
    """
    chance = random.Random(seed)
    back: Counter[int] = Counter()
    for _ in range(agents):
        at, attempt = 0.0, 0
        while at < outage:
            at += min(most, first * 2 ** min(attempt, 16)) * chance.uniform(0.5, 1.0)
            attempt += 1
        back[int(at - outage)] += 1
    return back


def main() -> None:
    """Print both for the fleet on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    wanted = {"agents": 10_000, "commands": 20.0, "heartbeat": 10.0, "retention": 7.0, "audit": 30.0, "wait-max": 4.0}
    for name, value in wanted.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = parser.parse_args()
    for what, amount in sizing(given.agents, given.commands, given.heartbeat, given.retention, given.audit).items():
        print(f"{what:>45}  {amount:12,.1f}")
    for outage in (10.0, 600.0):
        back = returns(given.agents, outage, 0.1, given.wait_max)
        most, last = max(back.values()), max(back)
        print(
            f"after an outage of {outage:g} s: {most:,} come back in the busiest second, the last within {last + 1} s"
        )


if __name__ == "__main__":
    main()
