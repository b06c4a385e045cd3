"""`collx topo`."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.cli import main
from collx.topology.tree import ranges

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.xml"))


def topo(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["topo", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_published_machine_is_drawn(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "machine.svg"
    told = topo(capsys, "--xml", str(file), "--svg", str(picture))
    assert "rank" in told
    assert "latency us" in told
    root = ElementTree.parse(picture).getroot()
    boxes = [(float(box.get("x", 0)), float(box.get("width", 0))) for box in root.findall(".//{*}rect")]
    assert max(x + width for x, width in boxes) <= float(root.get("width", 0))
    assert "rank 0" in "".join(root.itertext())


def test_the_page_shows_what_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = DATA.parents[2]
    monkeypatch.chdir(root)
    page = (root / "docs/topology.md").read_text(encoding="utf-8")
    command, _, shown = page.partition("$ collx topo ")[2].partition("\n```")[0].partition("\n")
    assert topo(capsys, *command.split()).strip() == shown.strip()
    topo(capsys, "--xml", str(DATA / "hwloc-32em64t-2n8c2t-pci-normalio.xml"), "--svg", str(tmp_path / "topology.svg"))
    assert (tmp_path / "topology.svg").read_text() == (root / "docs/topology.svg").read_text()


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    told = topo(capsys, "--ranks", "3")
    assert "core" in told
    assert "3 ranks, topology " in told


def test_many_hosts_take_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    told = topo(capsys, "--topology", "512 hosts x 8 gpus")
    assert len(told.splitlines()) < 15
    assert "… 510 more like it" in told
    assert "└─ ranks 4088-4095" in told


def test_hosts_like_one(capsys: pytest.CaptureFixture[str]) -> None:
    told = topo(capsys, "--xml", str(DATA / "hwloc-nvidiaDGX2.xml"), "--on", "gpus", "--hosts", "4")
    assert "GPUs 8-15 · Tesla V100-SXM3-32GB-H · ranks 8-15" in told
    assert "… 3 more like it" in told
    assert "network" in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--xml", "nowhere.xml"], "nowhere.xml: No such file"),
        (["--xml", str(DATA)], "Is a directory"),
        (["--xml", str(DATA / "README.md")], "README.md: not XML"),
        (["--topology", "4 racks of hosts"], "no number and name"),
        (["--topology", "4 hosts", "--ranks", "8"], "says itself how many ranks"),
        (["--ranks", "3", "--hosts", "2"], "3 ranks cannot be dealt out evenly to 2 hosts like this machine"),
        (["--topology", "4 hosts", "--svg", "/nowhere/a.svg"], "/nowhere/a.svg: No such file"),
        (["--on", "nics"], "invalid choice"),
    ],
)
def test_a_mistake_takes_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["topo", *arguments])
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert complaint in told
    assert told.startswith("collx topo: ")
    assert told.count("\n") == 1


@given(st.sets(st.integers(0, 60)))
def test_ranges_say_the_same_numbers(numbers: set[int]) -> None:
    said = ranges(numbers)
    found = set()
    for part in filter(None, said.split(", ")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == numbers
