from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[1] / "samples"

# What each sample must have said in the end.
SAID = {
    "rpc": [
        "1 + 2 = 3",
        "3 + 4 = 7",
        "doubles: [0, 2, 4, 6, 8]",
        "the handler failed: ZeroDivisionError",
        "not taken: ",
        "nobody there: physics.fall",
    ],
    "pubsub": [
        "handler: welcome Ada (users.berlin.created)",
        "loop: prices.apple.2 {'price': 2.5}",
        "shared: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] and 0 done twice",
    ],
    "state": [
        "sensor01: {'t': 21.5}",
        "sensor02: nothing yet",
        "after delete: no value for key 'device.sensor01'",
        "visits: 3",
        "right: Settings(rate=1.0, enabled=False)",
        "left was: [0.5, 0.75]",
        "keys: ['pump.left', 'pump.right']",
        "watch: put pump.left Settings(rate=0.75, enabled=True)",
        "watch: put pump.left Settings(rate=2.0, enabled=True)",
        "watch: delete pump.right None",
        "now: {'pump.left': Settings(rate=2.0, enabled=True)}",
    ],
    "mutual_tls": [
        "1 + 2 = 3",
        "refused: permission denied: 'web' may not subscribe to 'events.>'",
        "kept out: could not authenticate with NATS (tls://127.0.0.1:",
    ],
    "files": [
        "stored: measurements.csv, 3542641 bytes in 28 chunks, text/csv",
        "fetched: True from (0, 3542641) to (3542641, 3542641)",
        "listed: [('measurements.csv', {'site': 'berlin'})]",
        "deleted: no file '...' in file store 'light_link_files'",
        "memory: straight from memory",
        "cancelled, left behind: []",
        "report-service got report.txt from sample, 450000 bytes, SHA-256 34ef545a...",
    ],
    "commands": [
        "before the agent comes: pending",
        "then: {'rpm': 900}",
        "online: [('pump-1', {'site': 'berlin'})]",
        "not taken: rejected - set_speed: argument 'rpm'",
        "cancelled on the way: True",
        "once: 5 litres True",
        "the agent was told: maintenance at noon",
        "too late: delivery_timeout",
        "completed: set_speed {'rpm': 900}",
        "the first one's story: ['pending', 'executing', 'completed']",
    ],
    "sizing": [
        "heartbeats a second       1,000.0",
        "audit a day, GB           0.3",
        "after an outage of 600 s: 3,322 come back in the busiest second, the last within 4 s",
    ],
    "fleet": [
        "100 agents are online, 34 in berlin",
        "update of 34 agents in berlin",
        "sensor-099 failed there is no space left",
        "completed: 30 failed: 4",
    ],
    "durable": [
        "stored: 30, the first one again: duplicate True",
        "billed in order: ada [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]",
        "although 13 failed once: bob [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]",
        "parked: 10, the first because the card does not work",
        "redelivered and billed: cyd [2, 5, 8, 11, 14, 17, 20, 23, 26, 29]",
        "replayed: 30 events",
    ],
    "rollout": [
        "version 4 to 50 sensors in waves of [1, 5, 44]",
        "6 done; the boss has a look, and approves",
        "rolled_back: verify on sensor-17: its result is not as expected",
        "sensors now run ['3']",
        "hq hears: firmware 5",
        "completed: CHG-5",
        "sensors now run ['5']",
    ],
    "legacy_daemon": [
        "gauge.read: 21.5",
        "after SIGHUP: 22.0",
        "settings: {'value': 21.5}",
        "order: open the valve",
        "settings: {'value': 22.0}",
        "ended",
    ],
    "conformance": [
        "service: 23 of 23 hold",
        "agent: 22 of 22 hold",
        "events: 6 of 6 hold",
        "state: 10 of 10 hold",
        "files: 12 of 12 hold",
        "manager: 14 of 14 hold",
    ],
    "demo_fleet": [
        "10 agents enrolled and online",
        "the token again: the token has been used",
        "a-3 is revoked and kept out",
        "online in berlin: ['a-1', 'a-2', 'a-4']",
        "a-0 is away, and its command waits",
        "berlin: ['hello from a-0', 'hello from a-1', 'hello from a-2', 'hello from a-4']",
        "audit: {'enrolled': 10, 'revoked': 1}",
    ],
    "demo_quic": [
        "sent: update",
        "the agent's port changes: ",
        "result: updated",
        "attempts: 1",
        "the gateway saw it move: True",
        "what the agent noticed: nothing",
    ],
    "typed_rpc": [
        "Quote 2.75 EUR ['apple', 'pear']",
        "'GBP'",
        "'colour'",
        "missing argument 'items'",
    ],
}


def run(sample: str, *args: str, **env: str) -> str:
    """Run a sample to its good end, with warnings as errors, and return what it printed."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LIGHTLINK_URL", "NATS_URL")}
    result = subprocess.run(
        [sys.executable, "-W", "error", SAMPLES / f"{sample}.py", *args],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**inherited, **env},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_sample_is_run_here() -> None:
    assert {path.stem for path in SAMPLES.glob("[!_]*.py")} == set(SAID)


@pytest.mark.parametrize("sample", SAID)
def test_a_sample_runs_by_itself_and_says_what_it_shows(sample: str) -> None:
    printed = run(sample)
    for words in SAID[sample]:
        assert words in printed


def test_a_sample_uses_the_server_on_its_command_line(url: str) -> None:
    assert SAID["rpc"][0] in run("rpc", url, LIGHTLINK_NATS_SERVER="/nowhere")


def test_a_sample_uses_the_server_of_the_environment(url: str) -> None:
    assert SAID["rpc"][0] in run("rpc", LIGHTLINK_URL=url, LIGHTLINK_NATS_SERVER="/nowhere")
