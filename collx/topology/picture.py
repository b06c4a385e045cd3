"""A machine, or a topology, as a picture: boxes in boxes, in SVG."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import NamedTuple

from collx.topology.machine import Node
from collx.topology.tree import Seated, label, shown

GAP, LINE, LETTER = 8, 15, 6.4  # pixels; a letter is that wide at FONT's size
FONT = "11px system-ui, sans-serif"
FILLS = {  # and white for all else
    "package": "#e8eef7",
    "numa": "#f6f0e2",
    "l3": "#eaf4ea",
    "core": "#ffffff",
    "gpu": "#d8f0c8",
    "nic": "#f7dfe4",
    "more": "none",
}
ACROSS = {"core": 8, "gpu": 4, "nic": 4, "l3": 1, "numa": 1, "package": 2}  # so many of a kind share a row
MOST_LETTERS = 30  # of a line in a box with nothing in it


class Box(NamedTuple):
    """What is drawn from a corner, and how large it is."""

    width: float
    height: float
    draw: Callable[[float, float], list[str]]


def svg(node: Node, seated: Seated | None = None) -> str:
    """An SVG document of the tree under `node`, with the ranks on its parts."""
    box = _box(node, seated or {})
    width, height = box.width + 2 * GAP, box.height + 2 * GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}">'
    style = f"<style>text {{ font: {FONT}; fill: #222 }} rect {{ stroke: #8a8f98 }}</style>"
    title = f"<title>{escape(label([node], {}))}</title>"
    ground = f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff" style="stroke: none"/>'
    return "\n".join([head, title, style, ground, *box.draw(GAP, GAP), "</svg>", ""])


def _box(node: Node, seated: Seated) -> Box:
    text = label([node], seated)
    title = [text] if node.children else _split(text)
    rows = _rows(node, seated)
    widths = [sum(box.width + GAP for box in row) + GAP for row in rows]
    heights = [max(box.height for box in row) for row in rows]
    width = max([max(map(len, title)) * LETTER + 2 * GAP, *widths])
    height = LINE * len(title) + GAP + sum(heights) + GAP * len(rows)

    def draw(x: float, y: float) -> list[str]:
        drawn = _frame(node.kind, title, x, y, width, height)
        top = y + LINE * len(title) + GAP
        for row, tall in zip(rows, heights, strict=True):
            left = x + GAP
            for box in row:
                drawn += box.draw(left, top)
                left += box.width + GAP
            top += tall + GAP
        return drawn

    return Box(width, height, draw)


def _rows(node: Node, seated: Seated) -> list[list[Box]]:
    """Boxes in their order, so many to a row; one with nothing in it does not share a row with one that has."""
    rows: list[list[Box]] = []
    before = None
    for child in shown(node.children):
        box = _box(child, seated)
        sort = (bool(child.children), child.kind)
        if sort != before or len(rows[-1]) == ACROSS.get(child.kind, 3):
            rows.append([])
        rows[-1].append(box)
        before = sort
    return rows


def _split(text: str) -> list[str]:
    """A line for each thing that is known, cut where it is long; how many threads each core has is left out."""
    said = [part for part in text.split(" · ") if not part.endswith(" threads each")]
    return [part if len(part) <= MOST_LETTERS else part[: MOST_LETTERS - 1] + "…" for part in said]


def _frame(kind: str, said: list[str], x: float, y: float, width: float, height: float) -> list[str]:
    fill = FILLS.get(kind, "#ffffff")
    line = ' stroke-dasharray="3 3"' if kind == "more" else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    texts = [
        f'<text x="{x + GAP:.1f}" y="{y + LINE * at + 1:.1f}">{escape(each)}</text>' for at, each in enumerate(said, 1)
    ]
    return [f'<rect {place} rx="4" fill="{fill}"{line}/>', *texts]
