"""How calls on GPUs are made, and why so: what ranks found out of each other, and every algorithm that may serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from collx.cuda.choosing import NoRoom, Ranks, candidates, choose
from collx.cuda.plan import DevicePlan
from collx.explain import Explanation, bytes_text, class_text, sentence, typical
from collx.guide import UNGUIDED, Guide
from collx.request import Request
from collx.selector import Choice

UNKNOWN = (
    "not known before the first call on GPUs, when ranks find out whether they can map each other's memory by CUDA IPC,"
    " which of them share a GPU, and how they wait for each other; where they cannot, calls go through pinned memory of"
    " the host"
)


class Candidate(NamedTuple):
    """One algorithm for one call: how many steps, with a barrier around each, and how many bytes all GPUs together read
    and write, which NCCL does not tell. `objection`: why it cannot serve."""

    name: str
    steps: int | None
    moved: int | None
    objection: str | None


@dataclass(frozen=True, slots=True)
class DeviceExplanation:
    """How a call on GPUs is made: `way` is how any is, `chosen` by which algorithm and `why`, with every candidate, the
    chosen one first. Where calls go by the host, that is `host`'s contest. `str()` of it is a table."""

    collective: str
    nbytes: int
    size: int
    way: str
    chosen: str | None = None
    why: str = ""
    candidates: tuple[Candidate, ...] = ()
    host: Explanation | None = None

    def __str__(self) -> str:
        begins = f"{self.collective} of {bytes_text(self.nbytes)} on {self.size} ranks' GPUs: "
        if self.host is not None:
            return f"{begins}{self.way}\n{self.host}"
        if self.chosen is None:
            return begins + self.way
        rows = [
            (
                "*" if entry.name == self.chosen else "",
                entry.name,
                _shown(entry.steps, str),
                _shown(entry.moved, bytes_text),
            )
            for entry in self.candidates
            if entry.objection is None
        ]
        head = ("", "algorithm", "steps", "moved")
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [f"{begins}{self.chosen}, {self.why}", f"  {self.way}"]
        for mark, name, *numbers in (head, *rows):
            right = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[2:], strict=True)]
            lines.append("  ".join([f"{mark:<{widths[0]}}", f"{name:<{widths[1]}}", *right]).rstrip())
        lines += [f"  not {entry.name}: {entry.objection}" for entry in self.candidates if entry.objection]
        return "\n".join(lines)


def explain(
    collective: str,
    nbytes: int,
    size: int,
    way: str | None,
    ranks: Ranks | None,
    guide: Guide = UNGUIDED,
    host: Explanation | None = None,
) -> DeviceExplanation:
    """The contest for a call on GPUs with a buffer of about `nbytes`, of float32 and sum. `way` is how calls on GPUs
    are made, if that is known; without `ranks`, among which an algorithm is chosen, that of the `host` serves. Raises
    ValueError for an unknown collective."""
    request = typical(collective, nbytes, size)
    if way is None or ranks is None:
        return DeviceExplanation(collective, request.nbytes, size, way or UNKNOWN, host=host)
    choice = choose(request, ranks, guide)
    found = [_candidate(*entry) for entry in candidates(request, ranks)]
    found.sort(key=lambda entry: (entry.name != choice.name, entry.objection is not None, entry.steps or 0))
    why = sentence(Choice(choice.name, None, choice.by), request, guide)
    return DeviceExplanation(collective, request.nbytes, size, way, choice.name, why, tuple(found))


def first_choice(request: Request, ranks: Ranks, guide: Guide) -> str:
    """What COLLX_DEBUG=INFO says of a call."""
    begins = f"{class_text(request)} on GPUs: "
    try:
        choice = choose(request, ranks, guide)
    except NoRoom as error:
        return f"{begins}staged, as {error}"
    return f"{begins}{choice.name}, {sentence(Choice(choice.name, None, choice.by), request, guide)}"


def _candidate(name: str, plan: DevicePlan | None, objection: str | None) -> Candidate:
    if plan is None:
        return Candidate(name, None, None, objection)
    folds = [fold for step in plan.steps for wave in step for fold in wave]
    moved = sum(fold.nbytes * (len(fold.sources) + len(fold.targets)) for fold in folds)
    return Candidate(name, len(plan.steps), moved, objection)


def _shown(number: int | None, text: Callable[[int], str]) -> str:
    return "-" if number is None else text(number)
