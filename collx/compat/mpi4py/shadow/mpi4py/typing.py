"""The names that annotations use."""

from typing import Any

Buffer = Bottom = InPlace = Any
BufSpec = BufSpecB = BufSpecV = BufSpecW = TargetSpec = Any
