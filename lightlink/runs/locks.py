"""Locks of runs: which a run needs. All are taken together with the state in which it has them, or none is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.runs.model import references

if TYPE_CHECKING:
    from lightlink.runs.model.records import RunPlan, Target
    from lightlink.runs.store import RunStore


def names_of_locks(run: RunPlan) -> list[str]:
    """Return the names of all locks that a run needs, sorted; raises MissingReference."""
    found: set[str] = set()
    for lock in run.plan.locks:
        if any(path.split(".")[0] in ("label", "client_id") for path in references.find(lock)):
            found.update(str(references.resolve(lock, _lookup(run, target))) for target in run.targets)
        else:
            found.add(str(references.resolve(lock, _lookup(run, None))))
    return sorted(found)


def release_all(store: RunStore, run: RunPlan, revision: int) -> None:
    """Give back all locks that a run has when it ends by a revision of its state."""
    store.release_locks(names_of_locks(run), run.run_id, revision)


def _lookup(run: RunPlan, target: Target | None) -> references.Lookup:
    def lookup(path: list[str]) -> Any:
        root, *rest = path
        if target is not None and root == "client_id":
            return target.client_id
        if target is not None and root == "label":
            return references.descend(target.labels, [".".join(rest)], ".".join(path))
        if root == "params":
            return references.descend(run.params, rest, ".".join(path))
        facts = {"id": run.run_id, "plan": run.plan.name, "version": run.plan.version, "reason": run.reason}
        return references.descend({**facts, "started_by": run.started_by}, rest, ".".join(path))

    return lookup
