"""Who sits where, and what joins them; see docs/topology.md."""

from collx.topology.links import DEFAULT_LINKS
from collx.topology.model import Level, Link, Topology
from collx.topology.text import describe

__all__ = ["DEFAULT_LINKS", "Level", "Link", "Topology", "describe"]
