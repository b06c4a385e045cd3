"""Attributes: what programs keep with communicators and datatypes, by keys that say what becomes of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import ERR_KEYVAL, ERR_OTHER, KEYVAL_INVALID
from collx.compat.mpi4py.handle import Mixin


class Keyval(NamedTuple):
    owner: type
    copy: Callable[..., Any] | bool | None
    delete: Callable[..., Any] | None


_numbers = count(1)
_keyvals: dict[int, Keyval] = {}  # freed keys stay: what is kept by them goes on


class Attributes(Mixin):
    """Get_attr and so on, for handles of things with a dict `attributes`."""

    __slots__ = ()

    @classmethod
    def Create_keyval(
        cls,
        copy_fn: Callable[..., Any] | bool | None = None,
        delete_fn: Callable[..., Any] | None = None,
        nopython: bool = False,
    ) -> int:
        """A key. What is kept by it is copied by Dup as `copy_fn(self, key, value)` says: True for the value itself,
        None or False for nothing, as when it returns NotImplemented; `delete_fn(self, key, value)` is called when it
        goes."""
        number = next(_numbers)
        _keyvals[number] = Keyval(cls.family, copy_fn, delete_fn or None)
        return number

    @classmethod
    def Free_keyval(cls, keyval: int) -> int:
        _key(keyval)
        return KEYVAL_INVALID

    def Get_attr(self, keyval: int) -> Any:
        """What is kept by this key, None for nothing."""
        attributes = self._kept().attributes
        if keyval not in attributes:
            return self._predefined_attr(keyval)
        return attributes[keyval]

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        _key(keyval)
        if keyval in self._kept().attributes:
            self.Delete_attr(keyval)
        self._kept().attributes[keyval] = attrval

    def Delete_attr(self, keyval: int) -> None:
        key = _key(keyval)
        attributes = self._kept().attributes
        if keyval in attributes:
            value = attributes.pop(keyval)
            if key.delete is not None:
                called(key.delete, self, keyval, value)

    def _predefined_attr(self, keyval: int) -> Any:
        """What there is by a key of MPI's own."""
        _key(keyval)

    def _copy_attributes(self, other: Any) -> None:
        """What `other`, a duplicate of this, keeps."""
        for number, value in self._kept().attributes.items():
            copy = _keyvals[number].copy
            kept = called(copy, self, number, value) if callable(copy) else value if copy else NotImplemented
            if kept is not NotImplemented:
                other._kept().attributes[number] = kept

    def _drop_attributes(self) -> None:
        for number in reversed(list(self._kept().attributes)):
            self.Delete_attr(number)


def called(function: Callable[..., Any], *args: Any) -> Any:
    """What a program's callback returns. What it raises is printed, and becomes an MPI error, as C would have it."""
    try:
        return function(*args)
    except Exception as error:
        traceback.print_exc()
        code = error.Get_error_code() if isinstance(error, errors.Exception) else ERR_OTHER
        raise errors.Exception(code) from error


def _key(keyval: int) -> Keyval:
    if keyval not in _keyvals:
        raise errors.Exception(ERR_KEYVAL, f"{keyval} is no keyval")
    return _keyvals[keyval]
