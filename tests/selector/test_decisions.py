"""Ranks with different environments, tables and clocks decide alike: as rank 0's say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import collx_run, program

# Every rank has a cache of its own with a table of its own, wishes of its own, and a clock of its own.
APART = """
import json, random
from collx import tuning
from collx.collectives import COLLECTIVES
from collx.wishes import may_choose

rank, seed = int(os.environ["COLLX_RANK"]), int(os.environ["SEED"])
chance = random.Random(1000 * seed + rank)
os.environ["XDG_CACHE_HOME"] = f"{os.environ['CACHES']}/{rank}"
fast, late = time.perf_counter, chance.uniform(-1e6, 1e6)
time.time = time.perf_counter = lambda: late + fast() * (1 + rank)

def steps(collective):
    bounds = sorted(chance.sample([64, 512, 4096, 1 << 15, 1 << 18], 2))
    return tuple(tuning.Step(bound, chance.choice(may_choose(collective))) for bound in (*bounds, None))

def of(size):
    key = tuning.Key(tuning.machine(), size, tuning.hosts_text(["here"] * size), os.environ["TRANSPORTS"])
    return tuning.Table(key, {collective: steps(collective) for collective in COLLECTIVES})

tables = {size: of(size) for size in (2, 4)}
if chance.random() < 0.7 or rank == 0:
    for table in tables.values():
        path = tuning.write(table)
    if chance.random() < 0.3 and rank:
        path.write_text("damaged")
if seed % 2 and rank:
    os.environ["COLLX_ALGO"] = chance.choice(["ring", "^direct", "all_reduce:pat", "all_reduce:no_such"])
    os.environ["COLLX_DEBUG"] = chance.choice(["INFO", "what?"])

comm = collx.init(timeout=30)

def every_call(comm):
    chosen = {}
    for nbytes in (8, 64, 1024, 8192, 1 << 17, 1 << 20):
        x = np.ones(nbytes // 4 // comm.size * comm.size, np.float32)
        y = np.empty_like(x)
        comm.all_reduce(x), comm.reduce_scatter(x), comm.all_to_all(x), comm.broadcast(x), comm.reduce(x)
        comm.all_gather(x[: len(x) // comm.size]), comm.scan(x), comm.exscan(x), comm.barrier()
        comm.gather(x[: len(x) // comm.size]), comm.scatter(x)
        for collective in COLLECTIVES:
            chosen[f"{collective} {nbytes}"] = str(comm.explain(collective, nbytes))
    return chosen

half = comm.split(comm.rank % 2)
found = [every_call(comm), every_call(half)]
if rank == 0:
    table = tables[4]
    for collective in COLLECTIVES:
        explained = comm.explain(collective, 1024)
        wanted = table.chosen(collective, explained.nbytes)
        assert explained.chosen == wanted or any(c.name == wanted and c.objection for c in explained.candidates)
every = comm.all_gather(np.frombuffer(json.dumps(found).encode().ljust(1 << 18), np.uint8))
assert len(set(row.tobytes() for row in every.reshape(comm.size, -1))) == 1
print("alike")
"""


@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize("seed", range(4))
def test_ranks_with_nothing_in_common_decide_alike(seed: int, transport: str, tmp_path: Path) -> None:
    job = collx_run(
        "-n", 4, program(tmp_path, APART), SEED=str(seed), CACHES=str(tmp_path), TRANSPORTS=transport,
        COLLX_TRANSPORT=transport,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("alike") == 4


def test_a_mistake_in_the_environment_of_rank_0_is_every_ranks_error(tmp_path: Path) -> None:
    text = """
        if os.environ["COLLX_RANK"] == "0":
            os.environ["COLLX_ALGO"] = "all_reduce:rng"
        try:
            collx.init(timeout=30)
        except collx.BootstrapError as error:
            sys.stdout.write(f"{error}\\n")
    """
    job = collx_run("-n", 3, "--tag", "off", program(tmp_path, text))
    told = "COLLX_ALGO: all_reduce has no algorithm 'rng': did you mean ring or swing?"
    assert job.stdout.splitlines() == [told] * 3


def test_first_choices_are_told_once(tmp_path: Path) -> None:
    text = """
        with collx.init() as comm:
            for count in (250, 251, 260):
                comm.all_reduce(np.ones(count, np.float32))
            comm.all_reduce(np.ones(9, np.float32), algorithm="pat")
            comm.barrier()
    """
    job = collx_run("-n", 2, "--tag", "off", program(tmp_path, text), COLLX_DEBUG="info", COLLX_ALGO="allreduce:Ring")
    assert [line.partition(">: ")[2] for line in job.stderr.splitlines()] == [
        "all_reduce of 512 B to 1 KiB: ring, as COLLX_ALGO says, ring",
        "all_reduce of 1 KiB to 2 KiB: ring, as COLLX_ALGO says, ring",
        "all_reduce of 32 B to 64 B: pat, as the call says",
        "barrier: dissemination, by the rules that collx comes with",
    ]


def test_a_damaged_table_is_named_once_and_the_job_runs(tmp_path: Path) -> None:
    text = """
        from collx import tuning
        if os.environ["COLLX_RANK"] == "0":
            tuning.write(tuning.Table(tuning.Key(tuning.machine(), 3, "3", "shm"))).write_text("{")
        with collx.init() as comm:
            comm.all_reduce(np.ones(4))
            comm.split(0).barrier()
    """
    job = collx_run("-n", 3, "--tag", "off", program(tmp_path, text), XDG_CACHE_HOME=str(tmp_path))
    assert job.returncode == 0
    assert len(job.stderr.splitlines()) == 1
    assert "collx: ignored the tuning table" in job.stderr
