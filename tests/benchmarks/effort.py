"""How much is measured: the same code runs for seconds or for minutes."""

from __future__ import annotations

import attrs


@attrs.frozen
class Effort:
    """How much is measured; ``slice`` is how many seconds one side is measured in one round.

    After ``limit`` seconds nothing new is begun: what comes too late is reported as not measured.
    """

    name: str
    rounds: int
    slice: float
    calls: int  # one after the other in a round, where a call's time is measured
    stored_calls: int  # the same for calls that are written to disk
    imports: int  # interpreters started in a round
    file_mib: int
    big_file_mib: int
    batch: int  # commands in a batch
    curve_rounds: int
    curve_slice: float
    mixed_calls: int  # one after the other beside an upload
    idle: float  # seconds for which those who do nothing are watched
    long_run: int  # publishes in the run that watches the memory
    limit: float


FULL = Effort(
    name="full",
    rounds=7,
    slice=0.8,
    calls=800,
    stored_calls=300,
    imports=3,
    file_mib=256,
    big_file_mib=1024,
    batch=10_000,
    curve_rounds=3,
    curve_slice=0.4,
    mixed_calls=400,
    idle=60.0,
    long_run=10_000_000,
    limit=870.0,
)

QUICK = Effort(
    name="quick",
    rounds=5,
    slice=0.1,
    calls=80,
    stored_calls=40,
    imports=1,
    file_mib=16,
    big_file_mib=64,
    batch=500,
    curve_rounds=1,
    curve_slice=0.08,
    mixed_calls=40,
    idle=3.0,
    long_run=300_000,
    limit=110.0,
)

# For the harness's own test: everything happens, nothing is worth reading.
TINY = attrs.evolve(
    QUICK, name="tiny", rounds=1, slice=0.02, calls=5, stored_calls=5, mixed_calls=5, idle=0.1, curve_slice=0.02
)
