"""Writes docs/algorithms.md from the register: `python -m collx.algorithms.table > docs/algorithms.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import collx.algorithms  # noqa: F401  (fills the register)
from collx.schedule import REGISTER, Algorithm, Groups

SAMPLES = (2, 8, 100)  # sizes to show the closed forms at: the smallest, a power of two, and one far from any

HEAD = """\
# Algorithms

Generated from the register by `make docs`; every line of it is proved by `make prove` for all sizes 1..256.

Rounds are the longest chain of communicating rounds, bytes the most that any rank sends in units of the buffer
(for all_to_all of one rank's input), each on {samples} ranks. *Ordered* algorithms keep rank order, as
non-commutative ops need; *uniform* ones need blocks of one size; *powers of two* are all the sizes that those so
marked take. `collx perf COLLECTIVE --algorithm all` measures them side by side.

Algorithms *over groups* take the ranks of each host for a group, whatever their order. Their figures are for two hosts
with half of the ranks each; for hosts with different numbers of ranks they are upper bounds. `make prove` proves them
for 300 random groupings besides. On one host they are what serves within a group.

Where MPI joins the ranks there is one more, `mpi`: [MPI's own collective](design.md#mpis-own-collectives), which is no
schedule.
"""


def document() -> str:
    """The whole page, in Markdown."""
    collectives = dict.fromkeys(collective for collective, _ in sorted(REGISTER))
    parts = [HEAD.format(samples=", ".join(map(str, SAMPLES[:-1])) + f" and {SAMPLES[-1]}")]
    return "\n".join([*parts, *(_section(collective) for collective in collectives)])


def _section(collective: str) -> str:
    rows = [_row(algorithm) for key, algorithm in sorted(REGISTER.items()) if key[0] == collective]
    head = "| algorithm | what it does | rounds | bytes | wins | source |\n|---|---|---|---|---|---|"
    return "\n".join([f"## {collective}", "", head, *rows, ""])


def _halves(size: int) -> Groups:
    return tuple(tuple(ranks) for ranks in (range(size // 2), range(size // 2, size)))


def _row(algorithm: Algorithm) -> str:
    what = " ".join((algorithm.builder.__doc__ or "").split())
    cells = (
        f"**{algorithm.name}**{''.join(f'<br>*{trait}*' for trait in _traits(algorithm))}",
        what,
        " · ".join(_figures(algorithm, lambda one, size: str(one.rounds(size)))),
        " · ".join(_figures(algorithm, lambda one, size: _decimal(one.volume(size)))),
        algorithm.wins,
        algorithm.source,
    )
    return f"| {' | '.join(cells)} |"


def _traits(algorithm: Algorithm) -> Iterator[str]:
    if algorithm.over:
        yield "over groups"
    if algorithm.ordered:
        yield "ordered"
    if algorithm.uniform:
        yield "uniform"
    if not algorithm.sizes(SAMPLES[-1]):
        yield "powers of two"


def _figures(algorithm: Algorithm, figure: Callable[[Algorithm, int], str]) -> Iterator[str]:
    of = {size: algorithm.over(_halves(size)) if algorithm.over else algorithm for size in SAMPLES}
    return (figure(of[size], size) if of[size].sizes(size) else "-" for size in SAMPLES)


def _decimal(volume: Fraction) -> str:
    return f"{float(volume):.3g}"


if __name__ == "__main__":
    print(document(), end="")
