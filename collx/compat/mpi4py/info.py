"""Info: keys and values, both texts. collx takes no hints, so they are only kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.handle import Handle, Kept


class Hints(Kept):
    """Keys and values, in the order in which they came."""

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self.items = dict(items)


class Info(Handle):
    """Keys and values. Used as a dict too."""

    null = "INFO_NULL"
    invalid = constants.ERR_INFO

    @classmethod
    def Create(cls, items: Info | Mapping[str, str] | Iterable[tuple[str, str]] | None = None) -> Self:
        made = cls._of(Hints())
        made.update(() if items is None else items)
        return made

    @classmethod
    def Create_env(cls, args: Sequence[str] | None = None) -> Self:
        return cls._of(Hints())

    def _items(self) -> dict[str, str]:
        items: dict[str, str] = self._kept().items
        return items

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._it is None or self._it.constant is not None:
            return super().__reduce__()
        return type(self).Create, (self.items(),)

    def Free(self) -> None:
        self._kept()
        self._it = None

    def Dup(self) -> Self:
        return self._of(Hints(self._items()))

    def Get(self, key: str) -> str | None:
        return self._items().get(_key(key))

    def Set(self, key: str, value: str) -> None:
        if not value or len(value) > constants.MAX_INFO_VAL:
            raise errors.Exception(constants.ERR_INFO_VALUE, f"a value has 1 to {constants.MAX_INFO_VAL} characters")
        self._items()[_key(key)] = value

    def Delete(self, key: str) -> None:
        if self._items().pop(_key(key), None) is None:
            raise errors.Exception(constants.ERR_INFO_NOKEY, repr(key))

    def Get_nkeys(self) -> int:
        return len(self._items())

    def Get_nthkey(self, n: int) -> str:
        keys = list(self._items())
        if not 0 <= n < len(keys):
            raise errors.Exception(constants.ERR_ARG, f"there are {len(keys)} keys, and no number {n}")
        return keys[n]

    def __len__(self) -> int:
        return 0 if self._it is None else len(self._items())

    def __bool__(self) -> bool:
        return self._it is not None

    def __contains__(self, key: str) -> bool:
        return self._it is not None and self.Get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str) -> str:
        value = None if self._it is None else self.Get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: str) -> None:
        if self._it is None:
            raise KeyError(key)
        self.Set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.Delete(key)

    def get(self, key: str, default: str | None = None) -> str | None:
        value = None if self._it is None else self.Get(key)
        return default if value is None else value

    def keys(self) -> list[str]:
        return [] if self._it is None else list(self._items())

    def values(self) -> list[str]:
        return [] if self._it is None else list(self._items().values())

    def items(self) -> list[tuple[str, str]]:
        return [] if self._it is None else list(self._items().items())

    def update(self, items: Info | Mapping[str, str] | Iterable[tuple[str, str]] = (), **kwds: str) -> None:
        if self._it is None:
            raise KeyError("info is null")
        given: Any = items.items() if isinstance(items, (Info, Mapping)) else items
        for key, value in [*given, *kwds.items()]:
            self[key] = value

    def pop(self, key: str, *default: str) -> str:
        if key not in self and default:
            (value,) = default
            return value
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, str]:
        if not len(self):
            raise KeyError("popitem(): info is empty")
        key = self.keys()[-1]
        return key, self.pop(key)

    def copy(self) -> Self:
        return self._of(None) if self._it is None else self.Dup()

    def clear(self) -> None:
        if self._it is not None:
            self._items().clear()


def _key(key: str) -> str:
    if not key or len(key) > constants.MAX_INFO_KEY:
        raise errors.Exception(constants.ERR_INFO_KEY, f"a key has 1 to {constants.MAX_INFO_KEY} characters")
    return key


INFO_NULL = Info._of(None, "INFO_NULL")
INFO_ENV = Info._of(Hints(), "INFO_ENV")
