"""Topologies of processes: grids, graphs, and graphs of which each rank knows its part; and how communicators get them.

The classes at the top are the topologies alone, of ranks 0 .. size-1, without communicators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import index as whole
from typing import TYPE_CHECKING, Any, ClassVar

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import (
    CART,
    DIST_GRAPH,
    ERR_ARG,
    ERR_DIMS,
    ERR_RANK,
    GRAPH,
    PROC_NULL,
    UNDEFINED,
    UNWEIGHTED,
    WEIGHTS_EMPTY,
)
from collx.compat.mpi4py.context import Part, number

if TYPE_CHECKING:
    from collx.compat.mpi4py.info import Info

Edges = tuple[list[int], list[int]]  # whom a rank hears, and whom it tells


@dataclass(frozen=True)
class Cart:
    """A grid, the last dimension's neighbours next to each other."""

    dims: tuple[int, ...]
    periods: tuple[bool, ...]

    kind: ClassVar[int] = CART

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    def rank(self, coords: Sequence[int]) -> int:
        rank = 0
        for coord, length, periodic in zip(map(whole, coords), self.dims, self.periods, strict=True):
            if not (periodic or 0 <= coord < length):
                raise errors.Exception(ERR_ARG, f"{list(coords)} lie outside a grid of {list(self.dims)}")
            rank = rank * length + coord % length
        return rank

    def coords(self, rank: int) -> list[int]:
        coords = []
        for length in reversed(self.dims):
            rank, coord = divmod(rank, length)
            coords.append(coord)
        return coords[::-1]

    def beside(self, rank: int, direction: int, disp: int) -> int:
        """The rank that is `disp` further on, PROC_NULL where the grid has ended."""
        coords = self.coords(rank)
        coords[direction] += disp
        inside = self.periods[direction] or 0 <= coords[direction] < self.dims[direction]
        return self.rank(coords) if inside else PROC_NULL

    def edges(self, rank: int) -> Edges:
        near = [self.beside(rank, direction, disp) for direction in range(len(self.dims)) for disp in (-1, 1)]
        return near, list(near)


@dataclass(frozen=True)
class Graph:
    """A graph that all ranks know: rank r's neighbours are targets[ends[r - 1] : ends[r]]."""

    ends: tuple[int, ...]
    targets: tuple[int, ...]

    kind: ClassVar[int] = GRAPH

    @property
    def size(self) -> int:
        return len(self.ends)

    def neighbors(self, rank: int) -> list[int]:
        return list(self.targets[self.ends[rank - 1] if rank else 0 : self.ends[rank]])

    def edges(self, rank: int) -> Edges:
        return self.neighbors(rank), self.neighbors(rank)


