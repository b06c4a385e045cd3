"""What `collx verify` is asked to prove: registered algorithms by name, and those from outside collx."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import collx.algorithms  # noqa: F401  (fills the register)
from collx.collectives import COLLECTIVES
from collx.plugins import command_line_algorithm
from collx.schedule import REGISTER, Algorithm, Builder

Key = tuple[str, str]  # a collective, and the name of an algorithm or `module:function`


def source_of(key: Key) -> Algorithm | Builder:
    """The algorithm, or the function that nothing is claimed of. Raises ValueError where it cannot be loaded."""
    found = command_line_algorithm(*key)
    if found is None:
        known = [name for collective, name in REGISTER if collective == key[0]]
        raise ValueError(f"{key[0]} has no algorithm {key[1]!r}; it has {', '.join(known)}")
    return found


def takes(key: Key, size: int) -> bool:
    source = source_of(key)
    return not isinstance(source, Algorithm) or source.sizes(size)


def keys_of(asked: str | None, collective: str | None) -> list[Key]:
    """What to prove; ValueError where nothing is known by that name."""
    wanted = (key for key in REGISTER if asked in (None, *key, ":".join(key)))
    keys = [key for key in wanted if collective in (None, key[0])]
    if keys or asked is None:
        return keys
    before, colon, name = asked.rpartition(":")
    collective = collective or (name if name in COLLECTIVES else None)
    if before in COLLECTIVES or not (colon or collective):
        raise ValueError(f"no algorithm {asked!r}{_hint(asked)}")
    if collective is None:
        raise ValueError(f"which collective is {asked!r} for? say --collective, one of {', '.join(COLLECTIVES)}")
    source_of((collective, asked))
    return [(collective, asked)]


def _hint(asked: str) -> str:
    names = sorted({name for key in REGISTER for name in (*key, ":".join(key))})
    near = difflib.get_close_matches(asked, names)
    return f"; nearest: {', '.join(near)}" if near else "; docs/algorithms.md lists them"


def roots(collective: str, size: int) -> Sequence[int]:
    """The roots to prove: all for small sizes; for large ones the first and one amidst, others differ by names."""
    if not COLLECTIVES[collective].rooted:
        return (0,)
    return range(size) if size <= 8 else (0, size // 2)
