"""Retained state: values under keys in a bucket, which is a JetStream key-value bucket (ADR-8)."""

from lightlink.state.bucket import MISSING, StateBucket
from lightlink.state.entry import StateChange, StateEntry
from lightlink.state.options import DEFAULT_BUCKET, BucketOptions
from lightlink.state.watch import StateWatch

__all__ = ["DEFAULT_BUCKET", "MISSING", "BucketOptions", "StateBucket", "StateChange", "StateEntry", "StateWatch"]
