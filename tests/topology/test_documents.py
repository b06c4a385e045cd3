"""XML from anybody: what is wrong is told in one line, and nothing is expanded."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collx.topology import document, load, read
from collx.topology.tree import lines

A100 = Path(__file__).parent / "data" / "simccl-topo_8A100_4CX6.xml"
TWO_SOCKETS = Path(__file__).parent / "data" / "hwloc-32em64t-2n8c2t-pci-normalio.xml"
LAUGHS = '<!DOCTYPE topology [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><topology>&b;</topology>'
OUTSIDE = '<!DOCTYPE topology [<!ENTITY a SYSTEM "file:///etc/hostname">]><topology>&a;</topology>'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not XML: no element found"),
        ("<topology>", "not XML: no element found"),
        ("lstopo: command not found", "not XML: syntax error"),
        (LAUGHS, "declares the entity 'a'"),
        (OUTSIDE, "declares the entity 'a'"),
        ('<?xml version="1.0" encoding="UT-8"?><system/>', "not XML: unknown encoding"),
        ('<?xml version="1.0" encoding="utf-7"?><system/>', "not XML: "),
        ('<?xml version="1.0" encoding="utf-32"?><system/>', "not XML: "),
        ("<html/>", "outermost element is <html>, neither hwloc's <topology> nor NCCL's <system>"),
        ("<topology/>", "without one machine"),
        ("<topology>" + 2 * '<object type="Machine"/>' + "</topology>", "without one machine"),
        ("<system/>", "without a <cpu>"),
        ('<system><cpu numaid="0"/></system>', "which of its devices are GPUs"),
        ('<system><cpu numaid="zero"/></system>', "<cpu> has numaid='zero', which is no number"),
        ('<system><cpu affinity="all"/></system>', "'all' is no set of CPUs"),
        (f'<system><cpu affinity="{"ffffffff," * 9999}1"/></system>', "a set of CPUs with"),
        ("<a>" * 1000 + "</a>" * 1000, "deeper than 200"),
        ('<topology><object type="Machine" allowed_cpuset="x"/></topology>', "'x' is no set of CPUs"),
        ('<topology><object type="Machine"/></topology>', "there is no core that may be used"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "machine.xml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"machine\.xml: ") as caught:
        load(str(file))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MOST_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="/dev/zero: larger than 1 MiB"):
        read("/dev/zero")


def test_more_gpus_than_any_machine_has(tmp_path: Path) -> None:
    file = tmp_path / "machine.xml"
    gpus = "".join(f'<pci busid="{at:x}" class="0x030200"/>' for at in range(2000))
    file.write_text(f"<system><cpu>{gpus}</cpu></system>")
    with pytest.raises(ValueError, match="more than 1024 GPUs"):
        read(str(file))


def test_nothing_in_a_file_commands_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "machine.xml"
    file.write_text(f'<system><cpu affinity="1"><net name="a&#155;2J&#10;{9999 * "b"}"/></cpu></system>')
    drawn = list(lines(read(str(file)).root))
    assert all(line.isprintable() and len(line) < 200 for line in drawn)
    assert any("NIC a?2J?bbb" in line for line in drawn)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        load("nowhere.xml")


def test_neither_a_file_nor_a_text() -> None:
    with pytest.raises(ValueError, match="write '4 hosts x 2 packages x 8 ranks'"):
        load("my-cluster")
    with pytest.raises(ValueError, match="has 8 ranks, not 6"):
        load("2 hosts x 4 ranks", ranks=6)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from((A100, TWO_SOCKETS))).read_bytes()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 60)))
    put = data.draw(st.sampled_from((b"", b"0", b"-1", b'"', b"x", b"<object>", b'os_index="99"', b"\xff", b"nan")))
    file = tmp_path / "damaged.xml"
    file.write_bytes(text[:start] + put + text[end:])
    complaint = ""
    try:
        load(str(file))
    except ValueError as error:
        complaint = str(error)
    assert complaint == "" or complaint.startswith(str(file))
    assert "\n" not in complaint
