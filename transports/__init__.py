"""Transports: bytes between two ranks. See `base` for what one is; `conformance` says whether one is right. The packages
in here are how ranks find each other and are joined."""
