"""`collx run`: output, exit codes, signals, and what is left when it ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
import zipapp
from pathlib import Path

import pytest

from tests import jobs


def ready(job: subprocess.Popen[str], lines: int) -> None:
    """Return when the job has printed so many lines."""
    assert job.stdout is not None
    for _ in range(lines):
        assert job.stdout.readline(), job.communicate()


def test_ranks_compute_together_and_lines_are_tagged(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        comm = collx.init()
        print("sum", comm.all_reduce(np.array([comm.rank]))[0], *sys.argv[1:])
        print("error of", comm.local_rank, file=sys.stderr)
        """,
    )
    done = jobs.collx_run("-n", 3, path, "a", "--", "-n", "b")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [f"[{rank}] sum 3 a -- -n b" for rank in range(3)]
    assert sorted(done.stderr.splitlines()) == [f"[{rank}] error of {rank}" for rank in range(3)]


def test_lines_stay_whole(tmp_path: Path) -> None:
    """Written in pieces, by many ranks at a time, long ones and an unfinished last one too."""
    path = jobs.program(
        tmp_path,
        """
        rank = os.environ["COLLX_RANK"]
        for line in range(200):
            for _ in range(10):
                sys.stdout.write(rank)
                sys.stdout.flush()
            sys.stdout.write("\\n")
        sys.stdout.write(rank * 30000 + "\\n\\nend")
        """,
    )
    lines = jobs.collx_run("-n", 4, path).stdout.splitlines()
    expected = [f"[{r}] {line}" for r in "0123" for line in [*[r * 10] * 200, r * 30000, "", "end"]]
    assert sorted(lines) == sorted(expected)


def test_tag_off_passes_output_as_it_is(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, "sys.stdout.write('o'); sys.stderr.write('e')")
    done = jobs.collx_run("-n", 3, "--tag", "off", path)
    assert (done.stdout, done.stderr) == ("ooo", "eee")


def test_lines_of_python_stay_whole_without_tags(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        for _ in range(300):
            print(*[os.environ["COLLX_RANK"]] * 9)
        """,
    )
    usual = {"PYTHONUNBUFFERED": ""}  # where it is set, print writes word by word
    lines = jobs.collx_run("-n", 4, "--tag", "off", path, **usual).stdout.splitlines()
    assert sorted(lines) == sorted(" ".join(rank * 9) for rank in "0123" for _ in range(300))


def test_tags_are_coloured_on_a_terminal_only(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, "print('here')")
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in jobs.CLEAN.items() if name != "NO_COLOR"}
    subprocess.run([*jobs.RUN, "-n", "1", str(path)], stdout=theirs, env=environ, check=True, timeout=jobs.DEADLINE)
    os.close(theirs)
    assert os.read(ours, 100) == b"\033[36m[0]\033[0m here\r\n"
    os.close(ours)


def test_rank_0_gets_stdin() -> None:
    text = "import os, sys; print(os.environ['COLLX_RANK'], sys.stdin.read())"
    done = jobs.collx_run("-n", 2, "python", "-c", text, stdin="words")
    assert sorted(done.stdout.splitlines()) == ["[0] 0 words", "[1] 1 "]


def test_ranks_share_a_secret_that_nobody_else_sees(tmp_path: Path) -> None:
    """Also in a job that a rank starts, which has another one."""
    text = """
        from collx.transports.connections.secret import find_secret

        secret = find_secret(os.environ)
        for name in ("environ", "cmdline"):
            shown = open(f"/proc/self/{name}", "rb").read() + open(f"/proc/{os.getppid()}/{name}", "rb").read()
            assert secret not in shown and secret.hex().encode() not in shown
        print(hash(secret))
        """
    inner = jobs.program(tmp_path, text)
    outer = tmp_path / "outer.py"
    outer.write_text(inner.read_text() + f"\nsubprocess.run([*{jobs.RUN!r}, '-n', '1', {str(inner)!r}], check=True)\n")
    done = jobs.collx_run("-n", 2, outer, PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^\[\d\] (\[0\] )?(-?\d+)$", done.stdout, re.MULTILINE)
    assert sorted(where for where, _ in said) == ["", "", "[0] ", "[0] "]
    assert len({secret for where, secret in said if not where}) == 1
    assert len({secret for _, secret in said}) == 3


def test_modules_programs_and_this_python() -> None:
    assert jobs.collx_run("-n", 1, "-m", "this").stdout.startswith("[0] The Zen of Python")
    assert jobs.collx_run("-n", 1, "--", "echo", "hello", "--tag").stdout == "[0] hello --tag\n"
    assert (
        jobs.collx_run("-n", 1, "python", "-c", "import sys; print(sys.executable)").stdout == f"[0] {sys.executable}\n"
    )


def test_what_python_runs_by_its_main_module(tmp_path: Path) -> None:
    """A directory and an archive, which may be executable without anything that says by what."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "beside.py").write_text("WORD = 'here'")
    (folder / "__main__.py").write_text("import sys, beside; print(beside.WORD, sys.argv[1:])")
    archive = tmp_path / "archive.pyz"
    zipapp.create_archive(folder, archive)
    archive.chmod(0o700)
    for program in (folder, f"{folder}/", archive):
        assert jobs.collx_run("-n", 1, program, "--word").stdout == "[0] here ['--word']\n"


def test_default_is_a_rank_per_usable_core() -> None:
    done = jobs.collx_run("--tag", "off", "printenv", "COLLX_SIZE")
    cores = len(os.sched_getaffinity(0))
    assert done.stdout.split() == [str(cores)] * cores


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("sys.exit(3)", 3, "exited with code 3"),
        ("raise ValueError('boom')", 1, "exited with code 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139, "was killed by SIGSEGV"),
    ],
)
def test_first_failure_ends_the_job_and_is_named(tmp_path: Path, ending: str, code: int, said: str) -> None:
    path = jobs.program(
        tmp_path,
        f"""
        comm = collx.init()
        comm.barrier()
        if comm.rank == 2:
            {ending}
        while True:
            comm.barrier()
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 4, path)
    assert done.returncode == code
    verdict = [line for line in done.stderr.splitlines() if line.startswith("collx run:")]
    assert len(verdict) == 1
    assert re.search(rf"rank 2 \(pid \d+\) {said}", verdict[0])


def test_ranks_that_do_not_listen_are_ended(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if collx.init().rank == 1:
            sys.exit(7)
        time.sleep(600)
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        assert jobs.collx_run("-n", 2, path).returncode == 7


def test_keep_going_leaves_the_others_running(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        comm = collx.init()
        try:
            comm.barrier()  # whoever is slow to leave it may learn of the death in it
            if comm.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            comm.barrier()
        except collx.CollxError:
            print("survived")
        """,
    )
    done = jobs.collx_run("-n", 3, "--keep-going", path)
    assert done.returncode == 137
    assert sorted(done.stdout.splitlines()) == ["[0] survived", "[2] survived"]
    assert "was killed by SIGKILL; the others go on" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_the_job(tmp_path: Path, number: signal.Signals, code: int) -> None:
    path = jobs.program(
        tmp_path,
        """
        comm = collx.init()
        comm.barrier()
        print("ready")
        if comm.rank:
            comm.recv(np.zeros(1), 0)
        time.sleep(600)
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        job = jobs.start("-n", 3, path)
        ready(job, 3)
        job.send_signal(number)
        job.communicate(timeout=jobs.DEADLINE)
    assert job.returncode == code


def test_ranks_may_tidy_up_when_interrupted_and_a_second_signal_insists(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        try:
            print("ready")
            time.sleep(600)
        except KeyboardInterrupt:
            print("tidying up")
            if os.environ["COLLX_RANK"] == "1":
                while True:
                    signal.pause()
        """,
    )
    job = jobs.start("-n", 2, path)
    ready(job, 2)
    job.send_signal(signal.SIGINT)
    ready(job, 2)
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=jobs.DEADLINE)
    assert job.returncode == 130
    assert jobs.eventually_gone(str(path))


