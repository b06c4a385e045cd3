"""COLLX_TUNE=auto: calls are made by one algorithm after the other until all ranks agree on the fastest, and are right
meanwhile."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collx import Communicator, decisions, tuning
from collx.decisions import Decisions
from collx.errors import AbortedError, BootstrapError, MismatchError
from collx.guide import Guide
from collx.request import Request
from collx.selector import choose
from collx.trial import GAIN, LOOKS, MOST, ROUNDS, SLOW, Trial, Trials, contenders
from collx.tuning import Key, Point, Step, Table, of_document
from collx.types import reduce_op
from collx.wishes import may_choose, parse
from tests.collectives.numbers import same
from tests.jobs import collx_run, program
from tests.ranks import on_hosts

NAMES = may_choose("all_reduce")
AUTO = Decisions(tries="abc")
KEY = Key("abc", 4, "4", "shm")
CALLS = 2  # that a turn has at most, in tests of several ranks
LONGEST = MOST * (LOOKS + ROUNDS) * CALLS  # calls of a trial


@example(["circulant", "direct", "two_shot"], 2, 0.1, 128466)  # medians above a first look at one that dropped out
@given(
    st.lists(st.sampled_from(NAMES), min_size=2, max_size=MOST, unique=True),
    st.integers(1, 4),
    st.sampled_from([0, 0.1, 0.9]),
    st.integers(0, 10**6),
)
def test_ranks_with_times_of_their_own_agree(names: list[str], size: int, unknown: float, seed: int) -> None:
    chance = random.Random(seed)
    scale = {name: chance.choice([10, 12, 15, 50]) for name in names}
    trials = [Trial(names, 8) for _ in range(size)]
    turns: list[list[str]] = [[]]  # between agreements
    looked: dict[str, int] = {}
    while trials[0].chosen is None:
        (turn,) = {trial.turn for trial in trials}
        turns[-1].append(turn)
        mine = [0 if chance.random() < unknown else chance.randint(1, 9) * scale[turn] for _ in trials]
        (due,) = {trial.took(nanoseconds) for trial, nanoseconds in zip(trials, mine, strict=True)}
        if due:
            slowest = [max(taken) for taken in zip(*(trial.taken for trial in trials), strict=True)]
            for trial in trials:
                trial.agreed(slowest)
            looked = dict(trials[0].nanoseconds) if len(turns) == 1 else looked
            turns.append([])
    looks, rounds, (chosen,) = turns[0], turns[1], {trial.chosen for trial in trials}
    found, first = trials[0].nanoseconds, names[0]
    assert trials[0].calls == len(looks) + len(rounds)
    assert Counter(looks) == dict.fromkeys(names, LOOKS * CALLS // 2)
    limit = SLOW * min(looked.values(), default=0)
    left = [name for name in names if name == first or looked.get(name, 0) <= limit]
    assert not rounds or Counter(rounds) == dict.fromkeys(left, len(rounds) // len(left))
    assert len(rounds) % (ROUNDS * len(left)) == 0
    assert chosen in (left if rounds else names)
    assert chosen == first or first not in found or found[first] > found[chosen] * (1 + GAIN)
    if first in found and rounds:
        assert found[chosen] <= min(found[name] for name in left if name in found) * (1 + GAIN)


def test_what_nobody_could_time_stays_as_it_was() -> None:
    trial = Trial(["ring", "pat"], 8)
    while trial.chosen is None:
        if trial.took(0):
            trial.agreed(list(trial.taken))
    assert trial.chosen == "ring"
    assert trial.nanoseconds == {}


def request(nbytes: int = 4096, **more: Any) -> Request:
    return Request("all_reduce", (nbytes // 4,), np.dtype(np.float32), **({"op": reduce_op("sum")} | more))


def test_only_what_a_rule_has_chosen_is_tried() -> None:
    def of(request: Request, algo: str = "", table: Table | None = None, mpi: bool = False) -> tuple[str, ...]:
        guide = Guide(parse(algo), table, tries=KEY)
        trial = Trials(4, 1 << 16, False, mpi, guide, ()).find(request)
        return () if trial is None else contenders(request, 4, 1 << 16, False, mpi, guide, ())

    names = of(request())
    assert 1 < len(names) <= MOST
    assert names[0] == choose(request(), 4, 1 << 16).name
    assert of(request(algorithm="ring")) == of(request(called="split")) == of(request(0)) == ()
    assert of(request(), "ring") == of(request(), mpi=True) == ()
    assert names[1] not in of(request(), f"^{names[1]}")
    table = Table(KEY, {"all_reduce": (Step(1000, ""), Step(5000, "ring"), Step(None, ""))})
    assert of(request(), table=table) == ()
    assert of(request(5004), table=table)


@given(st.lists(st.integers(1 << 14, (1 << 15) - 1), min_size=2, max_size=4))
def test_what_one_rank_has_asked_about_first_makes_no_difference(counts: list[int]) -> None:
    made = set()
    for first in counts:
        trials = Trials(4, 1 << 16, False, False, Guide(tries=KEY), ())
        trial = trials.find(request(4 * first))
        assert trial is not None
        assert {trials.find(request(4 * count)) for count in counts} == {trial}
        while not trial.took(1):
            pass
        made.add((trial.calls, tuple(trial.taken)))
    assert len(made) == 1


STEPS = st.lists(
    st.tuples(st.integers(1, 1 << 20), st.sampled_from(["", *NAMES])), max_size=5, unique_by=lambda s: s[0]
)


@given(STEPS, st.sampled_from(["", "ring"]), st.integers(0, 20), st.sampled_from(NAMES))
def test_a_table_is_filled_where_nothing_was_measured(
    steps: list[tuple[int, str]], last: str, power: int, name: str
) -> None:
    before = Table(KEY, {"all_reduce": (*(Step(*step) for step in sorted(steps)), Step(None, last))})
    low, high = 1 << power, (2 << power) - 1
    after = before.filled("all_reduce", low, high, name, Point(low, {name: 5}))
    for nbytes in {0, low - 1, low, high, high + 1, 1 << 40, *(b + d for b, _ in steps for d in (-1, 0, 1))}:
        found = name if low <= nbytes <= high else None
        assert after.chosen("all_reduce", nbytes) == (before.chosen("all_reduce", nbytes) or found)
    assert of_document(json.loads(json.dumps(after.document()))) == after
    assert all(a.algorithm != b.algorithm for a, b in pairwise(after.steps["all_reduce"]))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collx.trial._CALLS", CALLS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tuning.folder()


def with_clock(comm: Communicator, seed: int) -> random.Random:
    """A rank whose clock has nothing in common with that of others, and may go back."""
    chance = random.Random(100 * seed + comm.rank)
    assert comm._trials is not None
    comm._trials.clock = lambda: chance.randrange(10 ** (3 * comm.rank + 3))
    return chance


def every_way(comm: Communicator, seed: int) -> str:
    chance, size = with_clock(comm, seed), comm.size
    x, handles = np.arange(60 * size, dtype=np.float32), []
    total = x * sum(range(1, size + 1))
    for turn in range(LONGEST + 2):
        if chance.random() < 0.2:  # making one is local
            handles.append(comm.plan("all_reduce", x * (comm.rank + 1)))
        same(comm.all_reduce(x * (comm.rank + 1)), total)
        same(comm.plan("all_reduce", x * (comm.rank + 1))() if not handles else handles[-1](), total)
        work = comm.all_reduce(x * (comm.rank + 1), async_op=True)
        same(comm.broadcast(x * (comm.rank == turn % size), turn % size), x)
        same(work.wait(), total)
        if turn % 7 == 0:
            same(comm.reduce_scatter(x, counts=[x.size, *[0] * (size - 1)]), x[: 0 if comm.rank else x.size] * size)
    assert comm._trials is not None
    trial = comm._trials.find(request(x.nbytes))
    assert trial is not None
    assert trial.chosen is not None
    assert comm.explain("all_reduce", x.nbytes).chosen == trial.chosen
    half = comm.split(comm.rank % 2)
    assert half is not None
    for _ in range(4):
        same(half.all_reduce(x), x * half.size)
    return "\n".join(str(comm.explain(name, x.nbytes)) for name in ("all_reduce", "broadcast", "reduce_scatter"))


@pytest.mark.parametrize("hosts", ["aaa", "aabb"])
def test_ranks_whose_clocks_differ_wildly_choose_alike(hosts: str) -> None:
    assert len(set(on_hosts(every_way, hosts, 1, decisions=AUTO))) == 1


def out_of_step(comm: Communicator) -> None:
    x = np.ones(64, np.float32)

    def calls() -> None:
        for _ in range(LONGEST):  # the rules' algorithm has the first turn, and all asynchronous calls
            work = comm.all_reduce(x, async_op=comm.rank == 1)
            if comm.rank == 1:
                work.wait()

    with pytest.raises(MismatchError, match="algorithm differs"):
        calls()
    assert comm.closed


def test_who_calls_asynchronously_while_others_do_not_is_told() -> None:
    on_hosts(out_of_step, "aaa", decisions=AUTO)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2 * CALLS])
def test_who_is_interrupted_in_a_trial_takes_nobody_out_of_step(after: int) -> None:
    def interrupted(comm: Communicator) -> None:
        trials, late = comm._trials, comm.rank == 1
        assert trials is not None
        calls, taken = iter(range(LONGEST)), trials.clock

        def clock() -> int:
            if late and next(calls) == 2 * after - 1:  # two a call: when it was begun, and has ended
                raise Interrupted
            return taken()

        trials.clock = clock
        with pytest.raises(Interrupted if late else AbortedError):
            settle(comm)
        assert comm.closed

    on_hosts(interrupted, "aaa", decisions=AUTO)


def settle(comm: Communicator) -> str:
    for _ in range(LONGEST):
        comm.all_gather(np.ones(64, np.float32))
    return comm.explain("all_gather", 64 * 4 * comm.size).chosen


def test_the_next_job_begins_with_what_was_found(cache: Path) -> None:
    auto = {"COLLX_TUNE": "auto"}
    chosen = on_hosts(settle, "aaaa", decisions=decisions.read(auto, ("shm",)))[0]
    found = decisions.read(auto, ("shm",))
    guide = found.guide("aaaa", ((0, 1, 2, 3),), apart=False)
    assert guide.table is not None
    at = [guide.table.chosen("all_gather", nbytes) for nbytes in (1023, 1024, 2047, 2048)]
    assert at == [None, chosen, chosen, None]
    before = next(cache.iterdir()).read_text()
    assert set(on_hosts(settle, "aaaa", decisions=found)) == {chosen}
    assert next(cache.iterdir()).read_text() == before  # it was not tried again


def test_what_is_found_on_other_machines_than_that_of_the_first_rank_is_not_kept(cache: Path) -> None:
    def others(comm: Communicator) -> str | None:
        part = comm.split(min(comm.rank, 1))
        assert part is not None
        return settle(part) if comm.rank else None

    assert len(set(on_hosts(others, "abb", decisions=decisions.read({"COLLX_TUNE": "auto"}, ("shm",)))[1:])) == 1
    assert not cache.exists()


def test_what_cannot_be_kept_is_told_and_harms_nobody(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("no folder")
    on_hosts(settle, "aa", decisions=AUTO)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("collx: what COLLX_TUNE=auto found is not kept for later jobs: ")


def test_without_it_nothing_is_tried() -> None:
    assert on_hosts(lambda comm: comm._trials, "aa") == [None, None]
    assert on_hosts(lambda comm: comm._trials, "a", decisions=AUTO) == [None]


def test_a_value_that_it_does_not_know_is_an_error() -> None:
    with pytest.raises(BootstrapError, match="COLLX_TUNE is 'on', but must be auto, or unset"):
        decisions.read({"COLLX_TUNE": "on"}, ("shm",))


def test_what_is_settled_takes_the_short_way(tmp_path: Path) -> None:
    text = """
        if os.environ["COLLX_RANK"] != "0":
            os.environ["COLLX_TUNE"] = "what?"
        with collx.init(timeout=30) as comm:
            x, out = np.ones(64, np.float32), np.empty(64, np.float32)
            again = comm.plan("all_reduce", x, out=out)
            short = []
            for turn in range(800):
                known = comm._recall(False, None, "all_reduce", x, out, "sum", None)
                short.append(known is out)
                if known is not out:
                    comm.all_reduce(x, out=out)
                assert (again() == comm.size).all()
            assert again._recall(False, None) is out
            assert short == sorted(short) and short[-1] and not short[0]
            comm.barrier()
    """
    auto = {"COLLX_TUNE": "auto", "COLLX_DEBUG": "INFO", "XDG_CACHE_HOME": str(tmp_path)}
    job = collx_run("-n", 2, "--tag", "off", program(tmp_path, text), **auto)
    assert job.returncode == 0, job.stderr
    (told,) = (line for line in job.stderr.splitlines() if ", tried in " in line)
    assert ">: all_reduce of 256 B to 512 B: " in told
