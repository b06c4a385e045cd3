"""What the comparison makes of docs/mpi4py.md: a table per module and size, and the tests that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests import pages
from tests.mpi4py import modules
from tests.mpi4py.outcomes import Outcome

MISSING = Outcome("missing", "its class or module did not get as far")


@dataclass(frozen=True, slots=True)
class Result:
    """One module with one number of ranks: what became of its tests on MPICH, and on collx."""

    module: str
    size: int
    on_mpich: dict[str, str]
    on_collx: dict[str, Outcome]

    @property
    def lost(self) -> dict[str, Outcome]:
        """The tests that pass on MPICH and not on collx."""
        ours = {test: self.on_collx.get(test, MISSING) for test, was in self.on_mpich.items() if was == "passed"}
        return {test: outcome for test, outcome in ours.items() if outcome.result != "passed"}

    @property
    def wanted(self) -> int:
        return sum(was == "passed" for was in self.on_mpich.values())

    @property
    def kept(self) -> int:
        return self.wanted - len(self.lost)

    @property
    def meets(self) -> bool:
        return self.kept >= modules.GOALS.get(self.module, 0) * self.wanted


def write(results: Sequence[Result]) -> None:
    """Put the tables where the page has its marks for them."""
    text = "\n".join([_heading(), "", *_table(results), "", *_differences(results)])
    pages.replace("mpi4py.md", "mpi4py's tests", "make mpi4pytests", text)


def _heading() -> str:
    versions = modules.versions()
    return (
        "## mpi4py's own tests\n\n"
        f"Of the tests in the sources of mpi4py {versions['mpi4py']}, those that pass with real mpi4py on "
        f"{versions['MPI']} with as many\nranks, and how many of these pass on collx: unchanged, on every rank."
    )


def _table(results: Sequence[Result]) -> list[str]:
    cells = {(each.module, each.size): each for each in results}
    lines = [
        f"| module | goal | {' | '.join(f'n = {size}' for size in modules.SIZES)} |",
        f"|---|--:|{'--:|' * len(modules.SIZES)}",
    ]
    for module in dict.fromkeys(each.module for each in results):
        row = [_cell(cells.get((module, size))) for size in modules.SIZES]
        goal = f"{modules.GOALS[module]:.0%}" if module in modules.GOALS else ""
        lines.append(f"| {module} | {goal} | {' | '.join(row)} |")
    return lines


def _cell(result: Result | None) -> str:
    if result is None:
        return "not compared"
    if not result.wanted:
        return "none pass"
    return f"{result.kept} of {result.wanted}" + ("" if result.lost else ", all")


def _differences(results: Sequence[Result]) -> list[str]:
    """The lost tests, those of one class, reason and size together."""
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for each in results:
        for test, outcome in each.lost.items():
            group, _, name = test.rpartition(".")
            reason = f"{outcome.result}: {outcome.reason}" if outcome.reason else outcome.result
            groups.setdefault((group, reason), {}).setdefault(name, []).append(each.size)
    lines = []
    for (group, reason), tests in groups.items():
        names = ", ".join(f"{name} ({', '.join(map(str, sizes))})" for name, sizes in tests.items())
        lines.append(f"- `{group}`: {names}: {reason}")
    return lines or ["No test that passes on MPICH fails on collx."]
