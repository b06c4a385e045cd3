"""Every algorithm of collx. Importing this package fills `collx.schedule.REGISTER`."""

from collx.algorithms import (
    bruck,
    chain,
    circulant,
    direct,
    dissemination,
    double_tree,
    halving,
    hierarchical,
    leaders,
    pairwise,
    pat,
    ring,
    scan,
    scatter_gather,
    swing,
    tree,
)

__all__ = [
    "bruck",
    "chain",
    "circulant",
    "direct",
    "dissemination",
    "double_tree",
    "halving",
    "hierarchical",
    "leaders",
    "pairwise",
    "pat",
    "ring",
    "scan",
    "scatter_gather",
    "swing",
    "tree",
]