GRANDCHILD = """
        print(subprocess.Popen(["sleep", "600"]).pid)
        comm = collx.init()
        comm.barrier()
        print("ready")
        """


def test_children_of_ranks_end_with_the_job(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, GRANDCHILD)
    with jobs.nothing_left_behind(str(tmp_path)):
        environ = {"MARK": str(tmp_path)}
        assert jobs.collx_run("-n", 2, path, **environ).returncode == 0


@pytest.mark.parametrize("meeting", [False, True], ids=["running", "meeting"])
def test_nothing_outlives_a_killed_launcher(tmp_path: Path, meeting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the ranks, not their children, not the directory in which they were still to meet."""
    monkeypatch.setitem(jobs.CLEAN, "MARK", str(tmp_path))
    wait = "print('ready'); time.sleep(600 if os.environ['COLLX_RANK'] == '0' else 0)" if meeting else ""
    path = jobs.program(tmp_path, wait + GRANDCHILD.replace("\n        ", "\n") + "\ntime.sleep(600)\n")
    with jobs.nothing_left_behind(str(tmp_path)):
        job = jobs.start("-n", 2, path)
        ready(job, 3 if meeting else 4)
        assert len(jobs.running(str(tmp_path))) >= 4
        job.kill()
        job.communicate(timeout=jobs.DEADLINE)


def test_a_reader_that_has_seen_enough_ends_the_job(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, "while True: print('y')")
    with jobs.nothing_left_behind(str(path)):
        job = jobs.start("-n", 2, path)
        ready(job, 1)
        assert job.stdout is not None
        assert job.stderr is not None
        job.stdout.close()
        assert job.wait(jobs.DEADLINE) == 141
        assert "Traceback" not in job.stderr.read()
        job.stderr.close()


def test_an_ended_job_does_not_wait_for_who_holds_its_output(tmp_path: Path) -> None:
    """A process that left its rank's group keeps the pipes open."""
    path = jobs.program(tmp_path, "subprocess.Popen(['sleep', '30'], start_new_session=True); print('done')")
    begun = time.monotonic()
    done = subprocess.run([*jobs.RUN, "-n", "2", str(path)], capture_output=True, text=True, env=jobs.CLEAN, timeout=25)
    assert sorted(done.stdout.splitlines()) == ["[0] done", "[1] done"], time.monotonic() - begun
