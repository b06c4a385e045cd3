"""collx/_core.pyi, which mypy reads, says what the compiled module has."""

from importlib import import_module
from pathlib import Path

from nanobind.stubgen import StubGen


def test_stub_is_current() -> None:
    generator = StubGen(import_module("collx._core"))
    generator.put(generator.module)
    kept = Path(__file__).parents[2] / "collx" / "_core.pyi"
    assert kept.read_text() == generator.get(), "collx/_core.pyi is not current: run make docs"
