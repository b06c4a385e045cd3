"""Tuning tables: what was measured of each algorithm, and which is chosen up to which size, as files in the user's
cache directory. `collx tune` makes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from math import isfinite, log, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from collx.collectives import COLLECTIVES
from collx.schedule import Groups
from collx.version import __version__
from collx.wishes import MPI, may_choose

if TYPE_CHECKING:
    from collx.topology import Link

FORMAT = 2
MOST = 1 << 20  # bytes of a file
LARGEST = (1 << 63) - 1  # of any whole number in it: it can be reckoned with, and every rank can read it
BY_RULE = ""  # in a step: nothing was measured there
LONGEST = 60  # characters of how ranks lie, for names of files have 255 at most
MARGIN = 0.12  # what must be gained to change the algorithm: less is noise


class Key(NamedTuple):
    """What a table was measured for; it serves nothing else."""

    machine: str  # fingerprint of what rank 0 runs on
    size: int
    hosts: str  # ranks by host, in rank order, or by the parts of one
    transports: str
    version: str = __version__

    @property
    def file(self) -> str:
        return f"{self.machine}-{self.size}-{self.hosts}-{self.transports}-{self.version}.json"


class Step(NamedTuple):
    """Up to so many bytes, or any number: this algorithm. In whole numbers, so that all who compare find the same."""

    nbytes: int | None
    algorithm: str


class Point(NamedTuple):
    """Nanoseconds of the slowest rank by algorithm, for so many bytes."""

    nbytes: int
    nanoseconds: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    """The steps and points of every collective that was measured, both by size; and by their names the links as a probe
    found them, with the seconds that it takes to reduce a byte, if it was."""

    key: Key
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    points: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    gamma: float | None = None

    def chosen(self, collective: str, nbytes: int) -> str | None:
        """The algorithm for so many bytes, None where nothing was measured."""
        steps = self.steps.get(collective, ())
        return next((step.algorithm for step in steps if step.nbytes is None or nbytes <= step.nbytes), None) or None

    def filled(self, collective: str, low: int, high: int, algorithm: str, point: Point) -> Table:
        """With this algorithm from `low` to `high` bytes, wherever nothing was measured, and with the point, unless
        there is one of its size."""
        bounds = {low - 1, high, *(step.nbytes for step in self.steps.get(collective, ()) if step.nbytes is not None)}
        found = [
            Step(bound, self.chosen(collective, bound) or (algorithm if low <= bound <= high else BY_RULE))
            for bound in sorted(bounds)
        ]
        found.append(Step(None, self.chosen(collective, max(bounds) + 1) or BY_RULE))
        steps = [step for step, after in pairwise(found) if step.algorithm != after.algorithm]
        points = {at.nbytes: at for at in (point, *self.points.get(collective, ()))}
        return replace(
            self,
            steps={**self.steps, collective: (*steps, found[-1])},
            points={**self.points, collective: tuple(points[nbytes] for nbytes in sorted(points))},
        )

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "collx tuning table": FORMAT,
            "key": self.key._asdict(),
            "steps": self.steps,
            "points": self.points,
            "links": list(self.links.values()),
            "gamma": self.gamma,
        }


def hosts_text(hosts: Sequence[str]) -> str:
    """How ranks lie on hosts: "4" on one, "2+2" two by two on two, "8x3+4" eight on each of three and four on the last,
    "1x4@2" in turns on two. What is too long to be part of a file's name is told by a hash of it."""
    runs = [len(list(run)) for _, run in groupby(hosts)]
    alike = [(ranks, len(list(each))) for ranks, each in groupby(runs)]
    text = "+".join(f"{ranks}x{times}" if times > 2 else "+".join([str(ranks)] * times) for ranks, times in alike)
    if len(text) > LONGEST:
        text = f"{len(runs)}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    return text if len(runs) == len(set(hosts)) else f"{text}@{len(set(hosts))}"


