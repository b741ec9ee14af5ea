"""A registry that holds its objects weakly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class Registry(Generic[T]):
    """Weak references to objects. Unlike a WeakSet it can be looked through while other threads add to it."""

    def __init__(self) -> None:
        self._items: WeakValueDictionary[int, T] = WeakValueDictionary()

    def add(self, item: T) -> None:
        """Remember an object."""
        self._items[id(item)] = item

    def discard(self, item: T) -> None:
        """Forget an object, if it is known."""
        self._items.pop(id(item), None)

    def __iter__(self) -> Iterator[T]:
        """Yield the objects alive at this moment."""
        return iter([item for reference in self._items.valuerefs() if (item := reference()) is not None])
