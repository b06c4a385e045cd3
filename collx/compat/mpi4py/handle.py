"""Handles: the names by which a program has what MPI keeps for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakValueDictionary

from collx.compat.mpi4py import constants, errors

_by_number: WeakValueDictionary[int, Any] = WeakValueDictionary()


class Kept:
    """What handles name. Two handles of one are equal."""

    constant: str | None = None  # its name in MPI, where it is predefined


class Mixin:
    """What several families of handles have in common. It finds the rest of them there too."""

    if TYPE_CHECKING:
        family: ClassVar[type[Handle]]

        def __getattr__(self, name: str) -> Any: ...


class Handle:
    """A name of something kept, or of nothing: then it is false. A copy, `type(handle)(handle)`, names the same.

    A subclass says in `null` what the handle of nothing is called, and in `invalid` what using one raises.
    """

    null: ClassVar[str]
    invalid: ClassVar[int] = constants.ERR_ARG
    family: ClassVar[type[Handle]]
    _it: Any
    _constant: str | None  # its name, for one of MPI's own, which cannot be freed

    __hash__ = None  # type: ignore[assignment]  # as in mpi4py: it may be freed, and then equals another

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Handle in cls.__bases__:
            cls.family = cls

    def __new__(cls, other: Handle | None = None, *args: Any, **kwargs: Any) -> Self:
        if other is not None and not (isinstance(other, cls.family) and cls._may_name(other._it)):
            raise TypeError(f"{cls.__name__} is made of a {cls.family.__name__}, not of a {type(other).__name__}")
        return cls._of(None if other is None else other._it)

    @classmethod
    def _of(cls, it: Any, constant: str | None = None) -> Self:
        """A handle of what is kept; as one of MPI's own by its name."""
        self = object.__new__(cls)
        self._it, self._constant = it, constant
        if constant is not None and it is not None:
            it.constant = constant
        return self

    @classmethod
    def _may_name(cls, it: Any) -> bool:
        """Whether a handle of this class, rather than of another of its family, may name `it`."""
        return True

    def _kept(self) -> Any:
        """What it names. Raises MPI.Exception where it is null."""
        if self._it is None:
            raise errors.Exception(self.invalid, f"it is {self.null}")
        return self._it

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, self.family):
            return NotImplemented
        return self._it is other._it

    def __bool__(self) -> bool:
        return self._it is not None

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._constant is not None:
            return self._constant
        name = self.null if self._it is None else self._it.constant
        if name is None:
            raise ValueError(f"cannot pickle a {type(self).__name__} that a program has made")
        return _copied, (type(self), name)

    @property
    def handle(self) -> int:
        """A number that names the same in this process while it is kept."""
        if self._it is None:
            return 0
        _by_number[id(self._it)] = self._it
        return id(self._it)

    @classmethod
    def fromhandle(cls, handle: int) -> Self:
        if handle and handle not in _by_number:
            raise errors.Exception(cls.invalid, f"{handle} is no handle of a {cls.__name__}")
        return cls._of(_by_number[handle] if handle else None)

    def toint(self) -> int:
        return self.handle

    @classmethod
    def fromint(cls, arg: int, /) -> Self:
        return cls.fromhandle(arg)

    def py2f(self) -> int:
        """As handle: there is no Fortran that another number would be for."""
        return self.handle

    @classmethod
    def f2py(cls, arg: int) -> Self:
        return cls.fromhandle(arg)

    def free(self) -> None:
        """Free what it names, if that can be; nothing happens to one of MPI's own."""
        if self._constant is None and self._it is not None:
            if self._it.constant is None and hasattr(self, "Free"):
                self.Free()
            self._it = None


def _copied(cls: type[Handle], name: str) -> Handle:
    from mpi4py import MPI  # of whose constants it is one

    return cls(getattr(MPI, name))
