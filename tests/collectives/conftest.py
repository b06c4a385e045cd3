"""Every test of the public API runs on both engines."""

from __future__ import annotations

import pytest

from tests.ranks import KINDS


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