def layout_text(hosts: Sequence[str], groups: Groups) -> str:
    """How ranks lie on hosts, and on one host in groups, if there are several: "4=2+2", four that are two by two on two
    packages, say."""
    text = hosts_text(hosts)
    if len(set(hosts)) > 1 or len(groups) < 2:
        return text
    group_of = {rank: str(number) for number, group in enumerate(groups) for rank in group}
    return f"{text}={hosts_text([group_of[rank] for rank in range(len(hosts))])}"


def folder() -> Path:
    """Where tables are kept; files may be removed from it at any time."""
    from platformdirs import user_cache_path  # most processes are not rank 0 of a job

    return user_cache_path("collx", appauthor=False) / "tuning"


def steps_of(
    points: Sequence[Point], held: Sequence[str] = (), changed: Callable[[int, int], int] | None = None
) -> tuple[Step, ...]:
    """Which algorithm up to which size: at each size measured the fastest; but where it gains less than MARGIN, what
    was chosen there before (`held`, by point), or else what is chosen at the size before. Between two sizes where their
    lines cross, in logarithms; or, where both stay what they were, at the last size of the first as it was: `changed`
    finds that between two sizes."""
    winners = list[str]()
    for index, point in enumerate(points):
        best = min(point.nanoseconds, key=lambda name: point.nanoseconds[name])
        limit = point.nanoseconds[best] * (1 + MARGIN)
        kept = (
            name for name in (*held[index : index + 1], *winners[-1:]) if point.nanoseconds.get(name, limit) < limit
        )
        winners.append(next(kept, best))
    steps = []
    for index, (first, second) in enumerate(pairwise(winners)):
        before, after = points[index : index + 2]
        if first == second:
            continue
        if changed is not None and tuple(held[index : index + 2]) == (first, second):
            last = changed(before.nbytes, after.nbytes)
        else:
            last = _crossing(before, after, first, second)
        steps.append(Step(last, first))
    return (*steps, Step(None, winners[-1])) if winners else ()


def _crossing(before: Point, after: Point, first: str, second: str) -> int:
    """Bytes from which on `second` is faster than `first`, which was so before."""
    share = 0.5  # where one of them was not measured at both ends
    if all(name in point.nanoseconds for name in (first, second) for point in (before, after)):
        gains = [log(point.nanoseconds[second] / point.nanoseconds[first]) for point in (before, after)]
        share = min(max(gains[0] / (gains[0] - gains[1]), 0.0), 1.0) if gains[0] != gains[1] else 0.5
    low, high = max(before.nbytes, 1), max(after.nbytes, 1)
    crossing = int(low * (high / low) ** share) if share != 0.5 else int(sqrt(low * high))
    return min(max(crossing, before.nbytes), after.nbytes - 1)


def of_document(document: Any) -> Table:
    """The table that was written. Raises ValueError, saying what is wrong with it."""
    found = _checked(document, dict, "no JSON object")
    if found.get("collx tuning table") != FORMAT:
        raise ValueError(f"no tuning table of format {FORMAT}")
    key = _checked(found.get("key"), dict, "no key")
    types = {"machine": str, "size": int, "hosts": str, "transports": str, "version": str}
    if set(key) != set(types) or any(type(key[name]) is not kind for name, kind in types.items()):
        _wrong("no key")
    steps, points = (_checked(found.get(name), dict, f"no {name}") for name in ("steps", "points"))
    for collective in (*steps, *points):
        if collective not in COLLECTIVES:
            raise ValueError(f"unknown collective {collective[:40]!r}")
    return Table(
        Key(**key),
        {collective: _steps(collective, rows) for collective, rows in steps.items()},
        {collective: _points(collective, rows) for collective, rows in points.items()},
        _links(_checked(found.get("links"), list, "no links")),
        None if found.get("gamma") is None else _figure(found["gamma"], "a gamma that is none"),
    )


def _wrong(what: str) -> NoReturn:
    raise ValueError(what)


def _checked(value: Any, kind: type, what: str) -> Any:
    return value if type(value) is kind else _wrong(what)


def _pairs(rows: Any, what: str) -> list[Any]:
    found: list[Any] = _checked(rows, list, what)
    if any(len(_checked(row, list, what)) != 2 for row in found):
        _wrong(what)
    return found


