"""The examples, as a user runs them: alone and under the launcher."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.launchers import MPIS, Launcher

EXAMPLES = Path(__file__).parents[2] / "examples"
LAUNCHER = Path(sys.executable).with_name("collx")


def output(example: str, ranks: int, *args: str) -> str:
    """What the example prints on so many ranks; one rank is the program alone, without the launcher."""
    program = [str(EXAMPLES / f"{example}.py"), *args]
    launcher = [str(LAUNCHER), "run", "-n", str(ranks), "--tag", "off", "--"] if ranks > 1 else [sys.executable]
    done = subprocess.run([*launcher, *program], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_reaches_the_same_loss_on_1_2_and_4_ranks() -> None:
    alone, *spread = (
        [float(loss) for loss in re.findall(r"loss (\S+)", output("data_parallel", n))] for n in (1, 2, 4)
    )
    assert alone[-1] < 0.2
    for losses in spread:
        assert losses == pytest.approx(alone, rel=1e-8)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_sample_sort_sorts(ranks: int) -> None:
    lines = output("sample_sort", ranks, "100003").splitlines()
    assert lines[0].startswith(f"100003 numbers on {ranks} ranks: sorted in")
    least, most = (int(number) for number in re.findall(r"\d+", lines[1]))
    assert 0 < least <= most <= 2 * -(-100003 // ranks)


def test_sample_sort_needs_a_number_per_rank() -> None:
    program = [str(LAUNCHER), "run", "-n", "2", str(EXAMPLES / "sample_sort.py"), "1"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "too few for 2 ranks" in done.stderr


def test_page_rank_has_the_same_bits_on_1_2_and_4_ranks() -> None:
    alone, *spread = (output("power_iteration", n).splitlines() for n in (1, 2, 4))
    assert re.match(r"1 ranks, \d+ steps: image \d+, a \d, rank 0\.\d+", alone[0])
    for lines in spread:
        assert lines[0].split(",", 1)[1] == alone[0].split(",", 1)[1]
        assert lines[1:] == alone[1:]


@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_a_schedule_of_ones_own_reduces(ranks: int) -> None:
    lines = output("own_schedule", ranks).splitlines()
    total = np.arange(5.0) * ranks + sum(range(ranks))
    assert lines[0] == f"{ranks} ranks: {total}"
    assert re.fullmatch(r"own \d+\.\d us, collx's choice \d+\.\d us", lines[1])


@pytest.mark.parametrize("mpi", MPIS, ids=str)
@pytest.mark.parametrize(("ranks", "transport"), [(1, ""), (3, ""), (4, "mpi")])
def test_a_program_of_mpi4py_gets_the_same_from_collx(mpi: Launcher, ranks: int, transport: str) -> None:
    with_collx, alone = (
        mpi.run(ranks, EXAMPLES / "halo_exchange.py", "--reduce", by, COLLX_TRANSPORT=transport)
        for by in ("collx", "mpi4py")
    )
    assert (with_collx.returncode, alone.returncode) == (0, 0), with_collx.stderr + alone.stderr
    who, _, rest = with_collx.stdout.partition("\n")
    used = transport or ("shm" if ranks > 1 else "memory")
    assert who == f"<collx.Communicator rank 0 of {ranks} over {used}>"
    assert rest == alone.stdout
    assert re.match(rf"{ranks} ranks, 218 steps: 252\.\d+ in all\n@+\n", rest)
