"""Kernels compiled by NVRTC, which needs no GPU, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from collx.errors import TransportError

# Products and sums are rounded one by one, as on the CPU: results would differ in their last bits.
OPTIONS = ("--std=c++17", "--fmad=false")
DIGEST = hashlib.sha256().digest_size
MISSING = (
    "no NVRTC: install the nvidia-cuda-nvrtc package that fits your cuda-bindings (pip install 'cuda-bindings[all]')"
)


def folder() -> Path:
    """Where compiled kernels are kept; files may be removed from it at any time."""
    from platformdirs import user_cache_path  # most programs have no GPU

    return user_cache_path("collx", appauthor=False) / "kernels"


def compiled(source: str, architecture: str) -> bytes:
    """Machine code for an architecture as "sm_90". Raises TransportError, in one line, where NVRTC is missing or does
    not know it."""
    nvrtc = _nvrtc()
    release = "{}.{}".format(*_checked(nvrtc, "nvrtcVersion"))
    options = (f"--gpu-architecture={architecture}", *OPTIONS)
    key = hashlib.sha256("\0".join((source, release, *options)).encode()).hexdigest()
    code = _recalled(key)
    if code is None:
        code = _compile(nvrtc, source, options, f"NVRTC {release}")
        _keep(key, code)
    return code


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # the library itself is only looked for now
    except Exception as error:
        raise TransportError(f"{MISSING}; {type(error).__name__}: {_line(str(error))}") from None
    return nvrtc


def _compile(nvrtc: Any, source: str, options: tuple[str, ...], release: str) -> bytes:
    program = _checked(nvrtc, "nvrtcCreateProgram", source.encode(), b"collx.cu", 0, [], [])
    try:
        outcome = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
        if int(outcome):
            said = _text(nvrtc, "nvrtcGetProgramLog", program)
            told = said.decode(errors="replace").strip("\0\n ") or outcome.name
            raise TransportError(f"{release} cannot compile collx's kernels with {options[0]}: {_line(told)}")
        return _text(nvrtc, "nvrtcGetCUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _text(nvrtc: Any, call: str, program: Any) -> bytes:
    room = bytearray(_checked(nvrtc, f"{call}Size", program))
    _checked(nvrtc, call, program, room)  # which the bindings write into
    return bytes(room)


def _checked(nvrtc: Any, call: str, *arguments: Any) -> Any:
    outcome, *results = getattr(nvrtc, call)(*arguments)
    if int(outcome):
        raise TransportError(f"{call} failed with {outcome.name}")
    return results[0] if len(results) == 1 else results


def _line(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[:400]


def _recalled(key: str) -> bytes | None:
    """What was kept under `key`; None where it is not there whole."""
    with suppress(OSError):
        kept = (folder() / key).read_bytes()
        code = kept[DIGEST:]
        if code and hashlib.sha256(code).digest() == kept[:DIGEST]:
            return code
    return None


def _keep(key: str, code: bytes) -> None:
    """Keep the code, whole or not at all, where that is possible."""
    with suppress(OSError):
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place)
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(name, place / key)
        except BaseException:
            os.unlink(name)
            raise