def _steps(collective: str, rows: Any) -> tuple[Step, ...]:
    what = f"steps of {collective} that are none"
    found = [Step(*row) for row in _pairs(rows, what)]
    bounds = [step.nbytes for step in found]
    if not bounds or bounds[-1] is not None or not all(_number(bound) for bound in bounds[:-1]):
        _wrong(what)
    if any(low >= high for low, high in pairwise(bounds[:-1]) if low is not None and high is not None):
        raise ValueError(f"steps of {collective} that do not ascend")
    _known(collective, [step.algorithm for step in found if step.algorithm != BY_RULE])
    return tuple(found)


def _points(collective: str, rows: Any) -> tuple[Point, ...]:
    what = f"points of {collective} that are none"
    found = [Point(*row) for row in _pairs(rows, what)]
    for point in found:
        times = _checked(point.nanoseconds, dict, what)
        if not _number(point.nbytes) or not all(_number(time) and time for time in times.values()):
            _wrong(what)
        _known(collective, list(times))
    if any(before.nbytes >= after.nbytes for before, after in pairwise(found)):
        raise ValueError(f"points of {collective} that do not ascend")
    return tuple(found)


def _links(rows: list[Any]) -> dict[str, Link]:
    from collx.topology import Link  # most processes have no table

    what, found = "links that are none", {}
    for row in rows:
        if len(_checked(row, list, what)) != len(Link._fields):
            _wrong(what)
        name, *figures, shared = row
        if type(name) is not str or type(shared) is not bool or name in found:
            _wrong(what)
        alpha, beta, overhead = (_figure(figure, what) for figure in figures)
        found[name] = Link(name, alpha, beta, overhead, shared)
    return found


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _figure(value: Any, what: str) -> float:
    """Seconds that can be reckoned with."""
    return value if type(value) is float and isfinite(value) and value >= 0 else _wrong(what)


def _known(collective: str, names: Sequence[Any]) -> None:
    for name in names:
        if name not in (*may_choose(collective), MPI):
            raise ValueError(f"{collective} has no algorithm {str(name)[:40]!r}")


def any_kept() -> bool:
    """Whether there may be any table of this version; if not, nobody need know what machine this is."""
    try:
        return any(folder().glob(f"*-{__version__}.json"))
    except OSError:  # which `read` tells
        return True


def read(machine: str) -> tuple[list[Table], list[str]]:
    """The tables for this machine and version, by file name, and for each file that cannot serve a line that says
    why."""
    tables, complaints = list[Table](), list[str]()
    try:
        paths = sorted(folder().glob(f"{machine}-*-{__version__}.json"))
    except OSError as error:
        return [], [f"ignored the tuning tables, whose folder cannot be read: {error}"]
    for path in paths:
        try:
            tables.append(_read(path))
        except (OSError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())
            complaints.append(f"ignored the tuning table {path}: {why}; `collx tune` makes a new one")
    return tables, complaints


def kept(key: Key) -> Table:
    """The table that is kept for this; an empty one where there is none that can serve."""
    try:
        return _read(folder() / key.file)
    except (OSError, ValueError, RecursionError):
        return Table(key)


def _read(path: Path) -> Table:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # it may be a pipe
        text = file.read(MOST + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else _wrong("no regular file")
    table = of_document(json.loads(text)) if len(text) <= MOST else _wrong("too long")
    return table if table.key.file == path.name else _wrong("it is for something else")


def write(table: Table) -> Path:
    """Write a table, whole or not at all; its file. Raises OSError."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=place)
    try:
        with open(descriptor, "w") as file:
            json.dump(table.document(), file)
        os.replace(name, place / table.key.file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return place / table.key.file


def may_write() -> None:
    """Raises OSError where no table could be written."""
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder()):
        pass


def machine() -> str:
    """The fingerprint of this machine: the topology of the cores that this process may use, and what processors they
    are of."""
    from collx.topology import linux, place  # most jobs have no table

    return place(linux.processors()).topology.fingerprint()
