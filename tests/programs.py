"""The programs of tests/mpirun, as tests run them: on few sizes, and what they print."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "mpirun"
NAMES = {path.stem for path in FOLDER.glob("*.py") if "\ndef check(run: Run)" in path.read_text()}
FEW = ("--max-bytes", "32K", "--factor", "512", "--repeats", "1")
FEWER = ("--min-bytes", "100", *FEW, "--dtypes", "bool,int32,bfloat16,float32,complex128")  # for slow jobs


def passed(output: str) -> dict[str, int]:
    """How many cases of each program passed; none may have failed."""
    assert "FAIL" not in output
    ends = re.findall(r"^# (\w+): (\d+) of (\d+) cases passed$", output, re.MULTILINE)
    assert all(good == cases for _, good, cases in ends), output
    assert len(re.findall("^PASS", output, re.MULTILINE)) == sum(int(cases) for _, _, cases in ends)
    return {program: int(cases) for program, _, cases in ends}
