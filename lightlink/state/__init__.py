"""Retained state: values under keys in a bucket, which is a JetStream key-value bucket (ADR-8)."""

from lightlink.state.bucket import StateBucket
from lightlink.state.entry import StateChange, StateEntry
from lightlink.state.options import BucketInfo, BucketOptions
from lightlink.state.snapshot import Restored, Snapshot
from lightlink.state.watch import StateWatch

__all__ = [
    "BucketInfo",
    "BucketOptions",
    "Restored",
    "Snapshot",
    "StateBucket",
    "StateChange",
    "StateEntry",
    "StateWatch",
]