@dataclass(frozen=True)
class DistGraph:
    """This rank's part of a graph."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    weights: tuple[tuple[int, ...], tuple[int, ...]] | None

    kind: ClassVar[int] = DIST_GRAPH

    def edges(self, rank: int) -> Edges:
        return list(self.sources), list(self.targets)


def Compute_dims(nnodes: int, dims: int | Sequence[int]) -> list[int]:
    """`dims` with its zeros replaced, so that the product is `nnodes` and they are near each other, largest first."""
    given, nnodes = list(dims) if isinstance(dims, Iterable) else [0] * whole(dims), number(nnodes)
    fixed = math.prod(length for length in given if length)
    free = given.count(0)
    if nnodes < 1 or fixed < 1 or nnodes % fixed or (not free and fixed != nnodes):
        raise errors.Exception(ERR_DIMS, f"{given} cannot be filled in for {nnodes} ranks")
    lengths = list(_balanced(nnodes // fixed, free, nnodes) or ())
    return [length or lengths.pop(0) for length in given]


@cache
def _balanced(count: int, free: int, most: int) -> tuple[int, ...] | None:
    """So many lengths, none above `most`, each at most the one before, with this product: those of which the first and
    the last are nearest. None where there are none."""
    if free <= 1:
        return (count,) * free if count <= most else None
    small = [length for length in range(1, math.isqrt(count) + 1) if count % length == 0]
    divisors = {*small, *(count // length for length in small)}
    first = [length for length in divisors if length <= most and length**free >= count]
    ways = [(length, *rest) for length in first if (rest := _balanced(count // length, free - 1, length))]
    return min(ways, key=lambda lengths: (lengths[0] - lengths[-1], lengths), default=None)


class Topologies(Part):
    """What makes a communicator with a topology. Ranks keep their order: `reorder` is not made use of."""

    def Create_cart(
        self, dims: Sequence[int], periods: Sequence[bool] | bool | None = None, reorder: bool = False
    ) -> Any:
        """Ranks that the grid has no place for get COMM_NULL. Collective."""
        return self._with_topology(self._cart(dims, periods))

    def Create_graph(self, index: Sequence[int], edges: Sequence[int], reorder: bool = False) -> Any:
        """`index` may begin with 0, as adjacency arrays do elsewhere. Ranks beyond it get COMM_NULL. Collective."""
        return self._with_topology(self._graph(index, edges))

    def Create_dist_graph_adjacent(
        self,
        sources: Sequence[int] | None,
        destinations: Sequence[int] | None,
        sourceweights: Sequence[int] | int | None = None,
        destweights: Sequence[int] | int | None = None,
        info: Info | None = None,
        reorder: bool = False,
    ) -> Any:
        """Each rank gives the edges that come to it and those that leave it. Collective."""
        incoming = self._checked(() if sources is None else sources)
        outgoing = self._checked(() if destinations is None else destinations)
        into, out_of = _weights(sourceweights, len(incoming)), _weights(destweights, len(outgoing))
        weights = None if into is None and out_of is None else (into or (), out_of or ())
        return self._with_topology(DistGraph(incoming, outgoing, weights))

    def Create_dist_graph(
        self,
        sources: Sequence[int],
        degrees: Sequence[int],
        destinations: Sequence[int],
        weights: Sequence[int] | int | None = None,
        info: Info | None = None,
        reorder: bool = False,
    ) -> Any:
        """Any rank may give any edges: `degrees[i]` of them from `sources[i]`, one after the other. Collective."""
        degrees = _of_length(degrees, len(sources), "degrees")
        targets = self._checked(_of_length(destinations, sum(degrees), "destinations"))
        origins = self._checked(s for s, degree in zip(sources, degrees, strict=True) for _ in range(degree))
        weighing = _weights(weights, len(targets))
        mine = list(zip(origins, targets, weighing or (1,) * len(targets), strict=True))
        told = self.allgather((mine, weighing is not None))
        edges = [edge for theirs, _ in told for edge in theirs]
        come = [(source, weight) for source, target, weight in edges if target == self.Get_rank()]
        go = [(target, weight) for source, target, weight in edges if source == self.Get_rank()]
        numbers = tuple(rank for rank, _ in come), tuple(rank for rank, _ in go)
        weighed = tuple(weight for _, weight in come), tuple(weight for _, weight in go)
        graph = DistGraph(*numbers, weighed if any(weighs for _, weighs in told) else None)
        return self._with_topology(graph)

    def Cart_map(self, dims: Sequence[int], periods: Sequence[bool] | bool | None = None) -> int:
        """The rank that Create_cart would give this process, UNDEFINED for none."""
        return self._place(self._cart(dims, periods))

    def Graph_map(self, index: Sequence[int], edges: Sequence[int]) -> int:
        """The rank that Create_graph would give this process, UNDEFINED for none."""
        return self._place(self._graph(index, edges))

    def _place(self, topology: Cart | Graph) -> int:
        rank: int = self.Get_rank()
        return rank if rank < topology.size else UNDEFINED

    def _cart(self, dims: Sequence[int], periods: Sequence[bool] | bool | None) -> Cart:
        lengths = tuple(whole(length) for length in dims)
        if periods is None or isinstance(periods, bool):
            periods = [bool(periods)] * len(lengths)
        cart = Cart(lengths, tuple(bool(periodic) for periodic in _of_length(periods, len(lengths), "periods")))
        if any(length < 1 for length in lengths):
            raise errors.Exception(ERR_DIMS, f"{list(lengths)} is no grid")
        return self._fits(cart)

    def _graph(self, index: Sequence[int], edges: Sequence[int]) -> Graph:
        if len(index) and index[0] == 0 and index[-1] == len(edges):
            index = index[1:]
        ends = tuple(whole(end) for end in index)
        if sorted(ends) != list(ends) or (ends[-1] if ends else 0) != len(edges):
            raise errors.Exception(ERR_ARG, "index does not part the edges")
        return self._fits(Graph(ends, self._checked(edges)))

    def _fits(self, topology: Any) -> Any:
        if topology.size > self.Get_size():
            raise errors.Exception(ERR_ARG, f"it has places for {topology.size} ranks, but there are {self.Get_size()}")
        return topology

    def _checked(self, ranks: Iterable[int]) -> tuple[int, ...]:
        checked = tuple(whole(rank) for rank in ranks)
        if any(not 0 <= rank < self.Get_size() for rank in checked):
            raise errors.Exception(ERR_RANK, f"{list(checked)} has what is no rank")
        return checked


class Placed(Part):
    """What all communicators with a topology answer."""

    @property
    def degrees(self) -> tuple[int, int]:
        incoming, outgoing = self.inoutedges
        return len(incoming), len(outgoing)

    @property
    def indegree(self) -> int:
        return self.degrees[0]

    @property
    def outdegree(self) -> int:
        return self.degrees[1]

    @property
    def inoutedges(self) -> Edges:
        """Whom this rank hears and whom it tells in neighbourhood collectives, PROC_NULL for nobody."""
        return self._topology.edges(self.Get_rank())

    @property
    def inedges(self) -> list[int]:
        return self.inoutedges[0]

    @property
    def outedges(self) -> list[int]:
        return self.inoutedges[1]

    def _rank_here(self, rank: int) -> int:
        if not 0 <= rank < self.Get_size():
            raise errors.Exception(ERR_RANK, f"{rank} is no rank")
        return rank


class OnCart(Part):
    """What communicators on a grid answer."""

    def Get_dim(self) -> int:
        return len(self._topology.dims)

    dim = ndim = property(Get_dim)

    def Get_topo(self) -> tuple[list[int], list[int], list[int]]:
        """Lengths, whether periodic (as 0 or 1), and this rank's coordinates."""
        cart = self._topology
        return list(cart.dims), [int(periodic) for periodic in cart.periods], cart.coords(self.Get_rank())

    topo = property(Get_topo)

    @property
    def dims(self) -> list[int]:
        return self.Get_topo()[0]

    @property
    def periods(self) -> list[int]:
        return self.Get_topo()[1]

    @property
    def coords(self) -> list[int]:
        return self.Get_topo()[2]

    def Get_cart_rank(self, coords: Sequence[int]) -> int:
        return self._topology.rank(_of_length(coords, self.Get_dim(), "coords"))

    def Get_coords(self, rank: int) -> list[int]:
        return self._topology.coords(self._rank_here(rank))

    def Shift(self, direction: int, disp: int) -> tuple[int, int]:
        """The ranks `disp` behind and ahead of this one, PROC_NULL where the grid has ended."""
        direction, disp = number(direction), number(disp)
        if not 0 <= direction < self.Get_dim():
            raise errors.Exception(ERR_ARG, f"{direction} is no dimension of the grid")
        cart, rank = self._topology, self.Get_rank()
        return cart.beside(rank, direction, -disp), cart.beside(rank, direction, disp)

    def Sub(self, remain_dims: Sequence[bool]) -> Any:
        """The part of the grid that this rank is in when the other dimensions are cut through. Collective."""
        remain = _of_length(remain_dims, self.Get_dim(), "remain_dims")
        cart, rank = self._topology, self.Get_rank()
        cut = [place for place, keep in enumerate(remain) if not keep]

        def where(member: int) -> list[int]:
            coords = cart.coords(member)
            return [coords[place] for place in cut]

        members = [member for member in range(cart.size) if where(member) == where(rank)]
        kept = [place for place, keep in enumerate(remain) if keep]
        part = Cart(tuple(cart.dims[place] for place in kept), tuple(cart.periods[place] for place in kept))
        return self._with_topology(part, members)


