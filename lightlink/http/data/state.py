"""Views of buckets of state: a value is written over the revision that was looked at, and over no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from werkzeug.exceptions import Forbidden, NotFound

from lightlink.errors import StateNotFound
from lightlink.http.data.content import shown
from lightlink.http.data.schemas import BucketList, BucketView, Done, KeyList, KeyView, RevisionView, Written
from lightlink.jetstream import api
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from lightlink.http.call import Call
    from lightlink.state import StateBucket, StateChange

# What LightLink keeps for itself (agents, the status of commands, the fleet) is not for hands.
_OWN = "lightlink"
_WHAT = "state"


def list_buckets(call: Call) -> BucketList:
    """List the buckets of state."""
    call.check_unlimited(_WHAT)
    client = call.manager.client
    found = []
    for stream in client.streams():
        name = stream.removeprefix(subjects.STATE_STREAMS)
        if not stream.startswith(subjects.STATE_STREAMS) or name.lower().startswith(_OWN):
            continue
        info = api.stream_info(client.connection, stream, client.options.timeout)
        if info is not None:
            found.append(BucketView(name=name, values=info.state.messages, bytes=info.state.bytes))
    return BucketList(buckets=found)


def list_keys(call: Call) -> KeyList:
    """List keys of a bucket."""
    keys = _bucket(call, Any).keys(call.query.pattern)
    skip = call.query.skip
    return KeyList(total=len(keys), keys=keys[skip : skip + call.query.limit])


def get_key(call: Call) -> KeyView:
    """Show what a bucket keeps of a key."""
    bucket, key = _bucket(call, bytes), call.path["key"]
    changes: list[StateChange[bytes]] = bucket.history(key)
    if not changes:
        raise StateNotFound(bucket.name, key)
    return KeyView(key=key, revisions=[_revision(each) for each in reversed(changes)])


def write_key(call: Call) -> Written:
    """Write a value over a revision."""
    bucket, key, body = _bucket(call, Any), call.path["key"], call.body
    if body.revision == 0:
        return Written(revision=bucket.create(key, body.value))
    return Written(revision=bucket.update(key, body.value, revision=body.revision))


def delete_key(call: Call) -> Done:
    """Remove a value; older ones stay in the history."""
    revision = call.query.revision
    _bucket(call, Any).delete(call.path["key"], revision=None if revision is UNSET else revision)
    return Done()


def _bucket(call: Call, value_type: Any) -> StateBucket[Any]:
    call.check_unlimited(_WHAT)
    name, client = call.path["bucket"], call.manager.client
    bucket = client.state(name, value_type=value_type)
    if name.lower().startswith(_OWN):
        raise Forbidden(f"bucket {name!r} is LightLink's own")
    # Writing would make it.
    if api.stream_info(client.connection, subjects.state_stream(name), client.options.timeout) is None:
        raise NotFound(f"Bucket not found: {name}")
    return bucket


def _revision(change: StateChange[bytes]) -> RevisionView:
    value = shown(change.value, "value") if change.value is not None else {}
    return RevisionView(revision=change.revision, operation=change.operation, at=change.created, **value)
