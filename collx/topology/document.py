"""XML that may come from anybody: read within bounds, and without what makes XML dangerous."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

MOST_BYTES = 32 << 20  # hwloc's largest published one has half a MiB
MOST_ELEMENTS = 500_000
DEEPEST = 200


class Refused(Exception):
    """The document is well-formed, and yet not taken."""


def parse(name: str) -> Element:
    """The root element of the file `name`, or of standard input where that is "-".

    Nothing else is read: no DTD, and no entity is expanded. Raises ValueError, one line that names the file, where it
    declares entities, is larger or deeper than a machine's description can be, or is not XML; OSError where it cannot
    be read.
    """
    try:
        return _root(_bytes(name))
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two for encodings that nobody knows
        raise ValueError(f"{name}: not XML: {error}") from None
    except Refused as refused:
        raise ValueError(f"{name}: {refused}") from None


def _bytes(name: str) -> bytes:
    if name == "-":
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise Refused(f"larger than {MOST_BYTES >> 20} MiB, no machine needs that much")
    return data


def _root(data: bytes) -> Element:
    builder = TreeBuilder()
    depth = elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > DEEPEST or elements > MOST_ELEMENTS:
            raise Refused(f"more than {MOST_ELEMENTS} elements, or deeper than {DEEPEST}: no machine is like that")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def entity(name: str, *_: object) -> None:
        raise Refused(f"it declares the entity {name!r}, which is refused")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = entity
    parser.Parse(data, True)
    return builder.close()


def number(element: Element, key: str, otherwise: int = 0) -> int:
    """The whole number that an attribute tells, `otherwise` where it is not there.

    Raises Refused where it is no number.
    """
    text = element.get(key)
    if text is None:
        return otherwise
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise Refused(f"<{element.tag}> has {key}={text[:40]!r}, which is no number") from None


def cpu_set(text: str) -> frozenset[int]:
    """The numbers in a set of CPUs as hwloc, NCCL and Linux write it: 32 bits of hexadecimal digits to a comma.

    Raises Refused where it is none, or has more CPUs than any machine.
    """
    found: list[int] = []
    words = [word.strip().removeprefix("0x") or "0" for word in text.split(",")]
    if len(words) > 2048:
        raise Refused(f"a set of CPUs with {32 * len(words)} bits")
    for place, word in enumerate(reversed(words)):
        try:
            bits = int(word, 16)
        except ValueError:
            raise Refused(f"{text[:40]!r} is no set of CPUs") from None
        if bits < 0 or bits >> 65536:
            raise Refused(f"{text[:40]!r} is no set of CPUs")
        found.extend(32 * place + bit for bit in range(bits.bit_length()) if bits >> bit & 1)
    return frozenset(found)
