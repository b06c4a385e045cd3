"""`collx tune` writes a table that later jobs choose by."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.perf.links import FACTOR, within_reach
from collx.perf.tune import FULL, QUICK, TUNED
from collx.topology import DEFAULT_LINKS
from collx.wishes import MPI, may_choose
from tests.jobs import collx_run, finished, program


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "collx", *map(str, words)]


def test_a_job_like_the_one_measured_chooses_by_its_table(tmp_path: Path) -> None:
    tuned = finished(command("tune", "-n", 3, "--seconds", 2, "-e", "4K"), XDG_CACHE_HOME=str(tmp_path))
    assert tuned.returncode == 0, tuned.stderr
    assert tuned.stdout.startswith("collx tune: 3 ranks, quick, at most 2 s\n")
    (path,) = (tmp_path / "collx" / "tuning").iterdir()
    assert str(path) in tuned.stdout
    found = json.loads(path.read_text())
    links = {name for name, *_ in found["links"]}
    assert links
    assert links <= {link.name for link in DEFAULT_LINKS.values()}
    assert found["gamma"] > 0
    assert set(found["steps"]) == set(found["points"]) == set(TUNED)
    text = """
        with collx.init() as comm:
            explained = comm.explain("all_reduce", 1024)
            assert "measured to be the fastest" in str(explained)
            assert any(entry.measured for entry in explained.candidates)
            assert all(entry.predicted for entry in explained.candidates if not entry.objection)
            pair = comm.split(0 if comm.rank < 2 else None)
            assert pair is None or "measured" not in pair.explain("all_reduce", 1024).why
            comm.all_reduce(np.ones(256, np.float32))
    """
    job = collx_run("-n", 3, program(tmp_path, text), XDG_CACHE_HOME=str(tmp_path))
    assert job.returncode == 0, job.stderr


def test_in_a_job_it_measures_that(tmp_path: Path) -> None:
    arguments = ("tune", "--seconds", 1, "-e", 128)
    job = collx_run("-n", 2, "-m", "collx", *arguments, XDG_CACHE_HOME=str(tmp_path), COLLX_TRANSPORT="tcp")
    assert job.returncode == 0, job.stderr
    (path,) = (tmp_path / "collx" / "tuning").iterdir()
    assert re.fullmatch(r"[0-9a-f]+-2-2-tcp-[\d.]+\.json", path.name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-n", 1), "-n 1: one rank has nothing to choose"),
        (("-n", 1 << 30), "there is memory here for at most"),
        (("--quick", "--full"), "--quick or --full, not both"),
        (("--seconds", -1), "--seconds must be above 0"),
        (("-e", "large"), "'large' is not a size"),
    ],
)
def test_mistakes_are_one_line(words: tuple[object, ...], said: str) -> None:
    job = finished(command("tune", *words))
    assert job.returncode == 2
    assert said in job.stderr
    assert len(job.stderr.splitlines()) == 1


def test_what_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "collx").write_text("no folder")
    job = finished(command("tune", "-n", 2), XDG_CACHE_HOME=str(tmp_path))
    assert job.returncode == 1
    assert job.stdout == ""
    assert "collx tune: " in job.stderr
    assert str(tmp_path) in job.stderr


def test_sizes_reach_from_the_smallest_to_the_largest() -> None:
    assert QUICK.sizes(64 << 20) == [8, 128, *(1024 << 2 * at for at in range(9))]
    assert FULL.sizes(64 << 20) == [8 << at for at in range(24)]
    assert QUICK.sizes(100) == [8]


@given(st.dictionaries(st.sampled_from(may_choose("all_reduce")), st.floats(1e-7, 1.0), min_size=1), st.data())
def test_what_is_measured_has_the_best_prediction_what_is_chosen_and_what_nobody_predicts(
    seconds: dict[str, float], data: st.DataObject
) -> None:
    names = sorted((*seconds, MPI))
    chosen = data.draw(st.sampled_from(names))
    kept = within_reach(names, seconds, chosen)
    assert {MPI, chosen, min(seconds, key=lambda name: seconds[name])} <= set(kept)
    assert all(seconds[name] > FACTOR * min(seconds.values()) for name in set(names) - set(kept))
    assert kept == sorted(kept)
