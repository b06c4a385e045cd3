"""The shim's options, and arguments of which mpi4py's own tests have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import jobs


def test_arguments() -> None:
    done = jobs.collx_run("--mpi4py", "-n", 3, "--tag", "off", Path(__file__).with_name("programs") / "arguments.py")
    assert (done.returncode, done.stdout) == (0, "all is well\n" * 3), done.stderr


def told(tmp_path: Path, text: str, **variables: str) -> str:
    program = tmp_path / "program.py"
    program.write_text(text)
    done = jobs.collx_run("--mpi4py", "-n", 1, "--tag", "off", program, **variables)
    return (done.stdout + done.stderr).strip()


HANDLER = """
from mpi4py import MPI
names = ("ERRORS_RETURN", "ERRORS_ABORT", "ERRORS_ARE_FATAL")
for comm in (MPI.COMM_WORLD, MPI.COMM_SELF, MPI.COMM_WORLD.Split()):
    print(*(name for name in names if comm.Get_errhandler() == getattr(MPI, name)))
"""


@pytest.mark.parametrize(
    ("chosen", "name"),
    [("exception", "ERRORS_RETURN"), ("abort", "ERRORS_ABORT"), ("fatal", "ERRORS_ARE_FATAL")],
)
def test_error_handlers(tmp_path: Path, chosen: str, name: str) -> None:
    assert told(tmp_path, HANDLER, MPI4PY_RC_ERRORS=chosen).split() == [name] * 3
    assert told(tmp_path, f"import mpi4py\nmpi4py.rc.errors = {chosen!r}{HANDLER}").split() == [name] * 3


def test_room_for_objects(tmp_path: Path) -> None:
    program = """
import mpi4py
mpi4py.rc(irecv_bufsz=200_000)
from mpi4py import MPI
comm = MPI.COMM_WORLD
request = comm.irecv(source=0)
comm.send(b"x" * 100_000, 0)
print(len(request.wait()))
"""
    assert told(tmp_path, program) == "100000"


def test_options_of_the_environment(tmp_path: Path) -> None:
    program = "from mpi4py import MPI, rc\nprint(MPI.Is_initialized(), rc.recv_mprobe, rc.irecv_bufsz)"
    variables = {"INITIALIZE": "no", "RECV_MPROBE": "0", "IRECV_BUFSZ": "10"}
    found = told(tmp_path, program, **{f"MPI4PY_RC_{name}": value for name, value in variables.items()})
    assert found == "False False 10"


@pytest.mark.parametrize(("name", "value"), [("THREADS", "perhaps"), ("IRECV_BUFSZ", "much"), ("ERRORS", "none")])
def test_options_that_are_wrong_are_named(tmp_path: Path, name: str, value: str) -> None:
    found = told(tmp_path, "from mpi4py import MPI", **{f"MPI4PY_RC_{name}": value})
    assert "ValueError: " in found
    assert name.lower() in found.lower()
    assert value in found
