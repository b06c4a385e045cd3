import pytest

from tests.gpu.here import missing


def test_gpus_are_tested() -> None:
    if missing():
        pytest.skip(f"no tests on GPUs: {missing()}")
