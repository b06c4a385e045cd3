"""Make the virtual environment, or say in one line what this machine lacks. Needs nothing but a Python."""

import os
import subprocess
import sys
import sysconfig


def missing():
    """What must be installed first: one line, or None. Old syntax, so that an old Python can say that it is old."""
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        return "Python 3.11 to 3.14, and {} is {}.{}: make PYTHON=python3.12 ...".format(
            sys.executable, *sys.version_info[:2]
        )
    if not os.path.exists("collx/algorithms/__init__.py"):
        return "its symbolic links, which this checkout lost: clone again with git -c core.symlinks=true"
    lacks = []
    if not compiles():
        lacks.append(("a C++20 compiler", "g++"))
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        lacks.append(("Python's headers", "python3-dev"))
    if not (has("ensurepip") or has("pip")):
        lacks.append(("Python's venv", "python3-venv"))
    if lacks:
        what, packages = zip(*lacks)  # noqa: B905  (strict= is newer than the Pythons to be turned away)
        return "{}: apt install {}".format(", ".join(what), " ".join(packages))
    return None


def compiles():
    """Whether $CXX, or c++, takes C++20."""
    command = [*os.environ.get("CXX", "c++").split(), "-std=c++20", "-fsyntax-only", "-x", "c++", os.devnull]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def has(module):
    return subprocess.run([sys.executable, "-c", "import " + module], stderr=subprocess.DEVNULL).returncode == 0


def make(folder):
    """Debian's bare python3 has no ensurepip; where it has pip, virtualenv from PyPI does the same."""
    if has("ensurepip"):
        return subprocess.call([sys.executable, "-m", "venv", folder])
    seed = os.path.join("build", "virtualenv")
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", seed, "virtualenv"]
    return subprocess.call(install) or subprocess.call(
        [sys.executable, "-m", "virtualenv", "-q", folder], env=dict(os.environ, PYTHONPATH=seed)
    )


if __name__ == "__main__":
    lack = missing()
    if lack:
        sys.exit("collx needs " + lack)
    sys.exit(make(sys.argv[1]))
