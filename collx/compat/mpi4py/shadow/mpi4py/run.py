"""`python -m mpi4py.run program.py`, `-m module` or `-c code`, as python itself takes them."""

import os
import runpy
import sys

from collx.compat.mpi4py.environment import abort_at_exit


def main() -> None:
    """Run what the command line names. Where that ends by `sys.exit` with a code other than 0, so does the job, as by
    Abort, if MPI is initialised."""
    try:
        _run()
    except SystemExit as leaving:
        abort_at_exit(leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None))
        raise


def _run() -> None:
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-m", "-c", "-")):
        sys.exit("usage: python -m mpi4py (PROGRAM | -m MODULE | -c CODE) [ARGUMENTS]")
    if arguments[0] == "-m" and len(arguments) > 1:
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c" and len(arguments) > 1:
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
