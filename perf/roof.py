"""What a collective must move through memory at least, to be held against what memory allows."""

from __future__ import annotations

from collx.collectives import COLLECTIVES, Collective

_Block = tuple[int, int]  # a rank, and a block of its input


def least_bytes(collective: str, size: int, root: int, nbytes: int, in_place: bool) -> int:
    """The bytes that `size` ranks must read and write, each once, where the collective's whole buffer has `nbytes`.

    By the table of what ranks hold before and after (collx.collectives): every input that a result is made of is read,
    and every result written that does not lie there already. So all_reduce of S bytes moves 2 * size * S.
    """
    if collective == "sendrecv":
        return 2 * size * nbytes
    spec = COLLECTIVES[collective]
    blocks = size if spec.per_rank else 1
    held = {(rank, block % blocks) for rank in range(size) for block in spec.before(rank, size, root, blocks)}
    read: set[_Block] = set()
    written = 0
    for rank in range(size):
        for block in spec.after(rank, size, root, blocks):
            sources = _sources(spec, rank, block, size, root) & held
            if in_place and sources == {(rank, block)}:
                continue
            read |= sources
            written += 1
    return (len(read) + written) * nbytes // blocks


def _sources(spec: Collective, rank: int, block: int, size: int, root: int) -> set[_Block]:
    """The inputs that may make up `block` of the rank's result."""
    match spec.result:
        case "reduction":
            return {(peer, block) for peer in range(size)}
        case "prefix":
            return {(peer, block) for peer in range(rank if spec.name == "exscan" else rank + 1)}
        case "exchange":
            return {(block, rank)}
        case "owner":
            return {(root if spec.name in ("broadcast", "scatter") else block, block)}
        case "heard":
            return set()
