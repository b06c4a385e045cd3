"""Without a GPU one test stands for all of these: it is skipped, and says why."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.here import missing


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    name = collection_path.name
    return True if name.startswith("test_") and name != "test_here.py" and missing() else None
