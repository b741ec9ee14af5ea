"""What every error of LightLink is: facts, and a text made of them."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorated: decorated


# Where users and pickles find these classes, whichever of our modules has them.
_PUBLIC = "lightlink.errors"
# The library's own.
_FOLDER = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - pathlib takes long to import


@dataclass_transform()
class LightLinkError(Exception):
    """The base of every error raised by LightLink.

    What a class annotates are its facts: the arguments of its constructor, and its attributes. They are found here and
    not by attrs, which would make a constructor of its own for each class: a tenth of the time of the first connection.
    """

    __module__ = _PUBLIC
    _facts: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith(f"{_PUBLIC}."):
            cls.__module__ = _PUBLIC
        own = vars(cls).get("__annotations__", ())
        cls._facts = (*cls._facts, *(name for name in own if name not in cls._facts))

    def __init__(self, *args: Any, **named: Any) -> None:
        if not self._facts and not named:
            super().__init__(*args)
            return
        facts = self._bind(args, named)
        # What pickling gives to the constructor again.
        BaseException.__init__(self, *facts.values())
        for name, value in facts.items():
            setattr(self, name, value)

    def _bind(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        cls = type(self)
        names = self._facts
        given = dict(zip(names, args, strict=False)) | named
        wrong = [name for name in named if name not in names or names.index(name) < len(args)]
        missing = [name for name in names if name not in given and not hasattr(cls, name)]
        if wrong or missing or len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes {', '.join(names) or 'no facts'}; not {args!r}, {named!r}")
        return {name: given[name] if name in given else getattr(cls, name) for name in names}

    def __repr__(self) -> str:
        if not self._facts:
            return super().__repr__()
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._facts)})"

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: where it came out of the user's own code, and not the way through this library."""
        frames = traceback.extract_tb(self.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_FOLDER)]
        return [*traceback.format_list(own), *traceback.format_exception_only(type(self), self)]