class OnGraph(Part):
    """What communicators on a graph that all know answer."""

    def Get_dims(self) -> tuple[int, int]:
        graph = self._topology
        return len(graph.ends), len(graph.targets)

    dims = property(Get_dims)

    @property
    def nnodes(self) -> int:
        return self.Get_dims()[0]

    @property
    def nedges(self) -> int:
        return self.Get_dims()[1]

    def Get_topo(self) -> tuple[list[int], list[int]]:
        graph = self._topology
        return list(graph.ends), list(graph.targets)

    topo = property(Get_topo)

    @property
    def index(self) -> list[int]:
        return self.Get_topo()[0]

    @property
    def edges(self) -> list[int]:
        return self.Get_topo()[1]

    def Get_neighbors_count(self, rank: int) -> int:
        return len(self.Get_neighbors(rank))

    def Get_neighbors(self, rank: int) -> list[int]:
        return self._topology.neighbors(self._rank_here(rank))

    @property
    def nneighbors(self) -> int:
        return self.Get_neighbors_count(self.Get_rank())

    @property
    def neighbors(self) -> list[int]:
        return self.Get_neighbors(self.Get_rank())


class OnDistGraph(Part):
    """What communicators on a graph of which each rank knows its part answer."""

    def Get_dist_neighbors_count(self) -> tuple[int, int, bool]:
        graph = self._topology
        return len(graph.sources), len(graph.targets), graph.weights is not None

    def Get_dist_neighbors(self) -> tuple[list[int], list[int], tuple[list[int], list[int]] | None]:
        graph = self._topology
        weights = None if graph.weights is None else (list(graph.weights[0]), list(graph.weights[1]))
        return list(graph.sources), list(graph.targets), weights


def _weights(weights: Sequence[int] | int | None, count: int) -> tuple[int, ...] | None:
    if weights is None or (isinstance(weights, int) and weights == UNWEIGHTED):
        return None
    if isinstance(weights, int):
        if weights != WEIGHTS_EMPTY:
            raise TypeError("weights must be a sequence of integers, UNWEIGHTED or WEIGHTS_EMPTY")
        if count:
            raise ValueError("weights are WEIGHTS_EMPTY, but there are edges")
        return ()
    return tuple(whole(weight) for weight in _of_length(weights, count, "weights"))


def _of_length(values: Sequence[Any], count: int, name: str) -> Sequence[Any]:
    if len(values) != count:
        raise ValueError(f"{name} must have {count} items, not {len(values)}")
    return values
