"""Who sits where, and what joins them; see docs/topology.md."""

from collx.topology.links import DEFAULT_LINKS
from collx.topology.machine import Machine, Node
from collx.topology.model import Level, Link, Topology
from collx.topology.placing import place
from collx.topology.sources import load, read
from collx.topology.text import describe

__all__ = ["DEFAULT_LINKS", "Level", "Link", "Machine", "Node", "Topology", "describe", "load", "place", "read"]
