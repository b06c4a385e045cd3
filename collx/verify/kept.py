"""Proofs kept from one run to the next, as files in the user's cache directory. Without one nothing is kept."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from platformdirs import user_cache_path

from collx.verify.proof import Proof

MOST = 4096  # bytes; a proof has far fewer


def folder() -> Path:
    """Where proofs are kept; files may be removed from it at any time."""
    return user_cache_path("collx", appauthor=False) / "proofs"


def recalled(key: str) -> Proof | None:
    """The proof that was kept under `key`, None where there is none that can be read."""
    try:
        with (folder() / key).open("rb") as file:
            found = json.loads(file.read(MOST))
        proof = Proof(**{**found, "volume": Fraction(found["volume"])})
        whole = all(type(getattr(proof, name)) is int for name in ("size", "root", "blocks", "rounds", "messages"))
        return proof if whole and type(proof.ordered) is type(proof.uniform) is bool else None
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError):
        return None


def keep(key: str, proof: Proof) -> None:
    """Keep a proof, whole or not at all, where that is possible."""
    with suppress(OSError):
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place)
        try:
            with open(descriptor, "w") as file:
                json.dump(asdict(proof) | {"volume": str(proof.volume)}, file)
            os.replace(name, place / key)
        except BaseException:
            os.unlink(name)
            raise
